"""Measurement budgets (quick, standard, publish), how far a cell's intervals are from one, when to stop timing."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from tomebench import stats
from tomebench.runs.rounds import compare, pairs, step_seconds
from tomebench.schema import CEILING, Round


@dataclass(frozen=True)
class Budget:
    """How long to time: least rounds, width of the intervals to reach, and a limit on time."""

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
"""Budgets by the names that a user can give."""
PUBLISH_PROCESSES = 5
"""Least number of fresh processes that the budget ``publish`` asks for."""


@dataclass(frozen=True)
class Shortfall:
    """What a cell lacks of its budget."""

    half_width: float | None  # of the widest interval so far, a fraction; None where there is none yet
    rounds_needed: int = 0  # further rounds to expect; >= 1 unless several processes are asked for
    processes_needed: int = 0  # further processes to expect, likewise


def share_of(budget: Budget, processes: int) -> Budget:
    """Share of a budget for each of several processes, so that together they cost about as much as one.

    The half-width of a mean of n shrinks with sqrt(n); each process has six rounds at least.
    """
    if processes == 1:
        return budget
    return replace(
        budget,
        min_rounds=max(stats.MIN_VALUES, math.ceil(budget.min_rounds / processes)),
        half_width=budget.half_width * math.sqrt(processes),
        cap_seconds=budget.cap_seconds / processes,
    )


def shortfall(
    rounds: Sequence[Round], baseline: str, keys: Sequence[str], budget: Budget, processes: int = 1
) -> dict[str, Shortfall]:
    """Cells with too few rounds or with intervals still too wide, and what they lack; empty when all are done.

    The intervals are those of the speed-up over r = 0 and, where it was timed, of the overhead over the ceiling.

    Args:
        rounds: all rounds so far, of every session.
        baseline: key of the r = 0 cell. It needs the least rounds only, since its own speed-up is 1 by definition.
        keys: cells to look at.
        budget: what to reach.
        processes: number of fresh processes asked for; above 1, each session was one of them.
    """
    between = _between if processes > 1 else _within
    return {key: found for key in keys if (found := between(rounds, baseline, key, budget, processes)) is not None}


def complete_processes(rounds: Sequence[Round], baseline: str, key: str, ceiling: bool) -> int:
    """Number of sessions in which a cell has enough rounds beside r = 0, and if ``ceiling`` beside its own ceiling."""
    others = [baseline, *([CEILING + key] if ceiling else [])]
    counts = [Counter(pairs(rounds, other, key).sessions) for other in others]
    return sum(all(count[session] >= stats.MIN_VALUES for count in counts) for session in counts[0])


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
    return any(_within(rounds, baseline, key, budget) for key in keys)


def _within(rounds: Sequence[Round], baseline: str, key: str, budget: Budget, processes: int = 1) -> Shortfall | None:
    """What a cell lacks where rounds are the unit of the interval."""
    done = len(pairs(rounds, baseline, key).other)
    missing = budget.min_rounds - done
    half_width = _widest(rounds, baseline, key)
    wide = 0 if half_width is None else stats.rounds_needed(done, half_width, budget.half_width)
    return Shortfall(half_width, max(missing, wide)) if max(missing, wide) > 0 else None


def _between(rounds: Sequence[Round], baseline: str, key: str, budget: Budget, processes: int) -> Shortfall | None:
    """What a cell lacks where processes are the unit of the interval."""
    done = complete_processes(rounds, baseline, key, ceiling=False)
    half_width = _widest(rounds, baseline, key, between=True) if done > 1 else None
    wide = 0
    if half_width is not None and half_width > budget.half_width:
        wide = stats.processes_needed(math.log1p(half_width), done, math.log1p(budget.half_width)) - done
    needed = max(processes - done, wide)
    return Shortfall(half_width, processes_needed=needed) if needed > 0 else None


def _widest(rounds: Sequence[Round], baseline: str, key: str, *, between: bool = False) -> float | None:
    """Half-width of the wider of a cell's intervals; None for r = 0, and where there is none yet."""
    found = None if key == baseline else compare(rounds, baseline, key, between=between)
    if found is None or found.half_width is None:
        return None
    # The interval of the overhead over the ceiling counts as well.
    overhead = compare(rounds, key, CEILING + key, between=between)
    return max(found.half_width, (overhead and overhead.half_width) or 0.0)
