"""Power of the gate: would two equal runs pass the tolerance, and with which budget or number of processes?"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from statistics import NormalDist

from tomebench.gate.compare import Limits, speed_scatters, speed_shifts
from tomebench.gate.records import Snapshot
from tomebench.gate.shifts import Scatter, chance_to_pass
from tomebench.runs.budget import BUDGETS
from tomebench.runs.targets import budget_rank
from tomebench.stats import LEVEL, Shift

DECIDES = 0.5
"""Probability of two equal runs to pass under which their measurement is too short for the tolerance."""
CAN = 0.9
"""Probability of two equal runs to pass that a proposed budget or number of processes has to reach."""
MOST = 30
"""Largest number of processes that is proposed."""


def too_small(old: Snapshot, new: Snapshot, limits: Limits) -> str | None:
    """Text saying that two runs would mostly fail even if they were equal, and which budget or processes would do.

    Args:
        old: the baseline.
        new: snapshot that is judged.
        limits: up to which the two count as the same.

    Returns:
        None where equal runs would pass often enough.
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
        count = _processes(speed_scatters(old, new), tolerance)
        can = None if count is None else f"--processes {count}"
    else:
        budget = _budget(found, smaller, tolerance)
        can = None if budget is None else f"--budget {budget}"
    if can is None:
        return f"{text}; use a wider --tolerance, or a quieter machine"
    return f"{text}; {can} can: measure both with it"


def _budget(found: Sequence[Shift], smaller: str, tolerance: float) -> str | None:
    """Smallest larger budget with which equal runs would mostly pass; None if there is none.

    With a budget each side reaches the half-width that it aims at, or the one that its time allows, since errors shrink
    with the square root of time. The error of a cell is taken halfway between its own, which few rounds estimate badly,
    and the median over cells. ``publish`` is left out: how its processes scatter is unknown.
    """
    spent = BUDGETS[smaller].cap_seconds if smaller in BUDGETS else 0.0
    usual = statistics.median(shift.error for shift in found)
    for name, budget in BUDGETS.items():
        if budget_rank(name) <= max(budget_rank(smaller), 0) or name == "publish":
            continue
        aimed = 2 * math.log1p(budget.half_width) / NormalDist().inv_cdf((1 + LEVEL) / 2)
        shrunk = math.sqrt(spent / budget.cap_seconds)
        errors = [max(aimed, (each.error + usual) / 2 * shrunk) for each in found]
        if chance_to_pass([Shift(0.0, error) for error in errors], tolerance) >= CAN:
            return name
    return None


def _processes(found: Sequence[Scatter], tolerance: float) -> int | None:
    """Smallest larger number of processes per side with which equal runs would mostly pass, at this scatter."""
    present = min((each.processes for each in found), default=1)
    for count in range(max(3, present + 1), MOST + 1):
        aimed = [Shift(0.0, each.value * math.sqrt(2 / count), 2 * count - 2) for each in found]
        if chance_to_pass(aimed, tolerance) >= CAN:
            return count
    return None
