"""The simulations in short, to looser bounds: :mod:`statistics_simulated` prints them in full."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from statistics_simulated import ALL, Figure

SLACK = 0.03


def test_a_figure_that_misses_its_goal_says_so() -> None:
    figure = Figure("coverage", 0.9, least=0.95)
    assert not figure.holds()
    assert figure.holds(0.05)
    assert str(figure) == "MISS coverage: 90.0 % (at least 95 %)"


@pytest.mark.parametrize(("simulate", "often", "draws"), ALL)
def test_the_goals_hold(simulate: Callable[[int], list[Figure]], often: int, draws: int) -> None:
    missed = [str(figure) for figure in simulate(draws) if not figure.holds(SLACK)]
    assert not missed
