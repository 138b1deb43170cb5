"""Anytime-valid intervals of a mean of paired differences: they hold at every stop, whoever chose it and why.

Two questions, two intervals. *Images in general*: the images seen are a sample of all that there could be. *This set*:
they are drawn without replacement from a set of known size, and when the last is drawn nothing is left to be unsure of.

Both test a mean m by betting: capital that begins at 1 is multiplied by 1 + bet · (difference - m) for every image, and
if the mean is m it reaches 1 / α with probability α at most, at whatever time (Ville 1939). m is in the interval until
then. Bets of many sizes run side by side, and their mean is the capital (a mixture), so that differences of any
frequency are bet on well. Waudby-Smith and Ramdas: JRSS B 86 (2024), and NeurIPS 2020 for drawing without replacement.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import numpy as np
import numpy.typing as npt

from tomebench.stats.interval import LEVEL, Interval

_BETS = np.geomspace(0.03, 0.97, 16)
"""Shares of the capital that bets put at risk. The best is about 3.2 / sqrt(images that differ)."""
_PRIORS = -0.5 * np.log1p(-_BETS) - np.log(np.sum((1 - _BETS) ** -0.5))
"""Logarithm of the capital that each begins with: more for the large, on which few images that differ depend."""
_FIRST, _GROWTH = 32, 1.1
_ABOUT_CHANGES = 0.05
"""Part of the error of :func:`foreseen` that is spent on the number of images that differ, the rest on their mean."""

Differences = npt.NDArray[np.int8]
"""Paired differences [n] in a random order: -1 an image lost, +1 gained, 0 neither."""


@cache
def looks(n: int) -> tuple[int, ...]:
    """Numbers of images at which capital is looked at, n the last: each is a tenth larger than the one before."""
    found, at = [], float(_FIRST)
    while round(at) < n:
        found.append(round(at))
        at *= _GROWTH
    return (*found, n) if n else ()


def anytime_interval(differences: Differences, *, level: float = LEVEL) -> Interval:
    """Anytime interval of the mean difference of images in general, of which those seen are a sample.

    Args:
        differences: of the images seen; none gives [-1, 1].
        level: of confidence, that the mean is in the intervals of all stops together.
    """
    lower = _in_general(differences, level)
    upper = _in_general(-differences, level)
    return Interval(lower, max(lower, -upper))


def set_interval(differences: Differences, total: int, *, level: float = LEVEL) -> Interval:
    """Anytime interval of the mean difference of a whole set; exact once all of it has been seen.

    Args:
        differences: of the images seen, drawn without replacement.
        total: images of the set, >= len(differences).
        level: of confidence, that the mean is in the intervals of all stops together.
    """
    lower = _least_sum(differences, total, level)
    upper = -_least_sum(-differences, total, level)
    return Interval(lower / total, max(lower, upper) / total)


def foreseen(
    differences: Differences, total: int, shown: Callable[[float, float], bool], *, level: float = LEVEL
) -> bool | None:
    """Whether all images of a set would show something, as far as those seen tell; None where they do not yet.

    Args:
        differences: of the images seen, drawn without replacement.
        total: images of the set.
        shown: whether a number of lost and of gained images, of ``total``, shows it. More of either with the same
            difference never show what fewer do not.
        level: of confidence in the answer, at all stops together.
    """
    lost, gained = int((differences < 0).sum()), int((differences > 0).sum())
    if len(differences) == total:
        return shown(lost, gained)
    if not len(differences):
        return None
    error = 1 - level
    about_sum, about_changes = 1 - error * (1 - _ABOUT_CHANGES), 1 - error * _ABOUT_CHANGES
    changes = total * (lost + gained) / len(differences)
    for answer in (True, False):
        if _decides(differences, total, _least_shown(changes, total, shown), answer, about_sum):
            # So it would be if as many changed as seem to; the limit of that number makes it sure.
            changed = np.abs(differences)
            most = -_least_sum(-changed, total, about_changes) if answer else _least_sum(changed, total, about_changes)
            if _decides(differences, total, _least_shown(most, total, shown), answer, about_sum):
                return answer
    return None


def evidence(differences: Differences, total: int, shown: Callable[[float, float], bool]) -> float:
    """How far the mean seen so far is from where a whole set begins to show something, in standard errors.

    Positive where it would be shown if the rest were like what was seen. No test: it ranks what to look at next.

    Args:
        differences: of the images seen, at least one.
        total, shown: as in :func:`foreseen`.
    """
    n, changed = len(differences), int(np.count_nonzero(differences))
    least = _least_shown(total * changed / n, total, shown) / total
    scale = max(float(differences.std()), 1 / math.sqrt(n))
    return (float(differences.mean()) - least) * math.sqrt(n) / scale


def anytime_p(differences: Differences) -> float:
    """Two-sided p-value of no difference among images in general, valid at whatever stop: 2 / the largest capital."""
    if not len(differences):
        return 1.0
    most = max(_capital(*_counts(side), 0.0).max() for side in (differences, -differences))
    return min(1.0, 2 * math.exp(-most))


def _decides(differences: Differences, total: int, needed: int, above: bool, level: float) -> bool:
    """Whether the sum of the set surely is ``needed`` or more; or, without ``above``, surely less."""
    if above:
        return needed <= total and _rejects(differences, total, needed - 1, level)
    return needed > -total and _rejects(-differences, total, -needed, level)


def _least_shown(changes: float, total: int, shown: Callable[[float, float], bool]) -> int:
    """Least sum of differences at which something is shown, if so many images differ or as many as it takes.

    ``total`` + 1 if it is shown at none.
    """
    low, high = -total - 1, total + 1
    while high - low > 1:
        middle = (low + high) // 2
        differing = max(min(float(total), changes), abs(middle))
        low, high = (low, middle) if shown((differing - middle) / 2, (differing + middle) / 2) else (middle, high)
    return high


def _in_general(differences: Differences, level: float) -> float:
    """Smallest mean of images in general that no stop rejects."""
    if not len(differences):
        return -1.0
    counts, needed = _counts(differences), _needed(level)
    low, high = -1.0, 1.0
    for _ in range(50):
        mean = (low + high) / 2
        low, high = (mean, high) if _capital(*counts, mean).max() >= needed else (low, mean)
    return low


_Counts = npt.NDArray[np.float64]


def _counts(differences: Differences) -> tuple[_Counts, _Counts, _Counts]:
    """Images lost, gained and neither at every look; each [looks, 1]."""
    at = np.array(looks(len(differences)))[:, None]
    lost, gained = (np.cumsum(changed, dtype=np.float64)[at - 1] for changed in (differences < 0, differences > 0))
    return lost, gained, at - lost - gained


def _capital(lost: _Counts, gained: _Counts, same: _Counts, mean: float) -> npt.NDArray[np.float64]:
    """Logarithm of the capital at every look that bets on a mean above ``mean`` of images in general."""
    bets = _BETS / (1 + mean)
    logs: npt.NDArray[np.float64] = (
        lost * np.log1p(-_BETS) + gained * np.log1p(bets * (1 - mean)) + same * np.log1p(-bets * mean)
    )
    return _mixed(logs)


def _least_sum(differences: Differences, total: int, level: float) -> int:
    """Smallest sum of a set that no stop rejects."""
    seen, left = int(differences.sum(dtype=np.int64)), total - len(differences)
    low, high = seen - left - 1, seen + left
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _rejects(differences, total, middle, level) else (low, middle)
    return high


def _rejects(differences: Differences, total: int, largest: int, level: float) -> bool:
    """Whether the sum of a set surely is above ``largest``."""
    n = len(differences)
    before = np.concatenate([[0], np.cumsum(differences, dtype=np.int64)])
    if largest - before[-1] < -(total - n):  # less than if all that are left were lost
        return True
    if not n or largest - before[-1] >= total - n:
        return False
    # The mean of what is left, were the sum the largest. Where it is -1, all that are left would have to be lost.
    means = (largest - before[:-1]) / (total - np.arange(n))
    means = np.maximum(means, -1 + 1e-9)
    gains = ((differences - means) / (1 + means))[:, None]
    ends = np.array(looks(n))
    starts = np.concatenate([[0], ends[:-1]])
    logs = np.cumsum(np.add.reduceat(np.log1p(_BETS * gains), starts, axis=0), axis=0)
    return bool(_mixed(logs).max() >= _needed(level))


def _mixed(logs: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Logarithm of the capital of all bets together; [looks, bets] to [looks]."""
    return np.asarray(np.logaddexp.reduce(logs + _PRIORS, axis=-1))


def _needed(level: float) -> float:
    """Logarithm of the capital that rejects a mean, on one side of an interval."""
    return math.log(2 / (1 - level))
