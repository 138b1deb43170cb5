"""The whole pipeline: images read, decoded, preprocessed and classified, which a fast model waits for."""

from __future__ import annotations

import math
from collections.abc import Iterator

from tomebench.datasets.loader import Batch, batch_count
from tomebench.errors import DeviceError
from tomebench.measure.clock import clock_for
from tomebench.sweeps.events import Event, Note, Phase, Progress
from tomebench.sweeps.forward import CellFailed
from tomebench.sweeps.job import Job
from tomebench.sweeps.reading import Reading
from tomebench.sweeps.rows import END_TO_END

IMAGES = 1024
"""Images that one cell is timed on, or one batch where that is more."""
_AHEAD = 2
"""Batches that a worker reads ahead."""


def measure_end_to_end(job: Job, reading: Reading) -> Iterator[Event]:
    """Images per second of every cell when it is fed by the data loader, if the configuration asks for it.

    The first batches are not timed: workers start, and what they have read ahead when the first one arrives would
    come for free. Cells that have been timed before are left out.
    """
    if not job.config.end_to_end:
        return
    images = len(reading.image_set)
    lead = 1 + _AHEAD * reading.workers
    total = batch_count(images, job.batch_size)
    last = min(total, lead + math.ceil(IMAGES / job.batch_size))
    if last <= lead:
        yield Note(f"end-to-end speed needs over {lead * job.batch_size} images; there are {images}")
        return
    yield Phase("end-to-end", float(len(job.live())))
    found = dict(job.store.get(END_TO_END) or {})
    for number, key in enumerate(job.live(), start=1):
        if key not in found:
            try:
                found[key] = _timed(job, reading, key, lead, last)
            except CellFailed as failure:
                yield job.failed(failure)
                continue
            job.store.put(END_TO_END, found)
        yield Progress("end-to-end", float(number), float(len(job.live())), "cells", "")


def _timed(job: Job, reading: Reading, key: str, lead: int, last: int) -> tuple[int, float]:
    """Images of the batches from ``lead`` to ``last``, and the seconds they took. A cache would hide the decoding.

    Raises:
        DeviceError: the clock did not advance.
    """
    forward, clock = job.passes.forward(key), clock_for(job.device)

    def classify(batch: Batch) -> int:
        job.stop_if_asked()
        forward(reading.prepare(batch.images)).argmax(dim=1).cpu()  # an answer is only one once it has come back
        return batch.n_valid

    images, start = 0, 0.0
    for number, batch in enumerate(reading.batches(range(last), cached=False)):
        valid = classify(batch)
        if number + 1 == lead:
            start = clock.now()
        elif number + 1 > lead:
            images += valid
    seconds = clock.now() - start
    if not 0 < seconds < math.inf:
        raise DeviceError(f"{images} images took {seconds} s: this machine's clock cannot be right; check it")
    return images, seconds
