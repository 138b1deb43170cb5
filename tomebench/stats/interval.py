"""What every interval is."""

from __future__ import annotations

from dataclasses import dataclass

MIN_VALUES = 6
"""Below this many rounds no interval is given: even [min, max] covers the median less than 95 % of the time."""
LEVEL = 0.95
"""Confidence level of every interval."""


@dataclass(frozen=True)
class Interval:
    """A 95 % interval, both ends included."""

    lo: float
    hi: float

    def __contains__(self, value: float) -> bool:
        return self.lo <= value <= self.hi
