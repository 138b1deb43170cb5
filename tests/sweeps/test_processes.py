"""Speed measured in several fresh processes: what each of them times, and what their rows say."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from even_clock import EvenClock
from runs.store_samples import CELLS, TESTBED
from several_processes import config, fresh, rows_of, timed_in

from tomebench import stats
from tomebench.errors import ConfigError, Interrupted, RunError
from tomebench.identity import CODE, code_digest
from tomebench.measure import speed
from tomebench.runs.codes import INTERRUPTED
from tomebench.runs.origin import MADE
from tomebench.runs.rounds import paired_seconds
from tomebench.runs.store import Store
from tomebench.schema import Round
from tomebench.sweeps import run, timing
from tomebench.sweeps.events import Estimate, Finished
from tomebench.sweeps.failures import CellFailed
from tomebench.sweeps.resume import merged, processes_of


@pytest.fixture
def one_after_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let sweeps that are told that they are fresh processes measure in a moment.

    Every process has a bias of its own for every variant, and there is no other noise: what no round of it can show.
    """
    timed = timing.time_round

    def biased(*args: Any, session: int, **settings: Any) -> Round:
        found = timed(*args, session=session, **settings)
        bias = {
            each.name: float(np.exp(np.random.default_rng([session, number]).normal(0, 0.01)))
            for number, each in enumerate(args[0])
        }
        bursts = tuple(dataclasses.replace(b, seconds=b.seconds * bias[b.variant]) for b in found.bursts)
        return dataclasses.replace(found, bursts=bursts)

    monkeypatch.setattr(timing, "time_round", biased)
    monkeypatch.setattr(timing, "clock_for", lambda device: EvenClock())
    monkeypatch.setattr(speed, "WINDOW", 1)


@pytest.mark.usefixtures("one_after_another")
def test_every_process_times_every_cell_anew_and_the_last_one_makes_the_table(tmp_path: Path) -> None:
    left = [fresh(tmp_path / "run") for _ in range(3)]
    assert [found.processes_left for found in left] == [2, 1, 0]
    assert [len(found.rows) for found in left] == [0, 0, 2]
    assert timed_in(tmp_path / "run") == {"r=0": [6, 6, 6], "r=4": [6, 6, 6]}

    row = left[-1].rows[1]
    with Store.read(tmp_path / "run") as store:
        keys = [cell.key for cell, _ in store.cells()]
        logs = stats.log_ratios(*paired_seconds(store.rounds(), *keys))
    medians = [np.median(part) for part in np.split(logs, 3)]
    half = 4.3027 * np.std(medians, ddof=1) / np.sqrt(3)  # Student's t for three, 95 %
    assert row.speedup_vs_r0 == pytest.approx(np.exp(np.mean(medians)))
    assert row.speedup_vs_r0_lo == pytest.approx(np.exp(np.mean(medians) - half), rel=1e-5)
    assert row.speedup_vs_r0_hi == pytest.approx(np.exp(np.mean(medians) + half), rel=1e-5)
    assert (row.processes, row.rounds) == (3, 18)
    assert row.img_per_s_lo is not None
    assert row.img_per_s is not None
    assert row.img_per_s_hi is not None
    assert row.img_per_s_lo < row.img_per_s < row.img_per_s_hi
    assert fresh(tmp_path / "run").processes_left == 0
    assert timed_in(tmp_path / "run") == {"r=0": [6, 6, 6], "r=4": [6, 6, 6]}  # nothing was missing


@pytest.mark.usefixtures("one_after_another")
def test_rounds_of_one_process_never_show_what_is_fixed_in_it(tmp_path: Path) -> None:
    *_, one = run.run_sweep(config(processes=1), tmp_path / "one", lambda: False)
    assert isinstance(one, Finished)
    assert one.rows[1].processes == 1
    assert one.rows[1].speedup_vs_r0_lo == pytest.approx(one.rows[1].speedup_vs_r0_hi)  # as sure as it is wrong
    assert one.rows[1].speedup_vs_r0 != pytest.approx(1.0, abs=1e-4)
    for _ in range(2):
        fresh(tmp_path / "one")  # and two more make three of it
    row = rows_of(tmp_path / "one")[1]
    assert row.processes == 3
    assert row.speedup_vs_r0_lo is not None
    assert row.speedup_vs_r0_hi is not None
    assert row.speedup_vs_r0_lo < 1.0 < row.speedup_vs_r0_hi


@pytest.mark.usefixtures("one_after_another")
def test_a_run_that_has_too_few_processes_says_so(tmp_path: Path) -> None:
    fresh(tmp_path / "run")
    first = rows_of(tmp_path / "run")
    assert all(INTERRUPTED in row.warnings for row in first)
    assert {row.status for row in first} == {"unconverged"}
    assert first[1].error == "1 process timed; about 2 more needed"
    assert first[1].processes == 1
    fresh(tmp_path / "run")
    assert rows_of(tmp_path / "run")[1].processes == 2
    fresh(tmp_path / "run")
    assert not any(INTERRUPTED in row.warnings for row in rows_of(tmp_path / "run"))


@pytest.mark.usefixtures("one_after_another")
def test_a_process_that_was_cut_short_does_not_count(tmp_path: Path) -> None:
    def after(rounds: int) -> Callable[[], bool]:
        def stop() -> bool:
            if not (tmp_path / "run").exists():
                return False
            with Store.read(tmp_path / "run") as store:
                return len(store.rounds()) >= rounds

        return stop

    with mock.patch.object(run, "THIS_PROCESS", "another"), pytest.raises(Interrupted):
        list(run.run_sweep(config(), tmp_path / "run", after(4), fresh=True))
    assert [fresh(tmp_path / "run").processes_left for _ in range(3)] == [2, 1, 0]
    assert timed_in(tmp_path / "run")["r=4"] == [4, 6, 6, 6]
    assert rows_of(tmp_path / "run")[1].processes == 3


@pytest.mark.usefixtures("one_after_another")
def test_more_of_a_run_is_timed_in_as_many_processes(tmp_path: Path) -> None:
    for _ in range(3):
        fresh(tmp_path / "run")
    assert [fresh(tmp_path / "run", r="0,4,6", ceiling=True).processes_left for _ in range(3)] == [2, 1, 0]
    found = timed_in(tmp_path / "run")
    assert (found["r=6"], found["ceiling of r=6"], found["ceiling of r=4"]) == ([6, 6, 6],) * 3
    assert {row.processes for row in rows_of(tmp_path / "run")} == {3, 6}
    assert fresh(tmp_path / "run", r="0,6", processes=4).processes_left == 0
    assert timed_in(tmp_path / "run")["r=6"] == [6] * 4


@pytest.mark.usefixtures("one_after_another")
def test_two_sessions_of_one_process_are_one_of_it(tmp_path: Path) -> None:
    for r in ("0,4", "0,6"):
        list(run.run_sweep(config(r=r, processes=1), tmp_path / "run", lambda: False))
    assert [row.sessions for row in rows_of(tmp_path / "run")] == [2, 1, 1]
    assert fresh(tmp_path / "run", r="0,4,6", processes=2).processes_left == 0
    assert [row.processes for row in rows_of(tmp_path / "run")] == [2, 2, 2]


@pytest.mark.usefixtures("one_after_another")
def test_a_cell_that_fails_in_one_process_is_left_to_no_other(tmp_path: Path, monkeypatch) -> None:
    """And a later sweep tries it again."""
    timed = timing.time_round
    assert fresh(tmp_path / "run", r="0,4,6").processes_left == 2
    with Store.read(tmp_path / "run") as store:
        (six,) = (cell.key for cell, _ in store.cells() if cell.r == 6)

    def failing(variants: Any, *rest: Any, **settings: Any) -> Round:
        if any(variant.name == six for variant in variants):
            raise CellFailed(six, "oom", "out of memory")
        return timed(variants, *rest, **settings)

    with monkeypatch.context() as patch:
        patch.setattr(timing, "time_round", failing)
        assert fresh(tmp_path / "run", first=False, r="0,4,6").processes_left == 1
    last = fresh(tmp_path / "run", first=False, r="0,4,6")
    assert [(row.r, row.status == "oom") for row in last.rows] == [(0, False), (4, False), (6, True)]
    assert timed_in(tmp_path / "run") == {"r=0": [6, 6, 6], "r=4": [6, 6, 6], "r=6": [6]}
    assert [fresh(tmp_path / "run", r="0,4,6", first=n == 0).processes_left for n in range(2)] == [1, 0]
    assert [row.processes for row in rows_of(tmp_path / "run")] == [5, 3, 3]


@pytest.mark.usefixtures("one_after_another")
def test_processes_that_have_ended_measure_no_more_for_a_larger_budget(tmp_path: Path) -> None:
    for _ in range(3):
        fresh(tmp_path / "run")
    assert fresh(tmp_path / "run", budget="standard").processes_left == 0
    assert timed_in(tmp_path / "run") == {"r=0": [6, 6, 6], "r=4": [6, 6, 6]}
    row = rows_of(tmp_path / "run")[1]
    assert row.status == "unconverged"  # they differ by over one per cent
    assert "more needed" in str(row.error)
    with Store.read(tmp_path / "run") as store:
        assert merged(store.config, config(budget="publish", processes=5).stored())["processes"] == 5
        assert merged({**store.config, "budget": "publish", "processes": 1}, config().stored())["processes"] == 5


def test_what_is_there_in_several_processes_goes_on_in_as_many(tmp_path: Path) -> None:
    assert processes_of(tmp_path / "none", config(processes=None)) == 1
    with Store.open(tmp_path / "run", config().stored()) as store:
        assert processes_of(tmp_path / "run", config(processes=None)) == 1  # nothing was measured
        store.put_cells(CELLS)
        store.put(MADE, {CODE: code_digest()})
        store.begin_session(TESTBED)
        store.add_round(Round(1, 0, ()))
    assert processes_of(tmp_path / "run", config(processes=None)) == 3
    assert processes_of(tmp_path / "run", config(processes=5)) == 5
    assert processes_of(tmp_path / "run", config(processes=None, budget="none", data="digits")) == 1


def test_each_process_takes_its_share_of_the_budget() -> None:
    from tomebench.runs.budget import BUDGETS, share_of

    publish = share_of(BUDGETS["publish"], 5)
    assert (publish.min_rounds, publish.cap_seconds) == (6, 720.0)
    assert publish.half_width == pytest.approx(0.005 * 5**0.5)
    assert share_of(BUDGETS["standard"], 1) == BUDGETS["standard"]


def test_the_settings_of_processes() -> None:
    assert (config(processes=None).process_count, config(processes=None, budget="publish").process_count) == (1, 5)
    assert config(processes=1).stored() == config(processes=None).stored()
    assert config(budget="publish", processes=7).stored()["processes"] == 7
    assert config(budget="publish", processes=None).stored()["processes"] == 5
    with pytest.raises(ConfigError, match="processes"):
        config(budget="publish", processes=4)
    assert config(budget="none", data="digits", processes=4).process_count == 1  # as a file may say for other budgets


@pytest.mark.usefixtures("one_after_another")
def test_rows_that_are_not_asked_for_stay_finished(tmp_path: Path) -> None:
    list(run.run_sweep(config(r="0,4,6", processes=1), tmp_path / "run", lambda: False))
    assert [fresh(tmp_path / "run", r="0,6").processes_left for _ in range(2)] == [1, 0]
    found = rows_of(tmp_path / "run")
    assert [(row.r, row.processes) for row in found] == [(0, 3), (4, 1), (6, 3)]
    assert found[1].status == "ok"
    assert INTERRUPTED not in found[1].warnings
    assert fresh(tmp_path / "run", r="0,4").processes_left == 1  # which asks it of that one, too
    assert INTERRUPTED in rows_of(tmp_path / "run")[1].warnings


@pytest.mark.usefixtures("one_after_another")
def test_rows_of_one_process_that_went_on_stay_what_they_are(tmp_path: Path) -> None:
    for budget in ("quick", "standard"):
        with mock.patch.object(run, "THIS_PROCESS", budget):
            list(run.run_sweep(config(r="0,4,6", processes=1, budget=budget), tmp_path / "run", lambda: False))
    before = rows_of(tmp_path / "run")[1]
    assert (before.processes, before.sessions, before.rounds) == (1, 2, 10)
    for _ in range(3):
        fresh(tmp_path / "run", r="0,6")
    after = rows_of(tmp_path / "run")[1]
    assert (after.processes, after.speedup_vs_r0, after.speedup_vs_r0_lo) == (
        1,
        before.speedup_vs_r0,
        before.speedup_vs_r0_lo,
    )


@pytest.mark.usefixtures("one_after_another")
def test_a_refused_sweep_changes_nothing_of_a_folder(tmp_path: Path, monkeypatch) -> None:
    list(run.run_sweep(config(processes=1), tmp_path / "run", lambda: False))

    def facts() -> list[object]:
        with Store.read(tmp_path / "run") as store:
            return [store.config, store.get("processes"), store.get("budgets"), store.get("max_drop")]

    before = facts()
    load = run.load_model
    monkeypatch.setattr(run, "load_model", lambda *a, **k: dataclasses.replace(load(*a, **k), weights="sha256:other"))
    with pytest.raises(RunError, match="measured with another weights"):
        list(run.run_sweep(config(processes=5, max_drop=0.1), tmp_path / "run", lambda: False, fresh=True))
    assert facts() == before


@pytest.mark.usefixtures("one_after_another")
def test_how_long_further_processes_take_is_said(tmp_path: Path) -> None:
    list(run.run_sweep(config(processes=1), tmp_path / "run", lambda: False))
    events = run.run_sweep(config(), tmp_path / "run", lambda: False, fresh=True)
    assert ["3 processes" in event.text for event in events if isinstance(event, Estimate)] == [True]


@pytest.mark.usefixtures("one_after_another")
def test_a_run_keeps_its_limit_until_another_is_asked_for(tmp_path: Path) -> None:
    given: dict[str, Any] = {"processes": 1, "data": "digits", "model": "digits_vit", "limit": 8, "img_size": None}

    def limit(**settings: object) -> float:
        *_, last = run.run_sweep(config(**given, **settings), tmp_path / "run", lambda: False)
        assert isinstance(last, Finished)
        return last.max_drop

    assert [limit(max_drop=0.2), limit(r="0,8"), limit(max_drop=3.0)] == [0.2, 0.2, 3.0]


def test_other_settings_are_no_reason_for_as_many_processes(tmp_path: Path) -> None:
    with Store.open(tmp_path / "run", config().stored()) as store:
        store.put_cells(CELLS)
        store.put(MADE, {CODE: code_digest()})
        store.begin_session(TESTBED)
        store.add_round(Round(1, 0, ()))
    assert processes_of(tmp_path / "run", config(processes=None, batch_size=8)) == 1
