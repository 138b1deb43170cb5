"""End-to-end throughput: images per second of every cell with reading, decoding and preprocessing included."""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Iterator

from torch import Tensor

from tomebench.datasets.loader import batch_count
from tomebench.errors import DeviceError
from tomebench.measure.clock import clock_for
from tomebench.runs.turns import Turn, keep, turns, turns_left
from tomebench.sweeps.events import Event, Note, Phase, Progress
from tomebench.sweeps.failures import CellFailed
from tomebench.sweeps.inputs import Reading
from tomebench.sweeps.job import Job
from tomebench.words import are, counted

IMAGES = 512
"""Images that a cell is timed on in each of its turns; one batch where that is more."""
_AHEAD = 2
"""Batches that each loader worker reads ahead."""


def measure_end_to_end(job: Job, reading: Reading, session: int) -> Iterator[Event]:
    """Measure images per second of every cell fed by the data loader, if the configuration asks for it.

    Cells take turns in random order, so that a machine that slows down affects all of them; the first turn of a session
    does not count. The first batches of a turn are not timed: workers are starting, and what they have read ahead by
    then would cost nothing. A cell that has enough turns from earlier sessions is left out.

    Args:
        job: of the sweep.
        reading: of its images.
        session: number of this session.
    """
    if not job.config.end_to_end:
        return
    images = len(reading.image_set)
    lead = 1 + _AHEAD * reading.workers(len(reading.image_set))
    total = batch_count(images, job.batch_size)
    last = min(total, lead + math.ceil(IMAGES / job.batch_size))
    if last <= lead:
        yield Note(
            f"end-to-end speed needs over {counted(lead * job.batch_size, 'image')}; there {are(images)} {images}"
        )
        return
    found = turns(job.store)
    left = {key: turns_left(found.get(key, [])) for key in job.live()}
    drawn = random.Random(job.config.seed + session)
    order = [
        key
        for turn in range(max(left.values(), default=0))
        for key in drawn.sample([*left], len(left))
        if turn < left[key]
    ]
    if not order:
        return
    yield Phase("end-to-end", float(len(order)))
    for number, key in enumerate(order, start=1):
        if key in job.live():
            try:
                found[key] = [*found.get(key, []), Turn(*_timed(job, reading, key, lead, last), session)]
            except CellFailed as failure:
                yield job.failed(failure)
                continue
            keep(job.store, found)
        yield Progress("end-to-end", float(number), float(len(order)), "turns", "")


def _timed(job: Job, reading: Reading, key: str, lead: int, last: int) -> tuple[int, float]:
    """Number of images in the batches ``lead`` to ``last``, and the seconds they took.

    The pixel cache is bypassed: it would skip decoding.

    Raises:
        DeviceError: the clock did not advance.
    """
    forward, clock = job.passes.forward(key), clock_for(job.device)
    classified, start = 0, 0.0
    answers: deque[Tensor] = deque()

    def answered(allowed: int) -> None:
        """Wait until the logits of all but the last ``allowed`` batches are on the host."""
        with job.blame(key):
            while len(answers) > allowed:
                answers.popleft().cpu()

    for number, batch in enumerate(reading.batches(range(last), cached=False)):
        job.stop_if_asked()
        with job.blame(key):  # the previous batch is still being computed, and may fail here
            answers.append(forward(reading.prepare(batch.images)).argmax(dim=1))
        answered(0 if number + 1 == lead else 1)  # load the next batch while this one is computed
        if number + 1 == lead:
            start = clock.now()
        elif number + 1 > lead:
            classified += batch.n_valid
    answered(0)
    seconds = clock.now() - start
    if not 0 < seconds < math.inf:
        raise DeviceError(
            f"{counted(classified, 'image')} took {seconds} s: this machine's clock cannot be right; check it"
        )
    return classified, seconds
