"""Statistics: published golden values, scipy as an oracle, algebra, and coverage by seeded simulation."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special
from scipy import stats as oracle

from tomebench import stats
from tomebench.stats import Interval

seconds = st.lists(st.floats(1e-4, 1e2), min_size=1, max_size=30)
counts = st.tuples(st.integers(0, 3000), st.integers(0, 3000), st.integers(0, 50_000))


@pytest.mark.parametrize(
    ("b", "c", "delta", "se", "p", "lo", "hi"),
    [
        (900, 650, -0.500, 0.079, 2.33e-10, -0.653, -0.345),
        (300, 280, -0.040, 0.048, 0.43, -0.136, 0.056),
        (60, 40, -0.040, 0.020, 0.0569, -0.079, 0.001),
    ],
)
def test_golden_paired_differences_on_50_000_images(
    b: int, c: int, delta: float, se: float, p: float, lo: float, hi: float
) -> None:
    got = stats.paired_delta(b, c, 50_000)
    points = [100 * got.delta, 100 * got.se, 100 * got.interval.lo, 100 * got.interval.hi]
    assert points == pytest.approx([delta, se, lo, hi], abs=5.1e-4)
    assert got.p == pytest.approx(p, rel=5e-3)
    assert got.p == stats.mcnemar(b, c)


def test_exact_intervals_and_p_values_agree_with_scipy_on_random_tables() -> None:
    generator = np.random.default_rng(0)
    for _ in range(200):
        n = int(generator.integers(1, 10 ** generator.integers(1, 5)))
        k = int(generator.integers(0, n + 1))
        test = oracle.binomtest(k, n)
        assert stats.mcnemar(k, n - k) == pytest.approx(test.pvalue, rel=1e-8, abs=1e-300)
        for ours, method in ((stats.clopper_pearson, "exact"), (stats.wilson, "wilson")):
            theirs = test.proportion_ci(method=method)
            assert (ours(k, n).lo, ours(k, n).hi) == pytest.approx((theirs.low, theirs.high), rel=1e-9, abs=1e-12)


@given(st.floats(1e-6, 1 - 1e-6), st.integers(1, 60_000), st.integers(1, 60_000))
@settings(max_examples=200, deadline=None)
def test_incomplete_beta_agrees_with_scipy(x: float, a: int, b: int) -> None:
    assert stats._beta_cdf(x, a, b) == pytest.approx(special.betainc(a, b, x), rel=1e-7, abs=1e-11)


@pytest.mark.parametrize("interval", [stats.wilson, stats.clopper_pearson])
def test_interval_of_a_fraction_at_its_ends(interval: Callable[[int, int], Interval]) -> None:
    assert interval(0, 0) == Interval(0.0, 1.0)
    assert interval(0, 20).lo == 0.0
    assert interval(0, 20).hi > 0.1
    assert interval(20, 20).hi == 1.0
    assert interval(20, 20).lo < 0.9
    for k, n in ((-1, 5), (6, 5)):
        with pytest.raises(ValueError, match="not possible"):
            interval(k, n)


def test_without_discordant_images_the_interval_says_how_rare_they_may_be() -> None:
    for n in (1, 20, 300, 50_000):
        found = stats.paired_delta(0, 0, n)
        assert (found.delta, found.se, found.p) == (0.0, 0.0, 1.0)
        bound = oracle.binomtest(0, n).proportion_ci(method="exact").high
        assert found.interval.hi == pytest.approx(bound)
        assert found.interval.lo == -found.interval.hi


def test_extreme_discordant_counts() -> None:
    assert stats.mcnemar(7, 7) == 1.0
    assert stats.mcnemar(0, 50_000) == 0.0  # 2^-49999, less than a float can hold
    with pytest.raises(ValueError, match="at least one image"):
        stats.paired_delta(0, 0, 0)


@given(counts)
@settings(max_examples=100, deadline=None)
def test_swapping_the_models_turns_the_difference_round(table: tuple[int, int, int]) -> None:
    b, c, others = table
    n = b + c + others + 1
    there, back = stats.paired_delta(b, c, n), stats.paired_delta(c, b, n)
    assert (there.delta, there.se, there.p) == (-back.delta, back.se, back.p)
    assert (there.interval.lo, there.interval.hi) == pytest.approx((-back.interval.hi, -back.interval.lo), abs=1e-12)
    assert there.delta in Interval(there.interval.lo - 1e-12, there.interval.hi + 1e-12)
    assert (0.0 in there.interval) == (there.p > 0.05)  # the interval and the test say the same


@given(seconds, st.floats(0.1, 10), st.floats(0.1, 10))
@settings(max_examples=60, deadline=None)
def test_speedup_of_a_constant_ratio_is_that_ratio(base: list[float], ratio: float, unit: float) -> None:
    estimate = stats.speedup([unit * t for t in base], [unit * t / ratio for t in base])
    assert estimate.value == pytest.approx(ratio)
    if len(base) < stats.MIN_VALUES:
        assert estimate.interval is None
        assert estimate.half_width is None
    else:
        assert (estimate.interval.lo, estimate.interval.hi) == pytest.approx((ratio, ratio))
        assert estimate.half_width == pytest.approx(0, abs=1e-9)


def test_half_width_is_relative_and_symmetric_in_logarithms() -> None:
    estimate = stats.speedup([1.0] * 6, [1 / 1.9, 1 / 1.95, 0.5, 0.5, 0.5, 1 / 2.1])
    assert estimate.value == pytest.approx(2)
    assert estimate.interval == Interval(pytest.approx(1.9), pytest.approx(2.1))
    assert estimate.half_width == pytest.approx(math.sqrt(2.1 / 1.9) - 1)


@pytest.mark.parametrize(
    ("base", "other", "message"),
    [
        ([], [], "at least one"),
        ([1.0], [1.0, 2.0], "got 1 and 2"),
        ([1.0, 0.0], [1.0, 1.0], "finite and positive"),
        ([1.0, 1.0], [-1.0, 1.0], "finite and positive"),
        ([1.0], [math.nan], "finite and positive"),
        ([math.inf], [1.0], "finite and positive"),
    ],
)
def test_times_that_cannot_be_are_refused(base: list[float], other: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        stats.speedup(base, other)


@pytest.mark.parametrize(("n", "k"), [(6, 1), (7, 1), (8, 1), (9, 2), (10, 2), (20, 6), (25, 8), (100, 40)])
def test_order_statistics_of_the_median_are_those_of_the_tables(n: int, k: int) -> None:
    assert stats._order_statistic(n) == k
    assert 1 - 2 * oracle.binom.cdf(k - 1, n, 0.5) >= 0.95 > 1 - 2 * oracle.binom.cdf(k, n, 0.5)


def test_which_interval_for_how_many_rounds() -> None:
    values = np.random.default_rng(0).permutation(np.arange(2001.0))
    assert stats.median_interval(values[:5]) is None
    assert stats.median_interval(sorted(values[:8])) == Interval(values[:8].min(), values[:8].max())
    many = stats.median_interval(values)
    assert many == Interval(956, 1044)
    assert (many.lo, many.hi) == pytest.approx(oracle.binom.ppf([0.025, 0.975], 2001, 0.5), abs=1)


@pytest.mark.parametrize("n", [10, 11])
def test_bootstrap_medians_are_the_medians_of_the_draws(n: int) -> None:
    x = np.random.default_rng(n).normal(size=n)
    x[3] = x[7]  # a tie
    draws = stats._draws(n, 0)
    assert np.all(draws.sum(axis=0) == n)
    expected = [np.median(np.repeat(x, draws[:, k])) for k in range(200)]
    assert stats._bootstrap_medians(x, 0)[:200] == pytest.approx(expected)


def test_one_seed_draws_the_same_rounds_for_every_r() -> None:
    generator = np.random.default_rng(1)
    x = generator.normal(size=15)
    # Drawn jointly, a constant offset moves the interval by exactly that much.
    first, second = stats.median_interval(x, seed=3), stats.median_interval(x + 1, seed=3)
    assert (second.lo, second.hi) == pytest.approx((first.lo + 1, first.hi + 1))
    assert np.array_equal(stats._draws(15, 3), stats._draws(15, 3))
    assert not np.array_equal(stats._draws(15, 3), stats._draws(15, 4))


@given(st.integers(6, 1000), st.floats(0.001, 0.5), st.floats(0.001, 0.5))
def test_rounds_needed_follows_the_square_root_law(n: int, half_width: float, target: float) -> None:
    more = stats.rounds_needed(n, half_width, target)
    assert (more == 0) == (half_width <= target)
    if more > 1:
        assert half_width * math.sqrt(n / (n + more)) <= target * (1 + 1e-9)
        assert half_width * math.sqrt(n / (n + more - 1)) > target * (1 - 1e-9)


def test_rounds_needed_counts_the_rounds_still_to_come() -> None:
    assert stats.rounds_needed(10, 0.04, 0.02) == 30
    assert stats.rounds_needed(10, 0.02, 0.02) == 0


def _coverage(n: int, truth: float, runs: int, shared: float = 0.1, own: float = 0.01) -> float:
    """How often the interval of a true 1.3x speed-up holds ``truth``, with slow drifts shared within a round."""
    generator = np.random.default_rng(n)
    hits = 0
    for _ in range(runs):
        machine = np.cumsum(generator.normal(0, shared / math.sqrt(n), n))
        base, other = np.exp(machine + generator.normal(0, own, (2, n)))
        interval = stats.speedup(base, other / 1.3).interval
        assert interval is not None
        hits += truth in interval
    return hits / runs


@pytest.mark.parametrize("n", [6, 9, 10, 20])
def test_intervals_hold_the_true_speedup_95_percent_of_the_time(n: int) -> None:
    assert 0.92 <= _coverage(n, 1.3, runs=1500) <= 0.99


def test_the_coverage_check_can_fail() -> None:
    assert _coverage(20, 1.32, runs=200) < 0.5
