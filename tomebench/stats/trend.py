"""Whether a series goes anywhere: robust slope, its significance, outliers, and many tests at once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from statistics import NormalDist

import numpy as np


def theil_sen(values: Sequence[float]) -> float:
    """Median slope over all pairs of values, per step. Theil (1950), Sen, JASA 63 (1968).

    Raises:
        ValueError: fewer than two values.
    """
    if len(values) < 2:
        raise ValueError("a slope needs at least two values")
    return float(np.median([(values[j] - values[i]) / (j - i) for i, j in combinations(range(len(values)), 2)]))


def mann_kendall(values: Sequence[float]) -> float:
    """Two-sided p that a series has no trend: normal approximation with ties and continuity correction.

    Mann, Econometrica 13 (1945); Kendall, Rank Correlation Methods (1975). 1 for fewer than three values, and where
    all of them are equal.
    """
    n = len(values)
    score = sum(np.sign(values[j] - values[i]) for i, j in combinations(range(n), 2))
    _, ties = np.unique(np.asarray(values, dtype=np.float64), return_counts=True)
    variance = (n * (n - 1) * (2 * n + 5) - float(np.sum(ties * (ties - 1) * (2 * ties + 5)))) / 18
    if n < 3 or variance <= 0 or score == 0:
        return 1.0
    return min(1.0, 2 * NormalDist().cdf(-(abs(float(score)) - 1) / math.sqrt(variance)))


def modified_z(value: float, others: Sequence[float]) -> float:
    """How far a value is from the median of others, in robust standard deviations. Iglewicz and Hoaglin (1993).

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
