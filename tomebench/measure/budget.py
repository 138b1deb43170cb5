"""How long to measure: the budgets a user can name, how far a run is from them, and whether another round is needed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from tomebench import stats
from tomebench.measure.rounds import paired_seconds, step_seconds
from tomebench.schema import CEILING, Round


@dataclass(frozen=True)
class Budget:
    """How long to measure."""

    name: str
    min_rounds: int
    half_width: float  # relative half-width of the intervals to reach, a fraction
    cap_seconds: float  # after this long no round beyond min_rounds is started


BUDGETS: Mapping[str, Budget] = {
    "none": Budget("none", 0, math.inf, 0),
    "quick": Budget("quick", 6, 0.03, 2 * 60),
    "standard": Budget("standard", 10, 0.01, 15 * 60),
    "publish": Budget("publish", 20, 0.005, 60 * 60),
}
"""The budgets a user can name."""


@dataclass(frozen=True)
class Shortfall:
    """How far a cell is from what its budget asks."""

    half_width: float | None  # of the widest interval so far, a fraction; None under six rounds
    rounds_needed: int  # more rounds to expect, >= 1


def shortfall(rounds: Sequence[Round], baseline: str, keys: Sequence[str], budget: Budget) -> dict[str, Shortfall]:
    """The cells that have too few rounds, or whose intervals are still too wide; empty when all are done.

    The intervals are those of the speed-up over r = 0 and, where it was timed, of the overhead over the ceiling.

    Args:
        rounds: all rounds so far, of every session.
        baseline: key of the r = 0 cell. It needs the rounds only, since its own speed-up is 1.
        keys: cells to look at.
        budget: what to reach.
    """
    return dict(_shortfalls(rounds, baseline, keys, budget))


def next_round_needed(
    rounds: Sequence[Round], baseline: str, keys: Sequence[str], budget: Budget, elapsed: float
) -> bool:
    """Whether to time another round.

    Yes until every cell has ``budget.min_rounds``; then no if ``elapsed`` (seconds spent on rounds by this process)
    has reached the cap; else yes while any interval is too wide.
    """
    if any(len(step_seconds(rounds, key)) < budget.min_rounds for key in keys):
        return True
    if elapsed >= budget.cap_seconds:
        return False
    return next(_shortfalls(rounds, baseline, keys, budget), None) is not None


def _shortfalls(
    rounds: Sequence[Round], baseline: str, keys: Sequence[str], budget: Budget
) -> Iterator[tuple[str, Shortfall]]:
    for key in keys:
        base, other = paired_seconds(rounds, baseline, key)
        missing = budget.min_rounds - len(other)
        half_width = stats.speedup(base, other).half_width if other and key != baseline else None
        beside, ceiling = paired_seconds(rounds, key, CEILING + key)
        if half_width is not None and beside:  # the overhead over the ceiling is to be known as well
            half_width = max(half_width, stats.speedup(beside, ceiling).half_width or 0.0)
        wide = 0 if half_width is None else stats.rounds_needed(len(other), half_width, budget.half_width)
        if missing > 0 or wide > 0:
            yield key, Shortfall(half_width, max(missing, wide))
