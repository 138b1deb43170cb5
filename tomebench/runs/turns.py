"""End-to-end throughput of a cell from its stored turns, each a timed stretch of batches fed by the data loader."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tomebench import stats
from tomebench.runs.store import TURNS, Store

MIN_KEPT = 3
"""Least number of turns that give an interval."""


class Turn(NamedTuple):
    """One end-to-end timing of a cell."""

    images: int
    seconds: float
    session: int = 0  # older stores do not have it


def turns(store: Store) -> dict[str, list[Turn]]:
    """End-to-end turns of every cell; older stores have only the sum of all, which counts as one turn."""
    found = store.get(TURNS) or {}
    return {
        key: [Turn(*each) for each in entry] if isinstance(entry[0], list) else [Turn(*entry)]
        for key, entry in found.items()
    }


def counted_turns(taken: Sequence[Turn]) -> list[Turn]:
    """Turns without the first of each session, in which files come from disk rather than from the page cache."""
    return [turn for number, turn in enumerate(taken) if any(turn.session == each.session for each in taken[:number])]


def turns_left(taken: Sequence[Turn]) -> int:
    """Number of turns of a cell that a new session has to take, its first included, which does not count."""
    missing = MIN_KEPT - len(counted_turns(taken))
    return 1 + missing if missing > 0 else 0


def keep(store: Store, found: dict[str, list[Turn]]) -> None:
    """Store the turns of all cells, earlier ones included."""
    store.put(TURNS, found)


def end_to_end_columns(taken: Sequence[Turn]) -> dict[str, float]:
    """Images per second over all turns that count, with Student's interval of their logarithms.

    Args:
        taken: turns in the order of time, at least one.
    """
    kept = counted_turns(taken) or taken
    rate = sum(turn.images for turn in kept) / sum(turn.seconds for turn in kept)
    fields = {"img_per_s_end_to_end": rate}
    if len(kept) >= MIN_KEPT:
        logs = np.log([turn.images / turn.seconds for turn in kept])
        half = stats.student_t(len(kept) - 1) * float(np.std(logs, ddof=1)) / math.sqrt(len(kept))
        fields |= {
            "img_per_s_end_to_end_lo": rate * math.exp(-half),
            "img_per_s_end_to_end_hi": rate * math.exp(half),
        }
    return fields
