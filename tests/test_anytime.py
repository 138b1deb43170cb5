"""Anytime intervals: they close on the truth, hold what a fixed interval holds, and foresee what all images say."""

from __future__ import annotations

import numpy as np
import pytest

from tomebench import stats
from tomebench.stats import LEVEL
from tomebench.stats.anytime import anytime_interval, anytime_p, evidence, foreseen, looks, set_interval


def ends(interval: stats.Interval) -> tuple[float, float]:
    return interval.lo, interval.hi


def path(n: int, lost: float, gained: float, seed: int = 0) -> stats.Differences:
    draws = np.random.default_rng(seed).random(n)
    return np.where(draws < lost, -1, np.where(draws > 1 - gained, 1, 0)).astype(np.int8)


def test_looks_end_with_the_last_image_and_never_repeat():
    assert looks(0) == ()
    assert looks(1) == (1,)
    for n in (31, 32, 33, 100, 6050, 50_000):
        assert looks(n)[-1] == n
        assert sorted(set(looks(n))) == list(looks(n))
        assert looks(n)[:-1] == looks(n + 1)[: len(looks(n)) - 1]  # another stop has had the same looks before


def test_nothing_seen_is_nothing_known():
    nothing = np.empty(0, dtype=np.int8)
    assert ends(anytime_interval(nothing)) == (-1, 1)
    assert ends(set_interval(nothing, 10)) == (-1, 1)
    assert anytime_p(nothing) == 1
    assert foreseen(nothing, 10, lambda lost, gained: True) is None


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("lost", "gained"), [(0.02, 0.01), (0.1, 0.0), (0.0, 0.0), (0.4, 0.5)])
def test_intervals_hold_what_was_seen_and_nest_as_images_come(lost, gained, seed):
    differences, total = path(3000, lost, gained, seed), 3000
    truth = float(differences.mean())
    before = (stats.Interval(-1, 1), stats.Interval(-1, 1))
    for n in (10, 100, 400, 1000, 2999):
        now = (anytime_interval(differences[:n]), set_interval(differences[:n], total))
        for was, is_ in zip(before, now, strict=True):
            assert is_.lo >= was.lo - 0.02  # looks between two stops may differ by the last
            assert is_.hi <= was.hi + 0.02
        assert now[0].lo <= differences[:n].mean() <= now[0].hi
        assert now[1].lo <= truth <= now[1].hi
        fixed = stats.paired_interval(int((differences[:n] < 0).sum()), int((differences[:n] > 0).sum()), n)
        if n >= 1000:
            assert now[0].hi - now[0].lo > fixed.hi - fixed.lo  # the price of stopping at will
        before = now
    assert ends(set_interval(differences, total)) == pytest.approx((truth, truth))


def test_swapping_the_models_swaps_the_limits():
    differences = path(700, 0.03, 0.01)
    for interval in (anytime_interval, lambda each: set_interval(each, 5000)):
        there, back = interval(differences), interval(-differences)
        assert (there.lo, there.hi) == pytest.approx((-back.hi, -back.lo), abs=1e-9)


def test_intervals_of_a_set_count_what_is_left():
    lost = np.full(30, -1, dtype=np.int8)
    assert set_interval(lost, 40).hi <= -0.5  # at most 10 can still be gained
    assert set_interval(lost, 40).lo == -1
    assert ends(set_interval(lost, 31)) == pytest.approx((-1, -29 / 31))


def test_a_higher_level_is_a_wider_interval():
    differences = path(2000, 0.03, 0.02)
    narrow, wide = anytime_interval(differences, level=0.9), anytime_interval(differences, level=0.99)
    assert wide.lo < narrow.lo < narrow.hi < wide.hi
    narrow, wide = (set_interval(differences, 9000, level=level) for level in (0.9, 0.99))
    assert wide.lo < narrow.lo < narrow.hi < wide.hi


def test_golden_intervals():
    differences = path(2000, 0.02, 0.01)
    assert (int((differences < 0).sum()), int((differences > 0).sum())) == (52, 21)
    assert ends(anytime_interval(differences)) == pytest.approx((-0.0305034, -0.0017463), abs=1e-6)
    assert ends(set_interval(differences, 50_000)) == pytest.approx((-0.03018, -0.00200), abs=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_the_p_value_agrees_with_the_interval(seed):
    differences = path(1500, 0.03, (0.03, 0.02, 0.01, 0.0)[seed], seed)
    interval = anytime_interval(differences)
    assert (anytime_p(differences) < 1 - LEVEL) == (not interval.lo <= 0 <= interval.hi)


def within(limit: float, total: int):
    return lambda lost, gained: stats.paired_interval(lost, gained, total).lo >= -limit


@pytest.mark.parametrize("lost", [0.001, 0.01, 0.018, 0.03, 0.2])
def test_what_is_foreseen_is_what_all_images_say(lost):
    total = 6000
    differences = path(total, lost, 0.005, 7)
    shown = within(0.02, total)
    truth = shown(int((differences < 0).sum()), int((differences > 0).sum()))
    answers = [foreseen(differences[:n], total, shown) for n in (*looks(total),)]
    assert answers[0] is None
    assert answers[-1] is truth
    assert {*answers} <= {None, truth}
    assert foreseen(differences, total, shown) is truth


def test_far_from_the_limit_a_few_images_tell():
    total = 50_000
    assert foreseen(path(2000, 0.0, 0.0), total, within(0.01, total)) is True
    assert foreseen(path(300, 0.2, 0.0), total, within(0.01, total)) is False
    near = path(total, 0.02, 0.0105, 3)
    assert foreseen(near[:2000], total, within(0.01, total)) is None


def test_evidence_has_the_sign_of_what_all_images_would_say():
    total = 20_000
    for lost, sign in ((0.001, 1), (0.05, -1)):
        assert evidence(path(500, lost, 0.0), total, within(0.01, total)) * sign > 0
    nearer, farther = (abs(evidence(path(2000, lost, 0.0), total, within(0.01, total))) for lost in (0.015, 0.05))
    assert nearer < farther
