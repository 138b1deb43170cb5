"""Counts: intervals of fractions and of paired differences, exact tests; golden values, scipy as an oracle, algebra."""

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
from tomebench.stats import counts as counting

counts = st.tuples(st.integers(0, 3000), st.integers(0, 3000), st.integers(0, 50_000))


@pytest.mark.parametrize(
    ("n", "b", "c", "delta", "lo", "hi", "p"),
    [
        (599, 4, 0, -0.67, -1.70, -0.03, 0.125),
        (599, 13, 3, -1.67, -3.24, -0.41, 0.0213),
        (599, 18, 2, -2.67, -4.41, -1.36, 4.02e-4),
        (599, 50, 3, -7.85, -10.39, -5.74, 5.55e-12),
        (50_000, 900, 650, -0.500, -0.655, -0.346, 2.33e-10),
        (50_000, 60, 40, -0.040, -0.081, -0.001, 0.0569),
    ],
)
def test_golden_paired_differences(n: int, b: int, c: int, delta: float, lo: float, hi: float, p: float) -> None:
    got = stats.paired_delta(b, c, n)
    points = [100 * got.delta, 100 * got.interval.lo, 100 * got.interval.hi]
    assert points == pytest.approx([delta, lo, hi], abs=5.1e-3 if n == 599 else 5.1e-4)
    assert got.p == pytest.approx(p, rel=5e-3)
    assert got.p == stats.mcnemar(b, c)


def score(b: int, c: int, n: int, delta: float) -> float:
    """Tango's statistic, its variance from the likelihood: searched for on a grid instead of solved."""
    lost = np.linspace(max(0.0, -delta), (1 - delta) / 2, 200_001)
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = (b, lost), (c, lost + delta), (n - b - c, 1 - 2 * lost - delta)
        likelihood = sum(k * np.log(share) for k, share in terms if k)
    best = lost[int(np.nanargmax(likelihood))]
    return float((c - b - n * delta) / math.sqrt(n * (2 * best + delta - delta**2)))


@pytest.mark.parametrize(("b", "c", "n"), [(4, 0, 599), (0, 0, 40), (13, 3, 599), (900, 650, 50_000), (0, 7, 20)])
def test_both_limits_are_where_the_score_test_begins_to_reject(b: int, c: int, n: int) -> None:
    found = stats.paired_delta(b, c, n).interval
    assert score(b, c, n, found.lo) == pytest.approx(1.959964, abs=2e-3)
    assert score(b, c, n, found.hi) == pytest.approx(-1.959964, abs=2e-3)


def random_counts(tables: int) -> tuple[np.ndarray, np.ndarray]:
    """k out of n, of every size up to 10 000; two arrays [tables]."""
    generator = np.random.default_rng(0)
    n = generator.integers(1, 10 ** generator.integers(1, 5, tables))
    return generator.integers(0, n + 1), n


@pytest.mark.parametrize("tables", [2_000, pytest.param(10_000, marks=pytest.mark.slow)])
def test_exact_intervals_and_p_values_agree_with_scipy_on_random_tables(tables: int) -> None:
    k, n = random_counts(tables)
    lo = np.where(k == 0, 0, oracle.beta.ppf(0.025, np.maximum(k, 1), n - k + 1))
    hi = np.where(k == n, 1, oracle.beta.ppf(0.975, k + 1, np.maximum(n - k, 1)))
    p = np.where(2 * k == n, 1, np.minimum(1, 2 * oracle.binom.cdf(np.minimum(k, n - k), n, 0.5)))
    for a, b, *expected in zip(k.tolist(), n.tolist(), lo, hi, p, strict=True):
        ours = stats.clopper_pearson(a, b)
        assert (ours.lo, ours.hi) == pytest.approx(expected[:2], rel=1e-9, abs=1e-12)
        # Below 1e-290 scipy's distribution underflows to 0.
        assert stats.mcnemar(a, b - a) == pytest.approx(expected[2], rel=1e-8, abs=1e-290)


def test_wilson_agrees_with_scipy() -> None:
    for a, b in zip(*(values.tolist() for values in random_counts(300)), strict=True):
        theirs = oracle.binomtest(a, b).proportion_ci(method="wilson")
        ours = stats.wilson(a, b)
        assert (ours.lo, ours.hi) == pytest.approx((theirs.low, theirs.high), rel=1e-9, abs=1e-12)


@given(st.floats(1e-6, 1 - 1e-6), st.integers(1, 60_000), st.integers(1, 60_000))
@settings(max_examples=200, deadline=None)
def test_incomplete_beta_agrees_with_scipy(x: float, a: int, b: int) -> None:
    assert counting._beta_cdf(x, a, b) == pytest.approx(special.betainc(a, b, x), rel=1e-7, abs=1e-11)


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
        assert found.interval.hi == pytest.approx(oracle.binomtest(0, n).proportion_ci(method="wilson").high)
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
    assert (there.interval.lo, there.interval.hi) == (-back.interval.hi, -back.interval.lo)
    assert there.delta in there.interval
    assert -1 <= there.interval.lo <= there.interval.hi <= 1


@given(counts)
@settings(max_examples=100, deadline=None)
def test_one_more_lost_image_raises_no_limit(table: tuple[int, int, int]) -> None:
    b, c, others = table
    n = b + c + others + 1
    before, after = stats.paired_delta(b, c, n).interval, stats.paired_delta(b + 1, c, n).interval
    assert after.lo <= before.lo
    assert after.hi <= before.hi


@pytest.mark.parametrize(("limit", "rows"), [(0.005, 1), (0.01, 1), (0.01, 7), (0.2, 24)])
def test_one_image_fewer_shows_a_limit_no_more(limit: float, rows: int) -> None:
    level = 1 - 0.05 / rows
    needed = stats.fewest_images(limit, level=level)
    assert needed is not None
    assert stats.paired_interval(0, 0, needed, level=level).lo >= -limit
    assert stats.paired_interval(0, 0, needed - 1, level=level).lo < -limit
    alike = stats.fewest_images(limit, level=level, labels=False)
    assert alike is not None
    assert stats.wilson(alike, alike, level=level).lo >= 1 - limit
    assert stats.wilson(alike - 1, alike - 1, level=level).lo < 1 - limit
    assert stats.fewest_images(0.0, level=level) is None


@pytest.mark.parametrize("degrees", [1, 2, 4, 9, 30, 1000])
def test_student_t_agrees_with_scipy(degrees: int) -> None:
    assert counting.student_t(degrees) == pytest.approx(oracle.t.ppf(0.975, degrees), rel=1e-9)
    assert counting.student_t(degrees, level=0.99) == pytest.approx(oracle.t.ppf(0.995, degrees), rel=1e-9)
