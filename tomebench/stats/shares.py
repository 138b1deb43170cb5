"""Paired difference of two accuracies, each the mean over one or several seeds, on the same images.

With several seeds an image is right in a share of them. The unit of analysis stays the image: seeds of one method fail
on the same hard images, so n images with five seeds are not 5 n images.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tomebench.stats.anytime import anytime_interval, anytime_p
from tomebench.stats.counts import fewest_images, mcnemar, paired_interval
from tomebench.stats.interval import Interval
from tomebench.stats.needed import enough

LEAST_P = 1e-15
"""Smallest p-value that :func:`sign_flip` returns; the tails beyond it are cut off."""
_CUT = 1e-20
_WHOLE = 4
"""Images that differ in all seeds, as whose size those that do are taken until there are more of them: about z², as in
Wilson's interval. So a method that loses an image in one seed of five is known no better than one that loses none."""


@dataclass(frozen=True)
class Shares:
    """For every image, the number of seeds with which it is right."""

    right: npt.NDArray[np.int64]  # [n], from 0 to ``seeds``
    seeds: int = 1

    @property
    def accuracy(self) -> float:
        """Mean over images and seeds, a fraction."""
        return float(self.right.sum()) / (len(self.right) * self.seeds)


@dataclass(frozen=True)
class ShareDelta:
    """Difference of two accuracies on the same images, as a fraction; negative is worse than the base."""

    lost: float  # images that are right less often than with the base, each by the share of seeds that it loses
    gained: float  # likewise, right more often
    n: int  # images
    unit: float  # mean size of the differences, weighted by their size, and of _WHOLE of 1; 1 with a single seed
    p: float  # two-sided, of :func:`sign_flip`; with a single seed McNemar's exact test
    anytime: Interval | None = None  # 95 % interval where images were counted until something was known

    @property
    def delta(self) -> float:
        """Accuracy minus that of the base."""
        return (self.gained - self.lost) / self.n

    @property
    def interval(self) -> Interval:
        """95 % interval of the difference; see :meth:`interval_of`, and :func:`~tomebench.stats.anytime_interval`."""
        return self.interval_of(1.0) if self.anytime is None else self.anytime

    def interval_of(self, times: float) -> Interval:
        """95 % interval as if ``times`` as many like images had been seen.

        Tango's score interval of the images that differ, in units of ``unit``: with a single seed it is that interval,
        and with many images that of the mean of paired differences. If no image differs, it is that of a single seed,
        and if few do it is close to that.
        """
        lost, gained, n = (times * count for count in (self.lost / self.unit, self.gained / self.unit, self.n))
        if lost + gained > n:  # by rounding: it is n where all images differ by as much
            lost, gained = (count * n / (lost + gained) for count in (lost, gained))
            lost = min(lost, n - gained)
        found = paired_interval(lost, gained, n)
        return Interval(self.unit * found.lo, self.unit * found.hi)

    def images_to_accept(self, limit: float) -> int | None:
        """Images needed to show a loss of at most ``limit``, a fraction, if rates stay; exact if no image changed.

        None where no number of images would, or over :data:`~tomebench.stats.needed.REACH` times as many.
        """
        if self.lost == self.gained == 0:
            return fewest_images(limit)
        return enough(self.n, lambda times: self.interval_of(times).lo >= -limit)


def share_delta(base: Shares, other: Shares, *, stopped: bool = False) -> ShareDelta:
    """Accuracy of the other minus that of the base, on the same n images.

    Args:
        base: to compare with.
        other: of the same images.
        stopped: images, in a random order, were counted until something was known. Of a mean over seeds the interval is
            then [-1, 1]: no better one is known that holds whenever one stops.

    Raises:
        ValueError: they are of different numbers of images, or of none.
    """
    if len(base.right) != len(other.right) or not len(base.right):
        raise ValueError(f"shares of {len(base.right)} and {len(other.right)} images cannot be paired")
    whole = math.lcm(base.seeds, other.seeds)
    difference = other.right * (whole // other.seeds) - base.right * (whole // base.seeds)
    lost, gained = -int(difference[difference < 0].sum()), int(difference[difference > 0].sum())
    squares = int((difference * difference).sum())
    more = _WHOLE * whole * whole
    unit = (squares + more) / ((lost + gained) * whole + more)
    p = mcnemar(lost, gained) if whole == 1 else sign_flip(difference)
    if stopped and whole > 1:  # of means over seeds nothing is known that holds whenever one stops
        return ShareDelta(lost / whole, gained / whole, len(difference), unit, 1.0, Interval(-1.0, 1.0))
    if stopped:
        single = difference.astype(np.int8)
        return ShareDelta(lost, gained, len(difference), unit, anytime_p(single), anytime_interval(single))
    return ShareDelta(lost / whole, gained / whole, len(difference), unit, p)


def sign_flip(differences: npt.NDArray[np.int64]) -> float:
    """Exact two-sided p-value of paired differences whose signs are as likely to be the other way round.

    It is the share of all 2^n ways to flip the signs whose sum is at least as far from 0, counted by convolution: no
    permutation is drawn, so there is no seed. Where all differences are -1, 0 or 1 it is McNemar's exact test. R. A.
    Fisher, The Design of Experiments (1935), section 21.

    Args:
        differences: whole numbers, in any unit; [n].

    Returns:
        At least ``LEAST_P``.
    """
    total = abs(int(differences.sum()))
    sizes, counts = np.unique(np.abs(differences[differences != 0]), return_counts=True)
    chances, first = np.ones(1), 0  # probability of each sum from ``first`` on
    for size, count in zip(sizes.tolist(), counts.tolist(), strict=True):
        ways = _binomial(count)
        kept = np.flatnonzero(ways > _CUT)
        spread = np.zeros(2 * size * (kept[-1] - kept[0]) + 1)
        spread[:: 2 * size] = ways[kept[0] : kept[-1] + 1]
        chances, first = np.convolve(chances, spread), first + size * (2 * int(kept[0]) - count)
    sums = first + np.arange(len(chances))
    return min(1.0, max(LEAST_P, float(chances[np.abs(sums) >= total].sum())))


def _binomial(n: int) -> npt.NDArray[np.float64]:
    """Probabilities of 0 to n heads of n fair coins."""
    heads = np.arange(1, n + 1)
    ways = np.concatenate([[0.0], np.cumsum(np.log((n - heads + 1) / heads))])
    return np.asarray(np.exp(ways - n * math.log(2)))
