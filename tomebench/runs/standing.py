"""Standing of a race: the paired differences of every cell at the last stage that it has completed."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from tomebench.runs.race_facts import RaceFacts
from tomebench.runs.racing import Race, Runner, stages
from tomebench.runs.store import Store
from tomebench.runs.top1 import paired
from tomebench.stats import Differences

Top1 = Mapping[int, npt.NDArray[np.uint16]]
"""Predicted classes of a cell, by index of the batch."""


def reached(base: Top1, other: Top1, facts: RaceFacts, batch_size: int) -> int:
    """Number of batches after which a cell was last judged: the last stage that it and r = 0 have completed."""
    count = next((index for index in range(len(other) + 1) if index not in other or index not in base), 0)
    return max((stage for stage in stages(facts.total, batch_size) if stage <= count), default=0)


def differences_at(
    base: Top1, other: Top1, labels: npt.NDArray[np.int64], facts: RaceFacts, batch_size: int
) -> Differences:
    """Paired differences of a cell from r = 0 at its last stage, in the order of the images.

    Args:
        base: predictions of r = 0.
        other: of the cell.
        labels: true classes of all images, [n] or [n, k].
        facts: of the race.
        batch_size: images per batch.
    """
    batches = range(reached(base, other, facts, batch_size))
    if not batches:
        return np.empty(0, dtype=np.int8)
    first, second = (np.concatenate([each[index] for index in batches])[: facts.total] for each in (base, other))
    return paired(first, second, labels[: len(first)], by_agreement=facts.goal.by_agreement)


def verdicts(store: Store, facts: RaceFacts, baseline: str, labels: npt.NDArray[np.int64]) -> dict[str, bool | None]:
    """Whether all images of a race would show that a cell keeps the limit; None where that is open. By cell key."""
    batch_size = store.cells()[0][0].batch_size
    top1 = store.top1()
    base = top1.get(baseline, {})
    runners = [
        Runner(key, 1.0, "", 0.0, differences_at(base, own, labels, facts, batch_size))
        for key, own in top1.items()
        if key != baseline
    ]
    if not facts.goal.limits_loss or facts.against:  # such a race has asked something else
        return {}
    race = Race(runners, facts.total, facts.goal, facts.until, facts.level)
    return dict(race.seeming if facts.found == "seems" else race.verdicts)
