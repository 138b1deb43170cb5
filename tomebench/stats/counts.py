"""Counts: exact and Wilson intervals of a fraction, McNemar's test and Tango's interval for paired accuracies.

Two accuracies are compared on the same images, so only the images on which the models disagree carry information.
"""

from __future__ import annotations

import functools
import math
from bisect import bisect_left
from dataclasses import dataclass
from statistics import NormalDist

from tomebench.stats.interval import LEVEL, Interval

_MOST_IMAGES = 10**8
"""Largest number of images that :func:`fewest_images` tries."""


@dataclass(frozen=True)
class PairedDelta:
    """Difference of two accuracies on the same images, as fractions; negative is worse than the baseline."""

    delta: float
    se: float
    interval: Interval
    p: float  # of McNemar's exact two-sided test


def wilson(k: float, n: float, *, level: float = LEVEL) -> Interval:
    """Wilson interval of the fraction k / n, as for one model's accuracy; [0, 1] for n = 0. Wilson, JASA 22 (1927)."""
    _check_counts(k, n)
    if n == 0:
        return Interval(0.0, 1.0)
    z = NormalDist().inv_cdf((1 + level) / 2)
    fraction, z2 = k / n, z * z
    centre = (fraction + z2 / (2 * n)) / (1 + z2 / n)
    half = z / (1 + z2 / n) * math.sqrt(fraction * (1 - fraction) / n + z2 / (4 * n * n))
    # At k = 0 and k = n an end is 0 or 1 exactly; rounding must not push it outside.
    return Interval(0.0 if k == 0 else centre - half, 1.0 if k == n else centre + half)


def clopper_pearson(k: int, n: int, *, level: float = LEVEL) -> Interval:
    """Exact interval of the fraction k / n; [0, 1] for n = 0. Clopper and Pearson, Biometrika 26 (1934)."""
    _check_counts(k, n)
    tail = (1 - level) / 2
    lo = 0.0 if k == 0 else _beta_quantile(tail, k, n - k + 1)
    hi = 1.0 if k == n else 1 - _beta_quantile(tail, n - k, k + 1)
    return Interval(lo, hi)


def mcnemar(b: int, c: int) -> float:
    """McNemar's exact test: two-sided p of discordant images falling either way equally often; 1 for b = c.

    Args:
        b: images that only the baseline classifies correctly.
        c: images that only the other model classifies correctly.
    """
    _check_counts(b, b + c)
    n, smaller = b + c, min(b, c)
    if b == c:
        return 1.0
    return min(1.0, 2 * binomial_cdf(smaller, n, 0.5))


def paired_delta(b: int, c: int, n: int) -> PairedDelta:
    """Accuracy of the other model minus that of the baseline, on the same n images.

    Args:
        b: images that only the baseline classifies correctly.
        c: images that only the other model classifies correctly.
        n: images seen, >= 1 and >= b + c.

    Raises:
        ValueError: the counts are impossible.
    """
    se = math.sqrt(b + c - (b - c) ** 2 / n) / n if n else math.nan
    return PairedDelta((c - b) / n if n else math.nan, se, paired_interval(b, c, n), mcnemar(b, c))


@functools.lru_cache(2**14)  # a report asks for those of its rows in its figure, answer and sentences
def paired_interval(b: float, c: float, n: float, *, level: float = LEVEL) -> Interval:
    """Interval of the difference (c - b) / n of two accuracies on the same n images: Tango's score interval.

    It holds the differences that a score test of the paired counts does not reject (Statistics in Medicine 17, 1998).
    It takes neither the number of discordant images nor their share as known, so where few images differ it may exclude
    0 although McNemar's exact test does not reject, and the other way round.

    Args:
        b: images that only the baseline classifies correctly; not an integer where future counts are estimated.
        c: images that only the other model classifies correctly.
        n: images seen, >= 1 and >= b + c.
        level: of confidence, above 0 and below 1.

    Raises:
        ValueError: the counts are impossible.
    """
    _check_counts(b + c, n)
    _check_counts(b, b + c)
    if n == 0:
        raise ValueError("an accuracy difference needs at least one image")
    z = NormalDist().inv_cdf((1 + level) / 2)
    # The upper limit is the lower one with the models swapped, to the last bit.
    return Interval(_tango_lower(b, c, n, z), -_tango_lower(c, b, n, z))


def fewest_images(limit: float, *, level: float = LEVEL, labels: bool = True) -> int | None:
    """Fewest images that can show an accuracy to lose at most ``limit``, which is when no prediction changes.

    Args:
        limit: a fraction of the images, in [0, 1].
        level: of the interval.
        labels: judge by :func:`paired_interval`; without labels by :func:`wilson`, of the unchanged predictions.

    Returns:
        None where no number of images can, as for ``limit`` 0.
    """

    def shown(n: int) -> bool:
        if labels:
            return paired_interval(0, 0, n, level=level).lo >= -limit
        return wilson(n, n, level=level).lo >= 1 - limit

    found = 1 + bisect_left(range(1, _MOST_IMAGES), True, key=shown)
    return None if found >= _MOST_IMAGES else found


def _tango_lower(b: float, c: float, n: float, z: float) -> float:
    """Smallest difference (c - b) / n that the score test does not reject, in [-1, 1]."""
    lo, hi = -1.0, (c - b) / n  # the score is 0 at the estimate and rises towards -1
    for _ in range(60):
        middle = (lo + hi) / 2
        if _tango_score(b, c, n, middle) > z:
            lo = middle
        else:
            hi = middle
    return (lo + hi) / 2


def _tango_score(b: float, c: float, n: float, delta: float) -> float:
    """Score statistic for the true difference being ``delta``, at or below the observed one: ~ N(0, 1).

    Its variance is taken at the maximum-likelihood share of lost images given ``delta``: the root of a quadratic, in
    [0, 1].
    """
    half = b + c - (2 * n - c + b) * delta
    lost = (half + math.sqrt(max(0.0, half * half + 8 * n * b * delta * (1 - delta)))) / (4 * n)
    lost = max(lost, 0.0, -delta)  # bounds that rounding may violate
    variance = n * (2 * lost + delta * (1 - delta))
    distance = c - b - n * delta
    return distance / math.sqrt(variance) if variance > 0 else math.copysign(math.inf, distance) if distance else 0.0


def _check_counts(k: float, n: float) -> None:
    if not 0 <= k <= n:
        raise ValueError(f"a count of {k} out of {n} is not possible")


def binomial_cdf(k: int, n: int, share: float) -> float:
    """P(X <= k) for X ~ Binomial(n, share) and 0 <= k <= n."""
    return 1.0 if k >= n else _beta_cdf(1 - share, n - k, k + 1)


def student_tail(t: float, degrees: float) -> float:
    """Upper tail of Student's distribution: the probability of a value above t."""
    x = degrees / (degrees + t * t)  # may be 0 or 1 by rounding
    outside = (_beta_cdf(x, degrees / 2, 0.5) if 0 < x < 1 else x) / 2
    return outside if t > 0 else 1 - outside


@functools.lru_cache(2**10)  # the rows of a run mostly have as many rounds
def student_t(degrees: float, *, level: float = LEVEL) -> float:
    """Quantile of Student's distribution: the t exceeded in absolute value with probability 1 - level."""
    x = _beta_quantile(1 - level, degrees / 2, 0.5)
    return math.sqrt(degrees * (1 / x - 1))


def _beta_quantile(p: float, a: float, b: float) -> float:
    """Quantile of the beta distribution: the x at which I_x(a, b) = p, by bisection to the last bit."""
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
