"""Paired accuracies over seeds: one is McNemar and Tango, several are counted by images; how many would settle it."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tomebench.stats import Shares, mcnemar, paired_delta, share_delta, sign_flip, student_t
from tomebench.stats.needed import REACH, about, enough
from tomebench.stats.shares import LEAST_P


def shares(*right: int, seeds: int = 1) -> Shares:
    return Shares(np.array(right, dtype=np.int64), seeds)


def flipped(differences: list[int]) -> float:
    """The p-value by its definition: every way to flip every sign."""
    total = abs(sum(differences))
    sums = [abs(sum(s * d for s, d in zip(signs, differences, strict=True))) for signs in
            itertools.product((-1, 1), repeat=len(differences))]  # fmt: skip
    return sum(each >= total for each in sums) / len(sums)


@given(st.lists(st.integers(-6, 6), min_size=1, max_size=10))
def test_the_p_value_is_the_share_of_all_flips(differences: list[int]) -> None:
    assert sign_flip(np.array(differences)) == pytest.approx(flipped(differences))


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_a_single_seed_is_what_the_table_says(pairs: list[tuple[bool, bool]]) -> None:
    base, other = (np.array(each, dtype=np.int64) for each in zip(*pairs, strict=True))
    found = share_delta(Shares(base), Shares(other))
    known = paired_delta(int((base > other).sum()), int((other > base).sum()), len(base))
    assert (found.delta, found.interval, found.p) == (known.delta, known.interval, known.p)
    assert sign_flip(other - base) == pytest.approx(max(LEAST_P, mcnemar(round(found.lost), round(found.gained))))


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40), st.integers(2, 5))
def test_seeds_that_agree_are_one_seed(pairs: list[tuple[bool, bool]], seeds: int) -> None:
    """Five copies of an answer are no five times as many images."""
    base, other = (np.array(each, dtype=np.int64) for each in zip(*pairs, strict=True))
    once = share_delta(Shares(base), Shares(other))
    often = share_delta(Shares(base), Shares(seeds * other, seeds))
    assert (often.lost, often.gained, often.n) == pytest.approx((once.lost, once.gained, once.n))
    assert (often.interval.lo, often.interval.hi) == pytest.approx((once.interval.lo, once.interval.hi))
    assert often.p == pytest.approx(max(LEAST_P, once.p))


def test_a_hand_made_mean_over_seeds() -> None:
    """Two seeds lose half an image and gain one and a half, of four images."""
    found = share_delta(shares(1, 1, 0, 0), shares(2, 1, 2, 1, seeds=2))
    assert (found.lost, found.gained, found.n) == (0.5, 1.5, 4)
    assert found.delta == 0.25
    assert found.unit == (0.5**2 + 1**2 + 0.5**2 + 4) / (2 + 4)
    assert found.p == flipped([0, -1, 2, 1]) == 0.75
    assert shares(2, 1, 2, 1, seeds=2).accuracy == 0.75


@given(st.integers(1, 4), st.integers(1, 4), st.data())
def test_the_other_way_round_is_the_mirror_image(first: int, second: int, data: st.DataObject) -> None:
    n = data.draw(st.integers(1, 30))
    one, two = (
        Shares(np.array(data.draw(st.lists(st.integers(0, seeds), min_size=n, max_size=n)), dtype=np.int64), seeds)
        for seeds in (first, second)
    )
    there, back = share_delta(one, two), share_delta(two, one)
    assert (there.lost, there.gained, there.p) == (back.gained, back.lost, back.p)
    assert (there.interval.lo, there.interval.hi) == pytest.approx((-back.interval.hi, -back.interval.lo))
    assert there.interval.lo <= there.delta <= there.interval.hi


def test_with_many_images_it_is_the_interval_of_paired_differences() -> None:
    random = np.random.default_rng(0)
    base, other = random.binomial(1, 0.8, 20_000), random.binomial(5, 0.79, 20_000)
    found = share_delta(Shares(base.astype(np.int64)), Shares(other.astype(np.int64), 5))
    differences = other / 5 - base
    half = student_t(len(base) - 1) * differences.std(ddof=1) / np.sqrt(len(base))
    assert found.interval.lo == pytest.approx(differences.mean() - half, abs=2e-4)
    assert found.interval.hi == pytest.approx(differences.mean() + half, abs=2e-4)


@pytest.mark.parametrize(("n", "flips"), [(400, 0.03), (400, 0.15), (100, 0.1)])
def test_the_interval_of_seeds_covers(n: int, flips: float) -> None:
    """Images differ in how often a seed turns them; the mean over three seeds is 1.5 points lower. 600 made-up sets."""
    random = np.random.default_rng([n, round(100 * flips)])
    held, repeats = 0, 600
    for _ in range(repeats):
        base = random.random(n) < 0.9
        turned = random.beta(0.3, 0.3 / flips - 0.3, n)  # mean ``flips``
        right = np.where(base, 1 - turned, turned * (1.0 if flips < 0.1 else 0.5))
        truth = 0.9 * (1 - flips) + 0.1 * flips * (1.0 if flips < 0.1 else 0.5) - 0.9
        found = share_delta(Shares(base.astype(np.int64)), Shares(random.binomial(3, right).astype(np.int64), 3))
        held += truth in found.interval
    assert held / repeats >= 0.93


@given(st.integers(5, 1000), st.integers(0, 5), st.integers(2, 5), st.data())
def test_a_loss_in_some_seeds_is_known_no_better_than_none(
    n: int, images: int, seeds: int, data: st.DataObject
) -> None:
    """Whatever few images lose, the loss may be at least as large as if no image had lost anything."""
    lost = data.draw(st.lists(st.integers(0, seeds), min_size=images, max_size=images))
    base, none = shares(*[1] * n), shares(*[1] * n)
    some = Shares(np.array([*(seeds - each for each in lost), *[seeds] * (n - images)], dtype=np.int64), seeds)
    assert share_delta(base, some).interval.lo <= share_delta(base, none).interval.lo + 1e-12


def test_the_smallest_p_value_is_said_to_be_no_smaller() -> None:
    assert sign_flip(np.full(300, 2)) == LEAST_P
    assert sign_flip(np.zeros(5, dtype=np.int64)) == 1


def test_what_cannot_be_paired_is_refused() -> None:
    for right in ((), (1,)):
        with pytest.raises(ValueError, match="cannot be paired"):
            share_delta(shares(*right), shares(*right, *right))


def test_the_images_that_are_asked_for_would_do() -> None:
    found = share_delta(shares(*[1] * 400), shares(*[1] * 398, 0, 0))
    images = found.images_to_accept(0.01)
    assert images is not None
    assert found.interval_of(images / 400).lo >= -0.01 > found.interval_of(0.9 * images / 400).lo
    assert found.images_to_accept(0.004) is None  # it loses half a point
    unchanged = share_delta(shares(*[1] * 400), shares(*[1] * 400))
    assert unchanged.images_to_accept(0.01) == 381


def test_numbers_needed_are_rounded_up_and_bounded() -> None:
    assert enough(100, lambda times: times >= 3.21) == 330
    assert enough(100, lambda times: times > REACH) is None
    assert enough(0, lambda times: True) is None
    assert (about(5.1, 10), about(1234, 100), about(1e6, 100)) == (11, 1300, None)
