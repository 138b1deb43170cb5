"""The whole pipeline: images read, decoded, preprocessed and classified, which a fast model waits for."""

from __future__ import annotations

import math
from collections.abc import Iterator

from tomebench.datasets.images import ImageSet
from tomebench.datasets.loader import Batch, batch_count, batches, default_workers
from tomebench.errors import DeviceError
from tomebench.measure.clock import clock_for
from tomebench.measure.testbed import usable_cpus
from tomebench.models.preprocess import Preprocessing
from tomebench.sweeps.events import Event, Note, Phase, Progress
from tomebench.sweeps.forward import CellFailed, weights_dtype
from tomebench.sweeps.job import Job
from tomebench.sweeps.rows import END_TO_END

IMAGES = 1024
"""Images that one cell is timed on, or one batch where that is more."""
_AHEAD = 2
"""Batches that a worker reads ahead."""


def measure_end_to_end(job: Job, image_set: ImageSet) -> Iterator[Event]:
    """Images per second of every cell when it is fed by the data loader, if the configuration asks for it.

    The first batches are not timed: workers start, and what they have read ahead when the first one arrives would
    come for free. Cells that have been timed before are left out.
    """
    if not job.config.end_to_end:
        return
    workers = default_workers(len(image_set), usable_cpus()) if job.config.workers is None else job.config.workers
    lead = 1 + _AHEAD * workers
    total = batch_count(len(image_set), job.batch_size)
    last = min(total, lead + math.ceil(IMAGES / job.batch_size))
    if last <= lead:
        yield Note(f"end-to-end speed needs over {lead * job.batch_size} images; there are {len(image_set)}")
        return
    yield Phase("end-to-end", float(len(job.live())))
    found = dict(job.store.get(END_TO_END) or {})
    for number, key in enumerate(job.live(), start=1):
        if key not in found:
            try:
                found[key] = _timed(job, image_set, key, lead, range(last, total), workers)
            except CellFailed as failure:
                yield job.failed(failure)
                continue
            job.store.put(END_TO_END, found)
        yield Progress("end-to-end", float(number), float(len(job.live())), "cells", "")


def _timed(job: Job, image_set: ImageSet, key: str, lead: int, skip: range, workers: int) -> tuple[int, float]:
    """Images after the first ``lead`` batches, and the seconds they took.

    Raises:
        DeviceError: the clock did not advance.
    """
    forward, clock = job.passes.forward(key), clock_for(job.device)
    transform = Preprocessing.from_model(job.loaded.model, job.config.img_size).transform()

    def classify(batch: Batch) -> int:
        job.stop_if_asked()
        images = batch.images.to(job.device, weights_dtype(job.config), non_blocking=True)
        forward(images).argmax(dim=1).cpu()  # an answer is only one once it has come back
        return batch.n_valid

    images, start = 0, 0.0
    for number, batch in enumerate(batches(image_set, transform, job.batch_size, workers=workers, skip=skip)):
        valid = classify(batch)
        if number + 1 == lead:
            start = clock.now()
        elif number + 1 > lead:
            images += valid
    seconds = clock.now() - start
    if not 0 < seconds < math.inf:
        raise DeviceError(f"{images} images took {seconds} s: this machine's clock cannot be right; check it")
    return images, seconds
