"""The confidence interval: its type, level (95 %) and least number of values.

Computed by :mod:`tomebench.stats.speedups` for speed-ups, by :mod:`tomebench.stats.counts` for top-1, by
:mod:`tomebench.stats.series` for times and by :mod:`tomebench.stats.processes` between processes.
"""

from __future__ import annotations

from dataclasses import dataclass

MIN_VALUES = 6
"""Least number of values for an interval: with fewer, even [min, max] covers the median less than 95 % of the time."""
LEVEL = 0.95
"""Confidence level of every interval, unless another is asked for."""


@dataclass(frozen=True)
class Interval:
    """A confidence interval, both ends included."""

    lo: float
    hi: float

    def __contains__(self, value: float) -> bool:
        return self.lo <= value <= self.hi
