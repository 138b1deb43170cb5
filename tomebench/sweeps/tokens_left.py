"""Count the tokens that are left in cells where that depends on the image, over images of the evaluation."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch

from tomebench.datasets.loader import batch_count
from tomebench.runs.row import TOKENS_LEFT
from tomebench.sweeps.events import Event
from tomebench.sweeps.failures import CellFailed
from tomebench.sweeps.inputs import Reading
from tomebench.sweeps.job import Job

IMAGES = 1024
"""Images that the mean is over, where there are more; in batches spread evenly, as images may be sorted by class."""


def count_tokens(job: Job, reading: Reading) -> Iterator[Event]:
    """Store the mean tokens without padding of every cell that has padding and lacks the number."""
    known = dict(job.store.get(TOKENS_LEFT) or {})
    live = job.live()
    lacking = [c.cell.key for c in job.cells if c.resolved.padded and c.cell.key in live and c.cell.key not in known]
    counts: dict[str, list[int]] = {key: [] for key in lacking}
    if not counts:
        return
    total = batch_count(len(reading.image_set), job.batch_size)
    some = min(total, math.ceil(IMAGES / job.batch_size))
    for batch in reading.batches([number * total // some for number in range(some)]):
        images = reading.prepare(batch.images)
        for key in [*counts]:
            job.stop_if_asked()
            try:
                with job.blame(key), torch.inference_mode():
                    counts[key] += job.passes.models[key].tokens_left(images)[: batch.n_valid].tolist()
            except CellFailed as failure:
                yield job.failed(failure)
                del counts[key]
    means = {key: sum(found) / len(found) for key, found in counts.items()}
    job.store.put(TOKENS_LEFT, known | means)
