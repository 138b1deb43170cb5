"""How fast cells were when the data loader fed them: the turns that each of them had, and what they come to."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from tomebench import stats
from tomebench.sweeps.store import Store

_FACT = "end_to_end"
"""Name of the stored fact: images and seconds of each turn, by cell key."""
DROPPED = 1
"""First turns that do not count: files come from the disk, and not from memory as they do later."""
MIN_KEPT = 3
"""Turns that make an interval."""


def turns(store: Store) -> dict[str, list[tuple[int, float]]]:
    """Images and seconds of the turns that every cell has had; of older stores the sum of all, as if it were one."""
    found = store.get(_FACT) or {}
    return {
        key: [(each[0], each[1]) for each in entry] if isinstance(entry[0], list) else [(entry[0], entry[1])]
        for key, entry in found.items()
    }


def keep(store: Store, found: dict[str, list[tuple[int, float]]]) -> None:
    """Keep the turns of all cells, those that were kept before included."""
    store.put(_FACT, found)


def end_to_end_columns(taken: Sequence[tuple[int, float]]) -> dict[str, float]:
    """Images per second over all turns but the first, and Student's interval of their logarithms.

    Args:
        taken: images and seconds of each turn, in the order of time; one at least.
    """
    kept = taken[DROPPED:] or taken
    rate = sum(images for images, _ in kept) / sum(seconds for _, seconds in kept)
    fields = {"img_per_s_end_to_end": rate}
    if len(kept) >= MIN_KEPT:
        logs = np.log([images / seconds for images, seconds in kept])
        half = stats.student_t(len(kept) - 1) * float(np.std(logs, ddof=1)) / math.sqrt(len(kept))
        fields |= {
            "img_per_s_end_to_end_lo": rate * math.exp(-half),
            "img_per_s_end_to_end_hi": rate * math.exp(half),
        }
    return fields
