"""The simulations of races in short, to looser bounds: :mod:`racing_simulated` prints them in full."""

from __future__ import annotations

import numpy as np
import pytest
from racing_simulated import coverage, on_real_images, raced, saved, widths, worst_in_general, worst_of_the_set
from statistics_simulated import Figure

from tomebench.runs.goal import Goal


@pytest.mark.parametrize(
    "figures", [lambda: coverage(600, sizes=(2000,)), lambda: widths(600)], ids=["coverage", "widths"]
)
def test_the_goals_hold(figures) -> None:
    found: list[Figure] = figures()
    assert len(found) >= 2
    assert not [str(figure) for figure in found if not figure.holds(0.02)]


def test_a_race_chooses_as_all_images_do_with_a_part_of_their_passes() -> None:
    found = saved(3, n=20_000)
    assert [figure.seen for figure in found[::2]] == [1, 1]
    assert all(figure.seen < 0.3 for figure in found[1::2])


def test_few_real_images_save_little() -> None:
    found = on_real_images(5)
    assert all(figure.seen == 1 for figure in found[::2])
    assert all(figure.seen > 0.45 for figure in found[1::2])  # of at most 0.7, the estimate of one row included


def test_a_path_that_leads_away_from_the_truth_is_noticed() -> None:
    lost = np.full(200, -1, dtype=np.int8)
    assert worst_in_general(lost, 0.0) > 10  # every image lost, where none should be on average
    even = np.tile(np.array([-1, 1], dtype=np.int8), 100)
    assert worst_in_general(even, 0.0) < 1
    assert worst_of_the_set(even) < 1
    sorted_ = np.sort(even)  # an order that is not random leads every interval astray
    assert worst_of_the_set(sorted_) > 10


def test_a_race_without_differences_costs_next_to_nothing() -> None:
    nothing = [np.zeros(10_000, dtype=np.int8)] * 5
    key, passes = raced(nothing, Goal(1.0), "recommended")
    assert key == "04"  # the fastest
    assert passes < 2 * 5000 + 5 * 1000  # its estimate, and a few hundred images for each
