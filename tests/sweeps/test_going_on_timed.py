"""Timing that goes on in a folder: with a larger budget, after it was cut short, and what is said of that."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from even_clock import EvenClock
from growing_runs import IMAGES, config, round_of, settings_of, sweep, timed
from noisy_images import write_data

from tomebench.errors import Interrupted
from tomebench.measure import speed
from tomebench.runs import targets
from tomebench.runs.budget import BUDGETS, Budget
from tomebench.runs.rows import build_rows
from tomebench.runs.store import Store
from tomebench.sweeps import run, timing
from tomebench.sweeps.events import Finished, Note


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Settings of images and weights."""
    flags = write_data(tmp_path_factory.mktemp("data"), (7 * (i % 5) for i in range(IMAGES)))
    return settings_of(flags)


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "clock_for", lambda device: EvenClock())
    monkeypatch.setattr(speed, "WINDOW", 1)


def test_a_larger_budget_goes_on_and_a_smaller_one_adds_nothing(tmp_path: Path) -> None:
    quick = sweep(tmp_path / "run")
    standard = sweep(tmp_path / "run", budget="standard")
    assert [row.rounds for row in quick] == [6, 6]
    assert [row.rounds for row in standard] == [10, 10]
    whole = sweep(tmp_path / "whole", budget="standard")
    assert [row.protocol for row in standard] == [row.protocol for row in whole]
    assert {row.protocol for row in standard}.isdisjoint(row.protocol for row in quick)
    assert sweep(tmp_path / "run") == standard
    with Store.read(tmp_path / "run") as store:
        assert store.config["budget"] == "standard"


class UnevenClock(EvenClock):
    """Charges a third more for every other burst."""

    bursts = 0

    def burst(self, step: Callable[[], object], steps: int) -> float:
        self.bursts += 1
        extra = 0.001 * steps / 3 * (self.bursts % 2)
        self.time += extra
        return super().burst(step, steps) + extra


def test_what_is_not_known_well_enough_is_timed_on_by_the_same_command_which_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def notes_and_rounds() -> tuple[list[str], list[int]]:
        *events, last = run.run_sweep(config(), tmp_path / "run", lambda: False)
        assert isinstance(last, Finished)
        said = [event.text for event in events if isinstance(event, Note) and event.text.startswith("timing goes on")]
        return said, [row.rounds for row in last.rows]

    monkeypatch.setitem(BUDGETS, "quick", Budget("quick", 6, 0.03, cap_seconds=0.02))
    monkeypatch.setattr(timing, "clock_for", lambda device: UnevenClock())
    first, second = notes_and_rounds(), notes_and_rounds()
    assert first[0] == []
    assert second[1] > first[1]
    (line,) = second[0]
    assert re.fullmatch(r"timing goes on: 1 row known to ±\d+\.\d% at worst so far, budget quick asks for ±3\.0%", line)
    monkeypatch.setitem(BUDGETS, "quick", Budget("quick", 6, 9.0, cap_seconds=0.02))
    assert notes_and_rounds() == ([], second[1])


def test_each_cell_keeps_the_budget_that_it_reached(tmp_path: Path) -> None:
    sweep(tmp_path / "run", budget="standard")
    rows = sweep(tmp_path / "run", r="0,6")
    assert [(row.r, row.status, row.rounds) for row in rows] == [(0, "ok", 16), (4, "ok", 10), (6, "ok", 6)]
    assert timed(tmp_path / "run")[10:] == [round_of("r=0", "r=6")] * 6
    quick, standard = sweep(tmp_path / "quick", r="0,6"), sweep(tmp_path / "standard", budget="standard")
    assert [row.protocol for row in rows] == [standard[0].protocol, standard[1].protocol, quick[1].protocol]
    rows = sweep(tmp_path / "run", r="0,6", budget="standard")
    assert [(row.r, row.rounds) for row in rows] == [(0, 20), (4, 10), (6, 10)]


@pytest.mark.parametrize("stop_at", ["warm-up", 2, 5])
def test_timing_that_was_cut_short_says_so_until_it_has_come_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_at: object
) -> None:
    count = itertools.count()
    time_round = timing.time_round

    def stopping(*arguments: Any, **more: Any) -> Any:
        if next(count) == (0 if stop_at == "warm-up" else stop_at):
            raise Interrupted("stopped")
        return time_round(*arguments, **more)

    with monkeypatch.context() as patch:
        patch.setattr(timing, "time_round", stopping)
        with pytest.raises(Interrupted):
            sweep(tmp_path / "run")
    with Store.read(tmp_path / "run") as store:
        rows = build_rows(store)
        assert len(store.rounds()) == (0 if stop_at == "warm-up" else stop_at)
    assert all("INTERRUPTED" in row.warnings for row in rows)
    for row in sweep(tmp_path / "run"):
        assert ("INTERRUPTED" in row.warnings, row.status, row.rounds) == (False, "ok", 6)


def stop_before_timing(directory: Path, monkeypatch: pytest.MonkeyPatch, **settings: object) -> None:
    """A sweep that is interrupted when it begins to time."""

    def stopped(*_: Any, **__: Any) -> Any:
        raise Interrupted("stopped")

    with monkeypatch.context() as patch:
        patch.setattr(timing, "time_round", stopped)
        with pytest.raises(Interrupted):
            sweep(directory, **settings)


def test_a_run_in_which_nothing_was_measured_is_in_nobodys_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stop_before_timing(tmp_path / "run", monkeypatch, r="0..6", budget="standard", dtype="bf16")
    rows = sweep(tmp_path / "run", r="0,4")
    assert [(row.r, row.dtype, row.status, row.rounds) for row in rows] == [(0, "fp32", "ok", 6), (4, "fp32", "ok", 6)]
    assert not any("INTERRUPTED" in row.warnings for row in rows)
    with Store.read(tmp_path / "run") as store:
        assert (store.config["r"], store.config["budget"]) == ("0,4", "quick")


def test_a_cell_is_not_judged_by_a_budget_that_it_was_never_timed_for(
    tmp_path: Path, data: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep(tmp_path / "run", budget="none", **data)
    stop_before_timing(tmp_path / "run", monkeypatch, budget="standard", **data)
    for row in sweep(tmp_path / "run", **data):
        assert ("INTERRUPTED" in row.warnings, row.status, row.rounds) == (False, "ok", 6)


def test_how_long_more_of_a_run_takes_is_said_before_it_begins(tmp_path: Path) -> None:
    def said(**settings: object) -> list[str]:
        events = run.run_sweep(config(**settings), tmp_path / "run", lambda: False)
        return [event.text for event in events if isinstance(event, Note) and event.text.startswith("about ")]

    assert "(2 cells, batch size 4, budget quick)" in said()[0]
    assert "(3 cells, batch size 4, budget quick)" in said(r="0,4,6,8")[0]
    assert "(4 cells, batch size 4, budget standard)" in said(r="0,4,6,8", budget="standard")[0]  # and all at another
    assert said(r="0,4,6,8") == []


def test_only_the_cells_that_were_being_timed_are_marked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep(tmp_path / "run")
    stop_before_timing(tmp_path / "run", monkeypatch, r="0,6")
    with Store.read(tmp_path / "run") as store:
        assert {row.r: "INTERRUPTED" in row.warnings for row in build_rows(store)} == {0: False, 4: False, 6: True}
    rows = sweep(tmp_path / "run", r="0,8")  # which is no reason to forget it
    assert {row.r: "INTERRUPTED" in row.warnings for row in rows} == {0: False, 4: False, 6: True, 8: False}
    rows = sweep(tmp_path / "run", r="0,6")
    assert not any("INTERRUPTED" in row.warnings for row in rows)


def test_a_run_of_before_that_was_stopped_is_marked_by_its_rounds(tmp_path: Path) -> None:
    """Such a store does not note when timing begins and ends."""
    sweep(tmp_path / "run")
    with Store.open(tmp_path / "run", config().stored()) as store:
        assert store.get(targets._TIMING) == []
        store._connection.execute("DELETE FROM facts WHERE kind = 'fact' AND name = ?", (targets._TIMING,))
        assert not any("INTERRUPTED" in row.warnings for row in build_rows(store))
        store._connection.execute("DELETE FROM rounds WHERE id > 4")
        store._connection.execute("DELETE FROM facts WHERE kind = 'sum'")
        assert all("INTERRUPTED" in row.warnings for row in build_rows(store))
    assert [(row.rounds, "INTERRUPTED" in row.warnings) for row in sweep(tmp_path / "run")] == [(6, False)] * 2
