"""Median and quantiles of a series of times, with intervals that allow for correlation between neighbours."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tomebench.stats.counts import binomial_cdf
from tomebench.stats.interval import LEVEL, Interval
from tomebench.stats.processes import mean_half_width, process_medians

BATCHES = 5
"""Number of batches that a series is cut into; fewer and longer batches depend less on each other."""
MIN_BATCHED = 4 * BATCHES
"""Least number of values for an interval: with under four per batch too little of the correlation is averaged out."""


@dataclass(frozen=True)
class Level:
    """Level of a series of times, with its interval."""

    value: float
    half_width: float | None  # of its logarithm, at 95 %; None where it cannot be given
    processes: int = 1  # number whose medians it is the mean of; 1: the median of all values

    @property
    def interval(self) -> Interval | None:
        """95 % interval."""
        if self.half_width is None:
            return None
        return Interval(self.value * math.exp(-self.half_width), self.value * math.exp(self.half_width))


def level(times: Sequence[float], processes: Sequence[int] = ()) -> Level:
    """Level of a series: the geometric mean of the medians of its processes, or with fewer than two, the median.

    Args:
        times: all > 0, in the order in which they were taken; [n].
        processes: number of the process of each, where the process is the unit of analysis; [n]. With fewer than two
            that count, there is no interval.
    """
    logs = np.log(times)
    medians = process_medians(logs, processes) if processes else ()
    if (half := mean_half_width(medians)) is not None:
        return Level(math.exp(float(np.mean(medians))), half, len(medians))
    return Level(float(np.median(times)), None if processes else batch_half_width(logs))


def batch_half_width(values: Sequence[float] | npt.NDArray[np.float64]) -> float | None:
    """Half-width at 95 % of the median of a correlated series: the method of batch means, here of medians.

    The series is cut into five batches of equal length, and the half-width is Student's over their medians. Order
    statistics of the single values would take neighbours as independent. C. Alexopoulos and A. F. Seila, "Output data
    analysis" (1998), on batch means.

    Args:
        values: in the order of time.

    Returns:
        None for fewer than MIN_BATCHED values.
    """
    series = np.asarray(values, dtype=np.float64)
    if len(series) < MIN_BATCHED:
        return None
    return mean_half_width(batch_medians(series))


def batch_medians(values: Sequence[float] | npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Medians of five batches of a series in the order of time; they are nearly independent."""
    return np.array([np.median(batch) for batch in np.array_split(np.asarray(values, dtype=np.float64), BATCHES)])


def quantile_interval(rounds: Sequence[Sequence[float]], share: float) -> Interval | None:
    """95 % interval of a quantile by order statistics; values within a round, and of neighbouring rounds, correlate.

    The uncertainty of the share of values up to the quantile is that over five batches of rounds (Student's), but at
    least what it would be if each round were one value (binomial); the interval ends at the values at the ends of that
    share. R. S. Woodruff, "Confidence intervals for medians and other position measures" (1952).

    Args:
        rounds: the values of each round, in the order of time.
        share: of the values that lie below it, above 0 and under 1.

    Returns:
        None for fewer than MIN_BATCHED rounds, and where they are too few for so small or large a share.
    """
    n, tail = len(rounds), (1 - LEVEL) / 2
    if n < MIN_BATCHED:
        return None
    lower = bisect_right(range(n), tail, key=lambda k: binomial_cdf(k, n, share)) - 1
    upper = bisect_left(range(n), 1 - tail, key=lambda k: binomial_cdf(k, n, share))
    ordered = np.sort(np.concatenate(rounds))
    value = ordered[math.ceil(len(ordered) * share) - 1]
    batches = [np.concatenate([rounds[place] for place in batch]) for batch in np.array_split(np.arange(n), BATCHES)]
    half = mean_half_width([float(np.mean(batch <= value)) for batch in batches]) or 0.0
    below, above = min(lower / n, share - half), max((upper + 1) / n, share + half)
    if below < 0 or above > 1:
        return None
    scaled = len(ordered)
    return Interval(float(ordered[math.floor(scaled * below)]), float(ordered[math.ceil(scaled * above) - 1]))
