"""Trend of a series: Theil-Sen slope, Mann-Kendall test, largest step, outliers; and Holm's correction."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

_SERIES = 4000
"""Number of simulated series of noise that a step is compared with."""


def theil_sen(values: Sequence[float]) -> float:
    """Theil-Sen slope: median over all pairs of values, per step. Theil (1950), Sen, JASA 63 (1968).

    Raises:
        ValueError: fewer than two values.
    """
    if len(values) < 2:
        raise ValueError("a slope needs at least two values")
    return float(np.median([(values[j] - values[i]) / (j - i) for i, j in combinations(range(len(values)), 2)]))


def mann_kendall(*series: Sequence[float]) -> float:
    """Mann-Kendall test: two-sided p of no trend; normal approximation with ties and continuity correction.

    Mann, Econometrica 13 (1945); Kendall, Rank Correlation Methods (1975). For several series it is the p of none
    having a trend, from the sum of their scores, which detects a trend common to all: R. M. Hirsch, J. R. Slack, Water
    Resour. Res. 20 (1984).

    Args:
        series: each in the order of time; one of fewer than three values is not used.

    Returns:
        1 where no series can be used, and where the values of each are equal.
    """
    score = variance = 0.0
    for values in series:
        n = len(values)
        if n < 3:
            continue
        score += float(sum(np.sign(values[j] - values[i]) for i, j in combinations(range(n), 2)))
        _, ties = np.unique(np.asarray(values, dtype=np.float64), return_counts=True)
        variance += (n * (n - 1) * (2 * n + 5) - float(np.sum(ties * (ties - 1) * (2 * ties + 5)))) / 18
    if variance <= 0 or score == 0:
        return 1.0
    return min(1.0, 2 * NormalDist().cdf(-(abs(score) - 1) / math.sqrt(variance)))


@dataclass(frozen=True)
class Step:
    """The most likely change of level in a series."""

    at: int  # index of the first value after the change
    shift: float  # median after it less median before it
    p: float  # probability of so large a t statistic in noise without a change


def largest_step(values: Sequence[float]) -> Step:
    """Find the most likely change of level: the largest t statistic of any split, with its p by simulation.

    Each part has at least a fifth of the values, and at least two. The largest of many t statistics is compared with
    those of 4000 series of normal noise of the same length, drawn once with a fixed seed; a permutation test, which
    needs no such model, could not tell any step among six values at 1 % (two in twenty splits are as extreme).

    Args:
        values: in the order of time.

    Returns:
        The step; p is 1 for fewer than four values, and where all are equal.
    """
    series = np.asarray(values, dtype=np.float64)
    if len(series) < 4 or not np.ptp(series):
        return Step(0, 0.0, 1.0)
    statistics = _splits(series)
    place = int(np.argmax(statistics))
    at = _first_split(len(series)) + place
    above = int(np.searchsorted(-_null(len(series)), -statistics[place], side="right"))
    shift = float(np.median(series[at:]) - np.median(series[:at]))
    return Step(at, shift, (1 + above) / (1 + _SERIES))


def _splits(series: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """|t| of every split of series [..., n]: [..., number of splits]."""
    n = series.shape[-1]
    sizes = np.arange(_first_split(n), n - _first_split(n) + 1)
    centred = series - series.mean(axis=-1, keepdims=True)  # without centring, the sums of squares would cancel
    left = np.cumsum(centred, axis=-1)[..., sizes - 1]
    first, second = left / sizes, -left / (n - sizes)
    within = np.sum(centred**2, axis=-1, keepdims=True) - sizes * first**2 - (n - sizes) * second**2
    scale = np.sqrt(np.maximum(within, 0.0) / (n - 2) * (1 / sizes + 1 / (n - sizes)))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.nan_to_num(np.abs(first - second) / scale, posinf=np.inf))


def _first_split(n: int) -> int:
    return max(2, n // 5)


@functools.cache
def _null(n: int) -> npt.NDArray[np.float64]:
    """The largest |t| of each of many series of noise, in descending order."""
    noise = np.random.default_rng([n, _SERIES]).standard_normal((_SERIES, n))
    return -np.sort(-_splits(noise).max(axis=-1))


def modified_z(value: float, others: Sequence[float]) -> float:
    """Modified z-score: distance from the median of others in robust standard deviations. Iglewicz and Hoaglin (1993).

    Infinite where the others are all alike and the value is not; 0 without others.
    """
    if not others:
        return 0.0
    median = float(np.median(others))
    spread = float(np.median(np.abs(np.asarray(others) - median)))
    if spread == 0:
        return 0.0 if value == median else math.copysign(math.inf, value - median)
    return 0.6745 * (value - median) / spread


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values, in the order given: reject those up to the level. Holm, Scand. J. Stat. 6 (1979)."""
    m, adjusted, largest = len(p_values), [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(m), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (m - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted
