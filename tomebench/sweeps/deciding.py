"""Whether two runs are known well enough for the gate's tolerance, and what would be: a budget, or more processes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

from tomebench.gate.compare import Limits, speed_shifts
from tomebench.gate.records import Snapshot
from tomebench.gate.shifts import chance_to_pass
from tomebench.measure.budget import BUDGETS
from tomebench.stats import LEVEL, Shift
from tomebench.sweeps.targets import budget_rank

DECIDES = 0.5
"""Chance of two runs that are alike to pass, under which what they were measured with is too little for this gate."""
MOST = 30
"""No more processes than this are proposed."""


def too_small(old: Snapshot, new: Snapshot, limits: Limits) -> str | None:
    """That two runs are known too little to pass however alike they are, and what would do.

    Args:
        old: the baseline.
        new: what is to be judged.
        limits: what is still the same.

    Returns:
        None where they may well pass.
    """
    found, tolerance = speed_shifts(old, new), math.log1p(limits.speed.tolerance)
    if (chance := chance_to_pass(found, tolerance)) >= DECIDES:
        return None
    smaller = min((str(side.settings.get("budget")) for side in (old, new)), key=budget_rank)
    several = any(math.isfinite(shift.degrees) for shift in found)
    what = "so few processes" if several else f"--budget {smaller}"
    text = (
        f"{what} cannot decide here: two runs that are alike would pass --tolerance {100 * limits.speed.tolerance:g} "
        f"in {100 * chance:.0f} of 100 cases"
    )
    if several:
        count = _processes(found, tolerance)
        can = None if count is None else f"--processes {count}"
    else:
        budget = _budget(len(found), smaller, tolerance)
        can = None if budget is None else f"--budget {budget}"
    if can is None:
        return f"{text}; use a wider --tolerance, or a quieter machine"
    return f"{text}; {can} can: measure both with it"


def _budget(cells: int, smaller: str, tolerance: float) -> str | None:
    """The smallest of the larger budgets that can, if each side is known to the half-width that it aims at."""
    for name, budget in BUDGETS.items():
        error = math.log1p(budget.half_width) / NormalDist().inv_cdf((1 + LEVEL) / 2)
        aimed = [Shift(0.0, 2 * error)] * cells
        if budget_rank(name) > max(budget_rank(smaller), 0) and chance_to_pass(aimed, tolerance) > DECIDES:
            return name
    return None


def _processes(found: Sequence[Shift], tolerance: float) -> int | None:
    """The fewest processes on each side that can, if they scatter as these do."""
    # Of n and m processes the error is a scatter times sqrt(1 / n + 1 / m), and n + m is about the degrees and two.
    scatters = [shift.error / math.sqrt(4 / (shift.degrees + 2)) for shift in found if math.isfinite(shift.degrees)]
    for count in range(3, MOST + 1):
        aimed = [Shift(0.0, scatter * math.sqrt(2 / count), 2 * count - 2) for scatter in scatters]
        if chance_to_pass(aimed, tolerance) > DECIDES:
            return count
    return None
