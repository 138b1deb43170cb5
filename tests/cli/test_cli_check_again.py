"""``tomebench check`` where it measures again or writes a baseline."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from check_runs import edit, slowed
from fault_runs import SWEEP, fast

from tomebench.errors import RunError
from tomebench.gate import judge as checking
from tomebench.gate.baseline_file import read_baseline, write_baseline
from tomebench.gate.snapshot import run_snapshot
from tomebench.runs.store import Store


def test_a_second_measurement_that_fails_excuses_nothing(program, baseline, run, monkeypatch):
    snapshot = read_baseline(baseline)
    write_baseline(baseline, slowed(snapshot, 1.0))
    monkeypatch.setattr(checking, "run_snapshot", lambda store: slowed(snapshot, 1.2))

    def fails(*arguments):
        raise RunError("no such device")

    monkeypatch.setattr(checking, "sweep_again", fails)
    result = program("check", "run", "--baseline", "base.json", "--speed")
    assert result.code == 3
    assert "could not be measured again" in result.out
    assert "no such device" in result.err


@pytest.mark.parametrize(("settings", "floor"), [({}, 0.033), ({"budget": "standard"}, None)])
def test_a_noise_floor_stays_with_a_baseline_that_was_measured_alike(program, baseline, run, settings, floor):
    old = read_baseline(baseline)
    changes = {"noise_floor": 0.033, "settings": {**old.settings, **settings}}
    write_baseline(baseline, old.model_copy(update=changes))
    assert program("check", "run", "--baseline", "base.json", "--update-baseline", "--quiet").code == 0
    assert read_baseline(baseline).noise_floor == floor


def test_an_update_never_loses_a_tier(program, baseline, run, monkeypatch):
    with Store.read(run) as store:
        snapshot = run_snapshot(store).only(["speed"])
    monkeypatch.setattr(checking, "run_snapshot", lambda store: snapshot)
    before = baseline.read_bytes()
    result = program("check", "run", "--baseline", "base.json", "--update-baseline", "--quiet")
    assert result.code == 2
    assert "also has accuracy, which would be lost" in result.error
    from tomebench.gate import static_tier as static

    monkeypatch.setattr(static, "reduced_vit", lambda *a: 1 / 0)
    result = program("check", "--static", "--baseline", "base.json", "--update-baseline", "--quiet")
    assert result.code == 2
    assert "also has static, which would be lost" in result.error
    assert baseline.read_bytes() == before


@pytest.mark.parametrize("where", ["code", "testbed"])
def test_only_the_same_code_on_the_same_machine_can_acquit(program, baseline, run, monkeypatch, where):
    snapshot = read_baseline(baseline)
    write_baseline(baseline, slowed(snapshot, 1.0))
    monkeypatch.setattr(checking, "run_snapshot", lambda store: slowed(snapshot, 1.2))
    again = slowed(snapshot, 1.0)
    if where == "code":
        monkeypatch.setattr(checking, "code_digest", lambda: "0123456789abcdef")
    else:
        speeds = (cell.speed.model_copy(update={"testbed": "elsewhere"}) for cell in again.cells)
        cells = (c.model_copy(update={"speed": s}) for c, s in zip(again.cells, speeds, strict=True))
        again = again.model_copy(update={"cells": tuple(cells)})
    monkeypatch.setattr(checking, "measure_again", lambda run, r, *_: again)
    result = program("check", "run", "--baseline", "base.json", "--speed")
    assert result.code == 3
    assert "could not be measured again" in result.out


def test_a_baseline_that_nothing_can_be_compared_with_says_so(program, run, monkeypatch):
    with Store.read(run) as store:
        snapshot = run_snapshot(store)
    short = snapshot.cells[1].speed.model_copy(update={"seconds": (0.1,) * 3, "reference": (0.1,) * 3})
    cells = (snapshot.cells[0], snapshot.cells[1].model_copy(update={"speed": short}))
    monkeypatch.setattr(checking, "run_snapshot", lambda store: snapshot.model_copy(update={"cells": cells}))
    result = program("check", "run", "--baseline", "new.json", "--update-baseline", "--speed", "--quiet")
    assert result.code == 0
    assert "! speed r=8 cannot be compared: the baseline has 3 rounds, 6 are needed" in result.out
    assert "so no later run can pass as it is: measure again with a larger --budget" in " ".join(result.out.split())


@pytest.mark.parametrize(("again", "code", "says"), [(1.2, 3, "measured again"), (1.0, 0, "at first")])
def test_a_slow_down_is_measured_again(program, baseline, run, monkeypatch, again, code, says):
    snapshot = read_baseline(baseline)
    write_baseline(baseline, slowed(snapshot, 1.0))
    monkeypatch.setattr(checking, "run_snapshot", lambda store: slowed(snapshot, 1.2))
    asked = []
    monkeypatch.setattr(checking, "measure_again", lambda run, r, *_: asked.append(r) or slowed(snapshot, again))
    result = program("check", "run", "--baseline", "base.json", "--speed", "--quiet")
    assert (result.code, asked) == (code, [{8}])
    assert says in " ".join(result.out.split())
    result = program("check", "run", "--baseline", "base.json", "--speed", "--no-confirm", "--quiet")
    assert (result.code, asked) == (3, [{8}])


def test_one_slow_cell_of_several_with_the_same_r_is_named(program, monkeypatch):
    fast(monkeypatch, rounds=6)
    assert program(*SWEEP, "--metric", "k,q").code == 0
    assert program("check", "run", "--baseline", "base.json", "--update-baseline", "--quiet").code == 0
    snapshot = read_baseline(Path("base.json"))
    names = [cell.name for cell in snapshot.cells]
    assert names == ["r=0", "r=8", "r=8 metric=q"]
    write_baseline(Path("base.json"), slowed(snapshot, 1.0))
    slow = slowed(snapshot, 1.2, names[2])
    monkeypatch.setattr(checking, "run_snapshot", lambda store: slow)
    monkeypatch.setattr(checking, "measure_again", lambda *_: slow)
    result = program("check", "run", "--baseline", "base.json", "--speed", "--quiet")
    assert result.code == 3, result
    verdicts = [line.split()[1:] for line in result.out.splitlines() if line.startswith("speed ")]
    assert verdicts == [["all", "r", "FAIL"], ["r=0", "ok"], ["r=8", "ok"], ["r=8", "metric=q", "FAIL"]]
    assert "speed r=8 metric=q: speed-up over r = 0: 1.000x -> 0.833x" in " ".join(result.out.split())


def test_a_self_check_prints_the_noise_floor_and_refuses_a_tolerance_under_it(program, baseline, run, monkeypatch):
    snapshot = read_baseline(baseline)
    monkeypatch.setattr(checking, "run_snapshot", lambda store: slowed(snapshot, 1.0))
    monkeypatch.setattr(checking, "measure_again", lambda run, r, *_: slowed(snapshot, 1.02))
    command = ("check", "run", "--self-check", "--quiet")
    assert program(*command).out.startswith("noise floor of the speed-ups: 2.0 %; --tolerance must be above it\n")
    result = program(*command, "--tolerance", "1")
    assert result.code == 2
    assert "the noise floor of this run is 2.0 %" in result.error
    assert program(*command, "--update-baseline", "--baseline", "base.json").code == 0
    assert read_baseline(baseline).noise_floor == pytest.approx(0.02)
    result = program("check", "run", "--baseline", "base.json", "--speed", "--tolerance", "1", "--quiet")
    assert result.code == 2
    assert "under the noise floor of this baseline" in result.error


def test_a_self_check_needs_no_baseline(program, run, monkeypatch):
    with Store.read(run) as store:
        snapshot = run_snapshot(store)
    monkeypatch.setattr(checking, "run_snapshot", lambda store: slowed(snapshot, 1.0))
    monkeypatch.setattr(checking, "measure_again", lambda run, r, *_: slowed(snapshot, 1.02))
    result = program("check", "run", "--self-check", "--json", "--quiet")
    about = {"noise_floor": pytest.approx(0.02), "written": None, "tiers": ["accuracy", "speed"]}
    found = json.loads(result.out)
    (doubt,) = found.pop("doubts")
    assert found == about
    assert doubt.startswith("this run timed without --processes: what differs between processes is in no interval")


def test_a_run_of_one_process_is_checked_against_several_which_tell_how_they_scatter(program, run, monkeypatch):
    asked = []

    def again(settings, r, out, should_stop):
        asked.append(settings["processes"])
        raise RunError("no more")

    monkeypatch.setattr(checking, "sweep_again", again)
    assert program("check", "run", "--self-check", "--quiet").code == 2
    assert asked == [5]


def test_the_static_tier_of_a_baseline_is_brought_up_to_date_without_a_run(program, baseline, run):
    intact = read_baseline(baseline)
    shutil.rmtree(run)
    edit(baseline, static=intact.cells[-1].static.model_copy(update={"gmacs": 1.0}))
    assert program("check", "--static", "--baseline", "base.json", "--quiet").code == 3
    result = program("check", "--static", "--baseline", "base.json", "--update-baseline", "--quiet")
    assert result.code == 0
    assert result.out.startswith("written: base.json (2 cells: static, accuracy, speed)\n")
    assert read_baseline(baseline) == intact
    edit(baseline, asked=intact.cells[-1].asked.model_copy(update={"weights": "random:7"}))
    result = program("check", "--static", "--baseline", "base.json", "--update-baseline", "--quiet")
    assert result.code == 4
    assert "of another model, weights or r" in result.error


@pytest.mark.slow
def test_measuring_again_is_a_real_run_in_a_process_of_its_own(run):
    again = checking.measure_again(run, {8}, None, checking._unwatched)
    assert [cell.name for cell in again.cells] == ["r=0", "r=8"]
    assert all(cell.speed is not None and len(cell.speed.seconds) >= 6 for cell in again.cells)
