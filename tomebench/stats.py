"""Statistics of a run: paired speed-ups with intervals, and exact comparisons of counts. Pure functions over numbers.

All intervals are 95 %. Speeds are compared in pairs, round by round, because whatever slows a machine down slows both
halves of a pair; accuracies are compared on the same images, so only the images on which two models disagree carry
information.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

LEVEL = 0.95
"""Confidence level of every interval."""
RESAMPLES = 10_000
"""Bootstrap resamples behind an interval."""
MIN_VALUES = 6
"""Below this many rounds no interval is given: even [min, max] covers the median less than 95 % of the time."""
BOOTSTRAP_FROM = 10
"""From this many rounds on the interval is a bootstrap; under it, exact order statistics."""
BOOTSTRAP_TO = 1_000
"""Above this many rounds exact order statistics again: they agree with the bootstrap by then, and cost nothing."""

_Z = NormalDist().inv_cdf(0.5 + LEVEL / 2)


@dataclass(frozen=True)
class Interval:
    """A 95 % interval, both ends included."""

    lo: float
    hi: float

    def __contains__(self, value: float) -> bool:
        return self.lo <= value <= self.hi


@dataclass(frozen=True)
class Estimate:
    """A speed-up: ``value`` > 1 is faster."""

    value: float
    interval: Interval | None  # None under MIN_VALUES rounds
    half_width: float | None  # sqrt(hi / lo) - 1, a fraction: the interval is value */÷ (1 + half_width), roughly


@dataclass(frozen=True)
class PairedDelta:
    """Difference of two accuracies on the same images, as fractions; negative is worse than the baseline."""

    delta: float
    se: float
    interval: Interval
    p: float  # exact two-sided McNemar


def speedup(base: Sequence[float], other: Sequence[float], seed: int = 0) -> Estimate:
    """Paired speed-up of ``other`` over ``base``: exp of the median of ln(base[k] / other[k]).

    Args:
        base: seconds per step in each round, all > 0; length n >= 1.
        other: seconds per step in the same rounds; length n.
        seed: of the bootstrap. The same seed draws the same rounds for every ``other`` of the same length, so that
            the intervals of a sweep are drawn jointly.

    Raises:
        ValueError: different lengths, no rounds, or a time that is not a finite positive number.
    """
    log_ratio = log_ratios(base, other)
    interval = median_interval(log_ratio, seed)
    value = math.exp(float(np.median(log_ratio)))
    if interval is None:
        return Estimate(value, None, None)
    half_width = math.exp((interval.hi - interval.lo) / 2) - 1
    return Estimate(value, Interval(math.exp(interval.lo), math.exp(interval.hi)), half_width)


def log_ratios(base: Sequence[float], other: Sequence[float]) -> npt.NDArray[np.float64]:
    """ln(base[k] / other[k]) for each round k; shape [n]. Raises as :func:`speedup` does."""
    seconds = np.array([base, other], dtype=np.float64) if len(base) == len(other) else np.empty((2, 0))
    if seconds.shape[1] == 0:
        raise ValueError(f"paired times need equally many rounds, at least one; got {len(base)} and {len(other)}")
    if not np.all(np.isfinite(seconds) & (seconds > 0)):
        raise ValueError("paired times must be finite and positive")
    logs = np.log(seconds)
    return np.asarray(logs[0] - logs[1])


def median_interval(values: Sequence[float] | npt.NDArray[np.float64], seed: int = 0) -> Interval | None:
    """95 % interval of the median.

    None under 6 values; the exact order-statistic interval (at least 95 %) for 6 to 9; from 10 on the percentile
    bootstrap of the median, 10 000 resamples; above 1 000 exact order statistics again.
    """
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    n = ordered.size
    if n < MIN_VALUES:
        return None
    if not BOOTSTRAP_FROM <= n <= BOOTSTRAP_TO:
        k = _order_statistic(n)
        return Interval(float(ordered[k - 1]), float(ordered[n - k]))
    lo, hi = np.quantile(_bootstrap_medians(values, seed), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(lo), float(hi))


def rounds_needed(n_done: int, half_width: float, target: float) -> int:
    """More rounds to expect until the half-width falls from ``half_width`` to ``target``; 0 if it is there.

    Widths shrink with 1 / sqrt(n). At least 1 when the target is not reached.
    """
    if half_width <= target:
        return 0
    return max(1, math.ceil(n_done * (half_width / target) ** 2) - n_done)


def wilson(k: int, n: int) -> Interval:
    """Wilson interval of the fraction k / n, for one model's accuracy; [0, 1] for n = 0. Wilson, JASA 22 (1927)."""
    _check_counts(k, n)
    if n == 0:
        return Interval(0.0, 1.0)
    fraction, z2 = k / n, _Z * _Z
    centre = (fraction + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z / (1 + z2 / n) * math.sqrt(fraction * (1 - fraction) / n + z2 / (4 * n * n))
    # At k = 0 and k = n an end is 0 or 1 exactly; rounding must not push it outside.
    return Interval(0.0 if k == 0 else centre - half, 1.0 if k == n else centre + half)


def clopper_pearson(k: int, n: int) -> Interval:
    """Exact interval of the fraction k / n; [0, 1] for n = 0. Clopper and Pearson, Biometrika 26 (1934)."""
    _check_counts(k, n)
    tail = (1 - LEVEL) / 2
    lo = 0.0 if k == 0 else _beta_quantile(tail, k, n - k + 1)
    hi = 1.0 if k == n else 1 - _beta_quantile(tail, n - k, k + 1)
    return Interval(lo, hi)


def mcnemar(b: int, c: int) -> float:
    """Exact two-sided p that discordant images fall either way equally often; 1 when b = c, or when there are none.

    Args:
        b: images that only the baseline classifies correctly.
        c: images that only the other model classifies correctly.
    """
    _check_counts(b, b + c)
    n, smaller = b + c, min(b, c)
    if b == c:
        return 1.0
    return min(1.0, 2 * _half_binomial_cdf(smaller, n))


def paired_delta(b: int, c: int, n: int) -> PairedDelta:
    """Accuracy of the other model minus that of the baseline, on the same n images.

    The interval is conditional on b + c: Clopper-Pearson on b / (b + c), scaled. Without discordant images there is
    nothing to condition on; what is known then is how rare they are, and the interval is the Clopper-Pearson bound on
    0 of n, to both sides.

    Args:
        b: images that only the baseline classifies correctly.
        c: images that only the other model classifies correctly.
        n: images seen, >= 1 and >= b + c.

    Raises:
        ValueError: counts that cannot be.
    """
    _check_counts(b + c, n)
    _check_counts(b, b + c)
    if n == 0:
        raise ValueError("an accuracy difference needs at least one image")
    discordant = b + c
    if discordant == 0:
        bound = clopper_pearson(0, n).hi
        return PairedDelta(0.0, 0.0, Interval(-bound, bound), 1.0)
    lost = clopper_pearson(b, discordant)
    interval = Interval(discordant * (1 - 2 * lost.hi) / n, discordant * (1 - 2 * lost.lo) / n)
    se = math.sqrt(discordant - (b - c) ** 2 / n) / n
    return PairedDelta((c - b) / n, se, interval, mcnemar(b, c))


def _check_counts(k: int, n: int) -> None:
    if not 0 <= k <= n:
        raise ValueError(f"a count of {k} out of {n} is not possible")


def _order_statistic(n: int) -> int:
    """Largest k such that [x_(k), x_(n+1-k)] covers the median at least 95 % of the time (k from 1; n >= 6)."""
    return bisect_right(range(n // 2), (1 - LEVEL) / 2, key=lambda k: _half_binomial_cdf(k, n))


def _bootstrap_medians(values: Sequence[float] | npt.NDArray[np.float64], seed: int) -> npt.NDArray[np.float64]:
    """Medians of RESAMPLES resamples of the values; shape [RESAMPLES].

    Walking through the values in rising order and adding up how often each was drawn, the median is where half of
    the draws are reached. That is some twenty times cheaper than sorting every resample.
    """
    x = np.asarray(values, dtype=np.float64)
    order = np.argsort(x, kind="stable")
    counts = _draws(x.size, seed)
    drawn = np.zeros(RESAMPLES, dtype=counts.dtype)
    low, high = np.zeros((2, RESAMPLES), dtype=np.intp)  # ranks of the two middle draws, equal for odd n
    for index in order:
        drawn += counts[index]
        low += drawn <= (x.size - 1) // 2
        high += drawn <= x.size // 2
    ordered = x[order]
    return np.asarray((ordered[low] + ordered[high]) / 2)


@lru_cache(maxsize=2)
def _draws(n: int, seed: int) -> npt.NDArray[np.uint16]:
    """How often each of n rounds is drawn in each resample; shape [n, RESAMPLES]. Same n and seed, same draws."""
    chosen = np.random.default_rng(seed).integers(0, n, (n, RESAMPLES))
    flat = np.bincount((chosen * RESAMPLES + np.arange(RESAMPLES)).ravel(), minlength=n * RESAMPLES)
    counts = flat.reshape(n, RESAMPLES).astype(np.uint16)
    counts.flags.writeable = False
    return counts


def _half_binomial_cdf(k: int, n: int) -> float:
    """P(X <= k) for X ~ Binomial(n, 1/2) and 0 <= k < n."""
    return _beta_cdf(0.5, n - k, k + 1)


def _beta_quantile(p: float, a: float, b: float) -> float:
    """The x at which I_x(a, b) = p, by bisection to the last bit."""
    lo, hi = 0.0, 1.0
    while True:
        middle = (lo + hi) / 2
        if middle in (lo, hi):
            return middle
        if _beta_cdf(middle, a, b) < p:
            lo = middle
        else:
            hi = middle


def _beta_cdf(x: float, a: float, b: float) -> float:
    """Regularised incomplete beta function I_x(a, b) for a, b > 0 and 0 < x < 1.

    Continued fraction 26.5.8 of Abramowitz and Stegun, evaluated by Lentz's method on the side where it converges in
    about sqrt(max(a, b)) steps.
    """
    if x > (a + 1) / (a + b + 2):
        return 1 - _beta_cdf(1 - x, b, a)
    log_front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    tiny = 1e-300
    c, d = 1.0, 1 / ((1 - (a + b) * x / (a + 1)) or tiny)
    fraction, m, change = d, 0, 0.0
    while abs(change - 1) > 1e-15:
        m += 1
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        change = 1.0
        for term in (even, odd):
            d = 1 / ((1 + term * d) or tiny)
            c = (1 + term / c) or tiny
            fraction *= c * d
            change *= c * d
    return math.exp(log_front) * fraction / a
