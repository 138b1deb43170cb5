"""Statistics: published golden values, scipy as an oracle, algebra, and coverage by seeded simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as oracle

from tomebench import stats
from tomebench.stats import Interval, speedups, trend

seconds = st.lists(st.floats(1e-4, 1e2), min_size=1, max_size=30)


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
    assert speedups._order_statistic(n) == k
    assert 1 - 2 * oracle.binom.cdf(k - 1, n, 0.5) >= 0.95 > 1 - 2 * oracle.binom.cdf(k, n, 0.5)


def test_which_interval_for_how_many_rounds() -> None:
    values = np.random.default_rng(0).permutation(np.arange(2001.0))
    assert stats.median_interval(values[:5]) is None
    assert stats.median_interval(sorted(values[:8])) == Interval(values[:8].min(), values[:8].max())
    many = stats.median_interval(values)
    assert many == Interval(956, 1044)
    assert (many.lo, many.hi) == pytest.approx(oracle.binom.ppf([0.025, 0.975], 2001, 0.5), abs=1)


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


def test_a_median_shift_by_hand() -> None:
    # n = 6: c = round(3.5 - sqrt 6) = 1, so the range over twice the normal's 1 - 1/64 quantile, 2.1539.
    old, new = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0], [10.0] * 6
    shift = stats.median_shift(new, old)
    assert shift.value == 7.5
    assert shift.error == pytest.approx(5 / (2 * 2.1538747))
    assert shift.interval.lo == pytest.approx(7.5 - 1.959964 * shift.error)
    assert shift.p_at_most(7.5) == 0.5 == shift.p_at_least(7.5)
    assert shift.p_at_most(shift.interval.lo) == pytest.approx(0.025)
    assert shift.p_at_least(shift.interval.hi) == pytest.approx(0.025)
    with pytest.raises(ValueError, match="got 5 and 6"):
        stats.median_shift(new[:5], old)


def test_the_error_of_a_median_is_that_of_the_theory() -> None:
    values = np.random.default_rng(0).normal(3, 1, 40_000)
    assert stats.median_shift(values, values).error / 2 == pytest.approx(math.sqrt(math.pi / 2 / 40_000), rel=0.15)


def test_what_never_varies_is_sure() -> None:
    shift = stats.median_shift([1.0] * 6, [0.0] * 6)
    assert (shift.p_at_most(0.9), shift.p_at_most(1.0), shift.p_at_least(1.0), shift.p_at_least(1.1)) == (0, 1, 1, 0)
    assert shift.interval == stats.Interval(1.0, 1.0)


@given(st.lists(st.floats(-50, 50), min_size=6, max_size=30), st.lists(st.floats(-50, 50), min_size=6, max_size=30))
def test_a_shift_turned_round_is_its_opposite(new: list[float], old: list[float]) -> None:
    there, back = stats.median_shift(new, old), stats.median_shift(old, new)
    assert (back.value, back.error) == (-there.value, there.error)
    assert there.p_at_most(1.0) == back.p_at_least(-1.0)
    assert there.p_at_most(1.0) + there.p_at_least(1.0) >= 1 - 1e-9


@given(st.lists(st.floats(-100, 100), min_size=3, max_size=25))
@settings(max_examples=100, deadline=None)
def test_theil_sen_agrees_with_scipy(values: list[float]) -> None:
    assert stats.theil_sen(values) == pytest.approx(oracle.theilslopes(values).slope, abs=1e-9)


@given(st.lists(st.integers(0, 9), min_size=11, max_size=40))
@settings(max_examples=100, deadline=None)
def test_mann_kendall_is_kendalls_tau_against_time(values: list[int]) -> None:
    p = stats.mann_kendall(values)
    score = sum(np.sign(b - a) for i, a in enumerate(values) for b in values[i + 1 :])
    n = len(values)
    ties = np.unique(values, return_counts=True)[1]
    variance = (n * (n - 1) * (2 * n + 5) - (ties * (ties - 1) * (2 * ties + 5)).sum()) / 18
    expected = 1.0 if score == 0 or variance == 0 else 2 * oracle.norm.sf((abs(score) - 1) / math.sqrt(variance))
    assert p == pytest.approx(min(1.0, expected))


def test_a_clear_trend_is_one_and_noise_is_none() -> None:
    assert stats.mann_kendall(list(range(10))) < 1e-3
    assert stats.mann_kendall([1.0] * 10) == 1.0
    generator = np.random.default_rng(0)
    assert np.mean([stats.mann_kendall(generator.normal(size=20)) < 0.01 for _ in range(1000)]) < 0.02


@pytest.mark.parametrize(
    ("value", "others", "z"),
    [(5.0, [], 0.0), (1.0, [1.0, 1.0], 0.0), (2.0, [1.0, 1.0], math.inf), (0.5, [1.0] * 3, -math.inf),
     (4.0, [1.0, 2.0, 3.0], 0.6745 * 2)],
)  # fmt: skip
def test_modified_z(value: float, others: list[float], z: float) -> None:
    assert stats.modified_z(value, others) == pytest.approx(z)


def test_holm_is_the_textbook_example() -> None:
    assert stats.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert stats.holm([]) == []
    assert stats.holm([0.7, 0.9]) == [1.0, 1.0]


def test_the_largest_step_is_found_where_it_is() -> None:
    values = [0.0, 0.01, -0.01, 0.5, 0.51, 0.49, 0.5]
    found = stats.largest_step(values)
    assert (found.at, found.shift) == (3, pytest.approx(0.5))
    assert found.p == pytest.approx(1 / 4001)
    assert stats.largest_step([-value for value in values]).shift == pytest.approx(-0.5)
    first, second = values[:3], values[3:]
    t = oracle.ttest_ind(first, second).statistic
    assert splits_of(values)[1] == pytest.approx(abs(t))  # splits of 2, 3, 4 and 5
    assert stats.largest_step([1.0] * 9).p == stats.largest_step([1.0, 2.0, 3.0]).p == 1.0
    assert stats.largest_step([1.0] * 5 + [2.0] * 5).p == pytest.approx(1 / 4001)


def splits_of(values: list[float]) -> list[float]:
    return list(trend._splits(np.array(values)))


@pytest.mark.parametrize("n", [6, 20, 200])
def test_noise_has_a_step_as_often_as_its_p_says(n: int) -> None:
    p_values = [stats.largest_step(list(np.random.default_rng([n, s]).normal(3, 2, n))).p for s in range(1000)]
    for level in (0.01, 0.05, 0.5):
        assert np.mean(np.array(p_values) < level) == pytest.approx(level, abs=3.5 * math.sqrt(level / 1000))


@pytest.mark.parametrize("share", [0.5, 0.95, 0.99])
@pytest.mark.parametrize("n", [20, 40, 100, 700])
def test_interval_of_a_quantile_is_that_of_order_statistics_where_rounds_are_alike(n: int, share: float) -> None:
    values = np.arange(float(n)).reshape(-1, 5).T.reshape(-1, 1)  # every batch of rounds has its share of any part
    found = stats.quantile_interval([*values], share)
    lower = [k for k in range(n) if oracle.binom.cdf(k, n, share) <= 0.025]
    upper = [k for k in range(n) if oracle.binom.sf(k, n, share) <= 0.025]
    wanted = Interval(float(lower[-1]), float(upper[0])) if lower and upper else None
    assert found == wanted


def test_interval_of_a_quantile_knows_that_passes_of_a_round_are_alike() -> None:
    held = 0
    for seed in range(200):
        draw = np.random.default_rng(seed)
        found = stats.quantile_interval([*(draw.normal(0, 1, (40, 1)) + draw.normal(0, 0.1, (40, 20)))], 0.5)
        assert found is not None
        held += 0.0 in found
    assert held >= 180  # order statistics of 800 independent values would hold it in 60
    assert stats.quantile_interval([[1.0, 2.0]] * 19, 0.5) is None
    assert stats.quantile_interval([[1.0, 2.0]] * 20, 0.999) is None
    one, ten = (stats.quantile_interval([[float(k)] * passes for k in range(40)], 0.5) for passes in (1, 10))
    assert one == ten, "passes of a round that are all the same tell no more than one of them"


def test_a_trend_that_several_series_have_is_found_where_each_is_too_short_for_it() -> None:
    rising = [[1.0, 1.05, 1.1, 1.15, 1.2, 1.25]] * 5
    assert stats.mann_kendall(*rising) < 1e-6
    assert stats.mann_kendall(rising[0]) > 0.005
    assert stats.mann_kendall(rising[0], rising[0][::-1]) == 1.0
    assert stats.mann_kendall([1.0, 2.0], rising[0]) == stats.mann_kendall(rising[0])
    draw = np.random.default_rng(1)
    assert np.mean([stats.mann_kendall(*draw.normal(size=(5, 6))) < 0.01 for _ in range(1000)]) < 0.02


def test_batches_of_alike_neighbours_make_a_wider_interval_than_independent_values() -> None:
    covered = {"batches": 0, "order": 0}
    for seed in range(300):
        draw = np.random.default_rng(seed)
        level, values = 0.0, []
        for step in draw.normal(0, 1, 40):  # neighbours correlate by 0.7
            level = 0.7 * level + step
            values.append(level)
        half, order = stats.batch_half_width(values), stats.median_interval(values)
        assert half is not None
        assert order is not None
        covered["batches"] += abs(np.median(values)) <= half
        covered["order"] += 0.0 in order
    assert covered["batches"] >= 0.85 * 300 > covered["order"]
    assert stats.batch_half_width(values[:19]) is None
    assert stats.batch_half_width([3.0] * 20) == 0.0


@pytest.mark.parametrize("done", [2, 3, 8])
@pytest.mark.parametrize("times", [1.5, 4.0, 9.0])
def test_as_many_processes_as_are_asked_for_would_do(done: int, times: float) -> None:
    """Those of Student's interval, whose factor falls with their number: two that are far off soon become enough."""
    half = stats.mean_half_width([(-1.0) ** k for k in range(done)])
    assert half is not None
    scatter = half * math.sqrt(done) / stats.student_t(done - 1)
    count = stats.processes_needed(half, done, half / times)
    assert stats.student_t(count - 1) * scatter / math.sqrt(count) <= half / times
    if count > done + 1:
        assert stats.student_t(count - 2) * scatter / math.sqrt(count - 1) > half / times
    assert stats.processes_needed(half, done, half) == done


def test_where_a_series_lies_by_processes_and_by_batches() -> None:
    times = [1.0] * 6 + [1.1] * 6 + [5.0] * 3  # the last one was cut short
    found = stats.level(times, [1] * 6 + [2] * 6 + [3] * 3)
    assert (found.value, found.processes) == (pytest.approx(math.sqrt(1.1)), 2)
    assert found.half_width == pytest.approx(12.7062 * math.log(1.1) / 2, rel=1e-4)
    assert found.interval is not None
    assert found.interval.lo * found.interval.hi == pytest.approx(1.1)
    assert stats.level(times, [1] * 15) == stats.Level(1.1, None)  # one process says nothing of others
    assert stats.level(times[:12]).half_width is None
    assert stats.level([1.0] * 40).half_width == 0.0
