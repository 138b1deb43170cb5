"""How fast cells were when the data loader fed them: the turns that each of them had, and what they come to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tomebench import stats
from tomebench.runs.store import TURNS, Store

MIN_KEPT = 3
"""Turns that make an interval."""


class Turn(NamedTuple):
    """A turn of a cell."""

    images: int
    seconds: float
    session: int = 0  # of older stores, which do not say it


def turns(store: Store) -> dict[str, list[Turn]]:
    """The turns that every cell has had; of older stores the sum of all, as if it were one."""
    found = store.get(TURNS) or {}
    return {
        key: [Turn(*each) for each in entry] if isinstance(entry[0], list) else [Turn(*entry)]
        for key, entry in found.items()
    }


def counted_turns(taken: Sequence[Turn]) -> list[Turn]:
    """Turns but the first of each session, when files come from the disk and not from memory as they do later."""
    return [turn for number, turn in enumerate(taken) if any(turn.session == each.session for each in taken[:number])]


def turns_left(taken: Sequence[Turn]) -> int:
    """How many more of them a new session has to take, the one included that does not count."""
    missing = MIN_KEPT - len(counted_turns(taken))
    return 1 + missing if missing > 0 else 0


def keep(store: Store, found: dict[str, list[Turn]]) -> None:
    """Keep the turns of all cells, those that were kept before included."""
    store.put(TURNS, found)


def end_to_end_columns(taken: Sequence[Turn]) -> dict[str, float]:
    """Images per second over all turns that count, and Student's interval of their logarithms.

    Args:
        taken: in the order of time; one at least.
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
