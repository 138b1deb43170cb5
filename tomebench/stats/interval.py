"""What every interval is."""

from __future__ import annotations

from dataclasses import dataclass

LEVEL = 0.95
"""Confidence level of every interval."""


@dataclass(frozen=True)
class Interval:
    """A 95 % interval, both ends included."""

    lo: float
    hi: float

    def __contains__(self, value: float) -> bool:
        return self.lo <= value <= self.hi
