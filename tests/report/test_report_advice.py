"""What is recommended, and that fewer images or rounds never make it bolder."""

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
from demo_rows import IMAGES, SPEEDS, Images, demo, some, stored
from hypothesis import given
from hypothesis import strategies as st
from report_rows import accuracy, make_row, speed

from tomebench.measure.validity import CHANCE_LEVEL
from tomebench.report.advice import REACH, Advice, advise
from tomebench.report.headline import sentence
from tomebench.schema import MAX_DROP, Row
from tomebench.stats import clopper_pearson

SIZES = range(24, IMAGES + 1, 5)


def advised(rows: list[Row], max_drop: float = MAX_DROP) -> Advice:
    """The advice; fails if there is none."""
    found = advise(rows, max_drop)
    assert found is not None
    return found


def gain(rows: list[Row], max_drop: float = MAX_DROP) -> float:
    """The speed-up that is recommended, or the MAC ratio where nothing was timed; 1 where nothing is."""
    found = advised(rows, max_drop)
    if not found.recommended:
        return 1.0
    return found.row.mac_ratio if found.row.speedup_vs_r0 is None else found.row.speedup_vs_r0


def never_bolder(part: Callable[[Images], float], whole: float, seeds: range) -> None:
    """Fails if the images of some subset make ``part`` larger than ``whole``."""
    bolder = [(n, seed) for n in SIZES for seed in seeds if part(some(n, seed)) > whole]
    assert not bolder, f"bolder than all images, as (images, seed): {bolder}"


def test_never_bolder_finds_the_bold():
    with pytest.raises(AssertionError, match=r"\(24, 0\)"):
        never_bolder(lambda images: 2.0 if len(images) < 100 else 1.0, 1.0, range(1))


def test_the_demo_is_the_stored_one():
    rows = demo()
    assert [round(100 * stored()[row.r][1].mean(), 1) for row in rows] == [
        96.5,
        96.5,
        95.8,
        95.7,
        94.8,
        93.8,
        93.2,
        88.6,
    ]
    assert [round(row.delta_top1 or 0, 2) for row in rows] == [0, 0, -0.67, -0.83, -1.67, -2.67, -3.34, -7.85]


def test_all_images_of_the_demo_recommend_nothing_that_is_faster_and_r_4_by_its_macs():
    assert gain(demo()) == 1.0
    assert gain(demo(timed=False)) == pytest.approx(1.148, abs=0.001)


@pytest.mark.parametrize("timed", [True, False])
def test_no_part_of_the_demo_is_bolder_than_all_of_it(timed):
    never_bolder(lambda images: gain(demo(images, timed=timed)), gain(demo(timed=timed)), range(4))


def test_a_first_part_is_not_bolder_either():
    for n in (24, 96, 300, 500):
        assert gain(demo(np.arange(n))) == gain(demo(np.arange(IMAGES - n, IMAGES))) == 1.0


@pytest.mark.parametrize("max_drop", [0.5, 1.0, 2.0, 3.0, 5.0])
def test_parts_recommend_no_more_than_the_whole_on_average(max_drop):
    parts = [gain(demo(some(n, 0), timed=False), max_drop) for n in SIZES]
    assert np.mean(parts) <= gain(demo(timed=False), max_drop)


@pytest.mark.parametrize("n", [200, 300, 450])
@pytest.mark.parametrize("max_drop", [1.5, 2.5, 3.25])  # r = 16, 20, 22 lose hardly more
def test_what_loses_more_on_all_images_is_hardly_ever_recommended_by_some(n, max_drop):
    worst = max(1.0, *(row.mac_ratio for row in demo() if (row.delta_top1 or 0) >= -max_drop))
    bold = [gain(demo(some(n, seed), timed=False), max_drop) > worst for seed in range(200)]
    assert np.mean(bold) <= 0.025


@pytest.mark.parametrize("max_drop", [0.0, 0.25, 0.5, 1.0, 2.0, 3.0])
@pytest.mark.parametrize("others", [True, False])
def test_a_ratio_that_crosses_1_changes_nothing(max_drop, others):
    said = []
    for value in (0.9999, 1.0001):
        rows = demo(speedup_vs_r0=value, speedup_vs_r0_lo=value - 0.04, speedup_vs_r0_hi=value + 0.04)
        said.append(sentence(rows if others else rows[:2], max_drop))
    assert None not in said
    assert said[0] == said[1]


@st.composite
def tables(draw: st.DrawFn) -> list[Row]:
    """Timed and evaluated rows with any interval around any estimate."""
    rows = [make_row(**speed(1.0, None), **accuracy(250))]
    for r in range(1, draw(st.integers(1, 4)) + 1):
        n = draw(st.integers(1, 100_000))
        delta, value = draw(st.floats(-5, 1)), draw(st.floats(0.5, 3))
        below, above, slack = (draw(st.floats(0, 1)) for _ in range(3))
        fields = speed(value) | accuracy(250) | {"n_seen": n, "rounds": draw(st.integers(1, 100))}
        fields |= {"speedup_vs_r0_lo": value * (1 - slack / 2), "speedup_vs_r0_hi": value * (1 + slack)}
        fields |= {"delta_top1": delta, "delta_top1_lo": delta - below, "delta_top1_hi": delta + above}
        rows.append(make_row(r, **fields))
    return rows


@given(tables(), st.floats(0, 100))
def test_a_recommended_row_is_surely_faster_and_surely_within(rows, max_drop):
    found = advised(rows, max_drop)
    assert sentence(rows, max_drop)
    if found.recommended:
        assert (found.row.speedup_vs_r0_lo or 0) > 1
        assert (found.row.delta_top1_lo or 0) >= -max_drop
        lost = max(0, round(-(found.row.delta_top1 or 0) * (found.row.n_seen or 0) / 100))
        assert 100 * clopper_pearson(lost, found.row.n_seen or 0).hi <= max_drop


@given(tables(), st.floats(0, 5), st.floats(1, 4))
def test_wider_intervals_are_never_bolder(rows, max_drop, times):
    wide = [
        row
        if row.r == 0
        else dataclasses.replace(
            row,
            speedup_vs_r0_lo=min(row.speedup_vs_r0_lo, (1 - times) * row.speedup_vs_r0 + times * row.speedup_vs_r0_lo),
            delta_top1_lo=min(row.delta_top1_lo, (1 - times) * row.delta_top1 + times * row.delta_top1_lo),
        )
        for row in rows
    ]
    assert gain(wide, max_drop) <= gain(rows, max_drop)


@given(tables(), st.floats(0, 5), st.floats(0, 5))
def test_a_larger_limit_is_never_more_timid(rows, one, other):
    assert gain(rows, min(one, other)) <= gain(rows, max(one, other))


def test_more_images_than_there_are_are_asked_for_and_would_do():
    found = advised(demo())
    assert (found.choice, found.row.r) == ("images", 12)
    assert found.images is not None
    assert IMAGES < found.images <= REACH * IMAGES
    lost = round(found.images * 5 / IMAGES)  # r = 12 loses five images of 599 on balance
    assert 100 * clopper_pearson(lost, found.images, level=1 - 0.05 / len(SPEEDS)).hi <= 1
    fewer = found.images // 2
    assert 100 * clopper_pearson(round(fewer * 5 / IMAGES), fewer, level=1 - 0.05 / len(SPEEDS)).hi > 1


def test_never_fewer_images_than_there_are():
    # 9 of 1701 lost is just too many, and by the score test 1521 images would do.
    fields = accuracy(250) | {"n_seen": 1701, "delta_top1": -0.5, "delta_top1_lo": -0.6, "delta_top1_hi": -0.4}
    found = advised([make_row(8, **speed(1.3), **fields)])
    assert (found.choice, found.images) == ("images", 1800)


def test_images_that_would_narrow_the_paired_interval():
    # (900, 650) of 50000 images: -0.5 [-0.66, -0.34]; at a limit of 0.6 the interval has to be 0.6 times as wide.
    fields = accuracy(250) | {"n_seen": 50_000, "delta_top1": -0.5, "delta_top1_lo": -0.66, "delta_top1_hi": -0.34}
    found = advised([make_row(8, **speed(1.3), **fields)], 0.6)
    assert (found.choice, found.images) == ("images", 130_000)


def test_rounds_that_would_lift_the_lower_end_above_1():
    # ln(1.02 / 0.99) / ln(1.02) = 1.51, squared 2.27: 38 rounds become 87.
    found = advised(demo(speedup_vs_r0=1.02, speedup_vs_r0_lo=0.99, speedup_vs_r0_hi=1.04), 0.64)
    assert (found.choice, found.row.r, found.rounds) == ("rounds", 4, 87)


@pytest.mark.parametrize(
    "fields", [{"model": "other"}, {"dtype": "bf16"}, {"dataset_digest": "f00d"}, {"weights": "sha256:0"}]
)
def test_top_1_at_chance_says_nothing_about_a_loss(fields):
    base = make_row(**speed(1.0, None), **accuracy(30), warnings=(CHANCE_LEVEL,))
    merged = make_row(8, **speed(1.3), **accuracy(30, 50_000, 30))
    assert advise([base, merged]) is None
    assert (sentence([base, merged]) or "").startswith("No loss of accuracy can be stated: top-1 at r=0 is what")
    other = dataclasses.replace(merged, r=4, **fields)
    assert advised([base, merged, other]).row == other
