"""Races as pure functions: which cells run next, and which one is chosen."""

from __future__ import annotations

import numpy as np
import pytest

from tomebench.runs.goal import Goal
from tomebench.runs.racing import Race, Runner, choose, stages
from tomebench.stats import LEVEL, Differences


def differences(total: int, losses: float, seed: int) -> Differences:
    """Paired differences of a set of which a share is lost, in a random order."""
    found = np.zeros(total, dtype=np.int8)
    found[: round(losses * total)] = -1
    return np.random.default_rng(seed).permutation(found)


def run(cells: dict[str, Differences], goal: Goal, until="recommended", lines=None, before=None) -> tuple[Race, dict]:
    """Run a race to its end; the race, and the images that every cell was run on."""
    total = len(next(iter(cells.values())))
    seen, at = dict.fromkeys(cells, 0) | (before or {}), stages(total, 8)
    order = sorted(cells)
    while True:
        runners = [
            Runner(key, 1.0 + order.index(key), (lines or {}).get(key, ""), order.index(key), each[: seen[key]])
            for key, each in cells.items()
        ]
        race = Race(runners, total, goal, until, LEVEL)
        asked = race.next()
        if not asked:
            return race, seen
        for key in asked:
            seen[key] = min(next(8 * batches for batches in at if min(8 * batches, total) > seen[key]), total)


def test_stages_end_with_all_images():
    for total, batch in ((1, 8), (64, 8), (200, 16), (25_000, 50)):
        found = stages(total, batch)
        assert list(found) == sorted(set(found))
        assert (found[-1] - 1) * batch < total <= found[-1] * batch


@pytest.mark.parametrize("until", ["recommended", "decided"])
@pytest.mark.parametrize("total", [150, 800, 4000])
@pytest.mark.parametrize("limit", [0.5, 2.0])
def test_a_race_ends_as_all_images_would(until, total, limit):
    cells = {f"{i:02}": differences(total, 0.002 * i**2, i) for i in range(10)}
    whole = Race([Runner(key, 1.0 + int(key), "", int(key), z) for key, z in cells.items()], total, Goal(limit),
                 until, LEVEL)  # fmt: skip
    race, seen = run(cells, Goal(limit), until)
    (there, found), (here, said) = choose(whole), choose(race)
    assert (here.key, said) == (there.key, found)
    assert sum(seen.values()) <= sum(map(len, cells.values()))


def test_so_few_images_that_none_can_be_sure_choose_by_what_they_say():
    """With a limit that even an unchanged cell cannot be shown to keep, the fastest that keeps it is still found."""
    cells = {f"{i:02}": differences(200, 0.0 if i < 9 else 0.1, i) for i in range(12)}
    race, _ = run(cells, Goal(1.0))
    assert not race.can_be_sure
    chosen, found = choose(race)
    assert (chosen.key, found) == ("08", "seems")
    assert len(chosen.differences) > 64


def test_cells_slower_than_one_that_keeps_the_limit_are_not_run():
    cells = {f"{i:02}": differences(4000, 0.0, i) for i in range(12)}
    race, seen = run(cells, Goal(1.0))
    assert choose(race)[0].key == "11"
    assert [key for key in cells if seen[key] == 0] == [f"{i:02}" for i in range(6)]


def test_other_lines_are_judged_apart():
    cells = {"a1": differences(4000, 0.2, 0), "a2": differences(4000, 0.3, 1), "b3": differences(4000, 0.0, 2)}
    race, seen = run(cells, Goal(1.0), lines={"a1": "a", "a2": "a", "b3": "b"})
    assert choose(race)[0].key == "b3"  # though it removes more than a1, which loses too much
    assert max(seen["a1"], seen["a2"]) < 400


def test_none_keeps_the_limit():
    race, _ = run({f"{i}": differences(1000, 0.1 + 0.05 * i, i) for i in range(4)}, Goal(1.0))
    assert choose(race)[1] == "beyond"


def test_the_most_accurate_is_found_and_the_worse_are_dropped():
    cells = {"a": differences(4000, 0.01, 0), "b": differences(4000, 0.002, 1), "c": differences(4000, 0.2, 2)}
    race, seen = run(cells, Goal(min_speedup=1.1))
    assert choose(race)[0].key == "b"
    assert choose(race)[1] == "best"
    assert seen["c"] < 400


def test_a_cell_that_another_race_has_left_behind_catches_up():
    """A store of a race for another question: the cell that was run furthest is not the best for that."""
    cells = {"far": differences(2000, 0.03, 0), "near": differences(2000, 0.0, 1)}
    race, seen = run(cells, Goal(min_speedup=1.1), before={"far": 2000, "near": 128})
    assert choose(race)[0].key == "near"
    race, seen = run({**cells, "new": differences(2000, 0.0, 5)}, Goal(min_speedup=1.1), before={"far": 2000})
    assert choose(race)[0].key in ("near", "new")
    assert seen["new"] > 0
