"""How many values would settle a question, if what was measured so far stays as it is."""

from __future__ import annotations

import math
from collections.abc import Callable

REACH = 100
"""Most times the values measured so far that are asked for; beyond that, no number is given."""


def enough(done: int, shown: Callable[[float], bool]) -> int | None:
    """Fewest values at which a condition holds, by bisection, rounded up to two digits.

    Args:
        done: number of values measured so far.
        shown: whether it holds with that many times as many values of the same kind, 1 or more; once it does, it stays.

    Returns:
        None where nothing was measured, or where it takes over REACH times as many.
    """
    low, high = 1.0, float(REACH)
    if not done or not shown(high):
        return None
    while high - low > 0.001 * low:
        middle = (low + high) / 2
        low, high = (low, middle) if shown(middle) else (middle, high)
    return about(high * done, done)


def about(needed: float, done: int) -> int | None:
    """A number needed, rounded up to two digits and above ``done``; None if over REACH times ``done``."""
    needed = max(needed, done + 1)
    if needed > REACH * done:
        return None
    step = 10 ** max(0, math.floor(math.log10(needed)) - 1)
    return math.ceil(needed / step) * step
