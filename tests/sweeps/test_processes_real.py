"""The processes in which speed is measured: how they are started, heard and stopped, and how they end."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from forked import Forked
from noisy_images import write_data
from several_processes import config, rows_of

from tomebench.errors import ConfigError, DataError, Interrupted, RankError, RunError, TomebenchError
from tomebench.runs.store import Store
from tomebench.sweeps import processes, run
from tomebench.sweeps.events import Event, Finished, Note, Phase, Planned, Progress

HERE = Path(__file__).parent
ODD = "hurried_fresh"


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let real processes be those of ``hurried_fresh.py``."""
    monkeypatch.setattr(processes, "MODULE", ODD)
    monkeypatch.setenv("PYTHONPATH", str(HERE))


@pytest.mark.usefixtures("hurried")
def test_a_folder_is_taken_also_between_two_of_its_processes(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("ODD", "two")
    Store.open(tmp_path / "run", config(processes=2).stored()).close()
    events = run.run_sweep(config(processes=2), tmp_path / "run", lambda: False)
    next(events)
    for count in (2, 1):
        with pytest.raises(RunError, match="is in use by process"):
            list(run.run_sweep(config(processes=count), tmp_path / "run", lambda: False))
    assert isinstance([*events][-1], Finished)


def test_a_folder_that_stays_empty_is_taken_away(tmp_path: Path) -> None:
    with pytest.raises(TomebenchError):
        list(run.run_sweep(config(model="no_such_model"), tmp_path / "run", lambda: False))
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize(
    ("how", "error", "words"),
    [
        ("killed", RankError, "was ended by SIGKILL; what was measured is kept"),
        ("broken", RuntimeError, "ended with 1: ZeroDivisionError: a bug"),
        ("silent", RuntimeError, "ended with 0: a library talks"),
        ("full", OSError, "No space left"),
        ("odd", OSError, "^the disk is odd$"),
        ("refused", DataError, "^no such images$"),
    ],
)
def test_how_a_process_ends_is_said(tmp_path: Path, monkeypatch, how, error, words) -> None:
    monkeypatch.setenv("ODD", how)
    events = run.run_sweep(config(), tmp_path / "run", lambda: False)
    assert next(events) == Note("a note")
    with pytest.raises(error, match=f"(?s){words}"):
        next(events)


def test_none_is_started_once_it_is_to_stop(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(processes, "MODULE", "no_such_module")
    with pytest.raises(Interrupted):
        list(run.run_sweep(config(), tmp_path / "run", lambda: True))


def test_a_module_and_several_processes_do_not_go_together(tmp_path: Path, monkeypatch) -> None:
    from tomebench.models.create import build_model

    given = build_model(config().model_spec, meta=True)
    with pytest.raises(ConfigError, match="a module that is handed over lives in this one"):
        list(run.run_sweep(config(), tmp_path / "run", lambda: False, given=given))
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR"):
        monkeypatch.setenv(name, "0" if "SIZE" not in name else "2")
    with pytest.raises(ConfigError, match="count top-1 in the same folder with --budget none"):
        list(run.run_sweep(config(), tmp_path / "run", lambda: False))


@pytest.mark.usefixtures("hurried")
def test_what_processes_say_alike_is_said_once_and_progress_names_them(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("ODD", "two")
    Store.open(tmp_path / "run", config(processes=2).stored()).close()
    events = list(run.run_sweep(config(processes=2), tmp_path / "run", lambda: False))
    assert [event.text for event in events if isinstance(event, Note)] == ["the same", "first", "next"]
    assert [event.resumed_rounds for event in events if isinstance(event, Planned)] == [0]
    assert events.count(Phase("load", None)) == 2
    assert [event.detail for event in events if isinstance(event, Progress)] == [
        *("process 1 of 2", "process 1 of 2, narrow"),
        *("process 2 of 2", "process 2 of 2, narrow"),
    ]
    assert isinstance(events[-1], Finished)


@pytest.mark.usefixtures("hurried")
def test_a_real_process_stops_when_it_is_told_to_and_keeps_its_rounds(tmp_path: Path) -> None:
    events: list[Event] = []
    stopped = run.run_sweep(config(processes=2), tmp_path / "run", lambda: Phase("timing", None) in events)
    with pytest.raises(Interrupted):
        events.extend(stopped)
    assert not is_in_use(tmp_path / "run")


@pytest.mark.slow
def test_a_kill_ends_the_process_that_measures_and_loses_nothing(tmp_path: Path) -> None:
    found = {"PYTHONPATH": str(HERE)}  # where its fresh processes are
    data = write_data(tmp_path, range(0, 8))
    flags = "--model test_vit --device cpu --batch-size 4 --budget quick --workers 0 --threads 1 --quiet --r 0,4"
    command = [str(HERE / "processes_program.py"), "sweep", *flags.split(), *data, "--processes", "2"]
    command += ["--out", str(tmp_path / "run")]
    parent = Forked(command, tmp_path / "errors", found)
    deadline = time.monotonic() + 600
    while not (tmp_path / "run").exists() or not rounds_in(tmp_path / "run"):
        assert parent.code is None, parent.said()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    parent.kill()
    while is_in_use(tmp_path / "run"):  # until the process without a parent has noticed
        assert time.monotonic() < deadline
        time.sleep(0.05)
    kept = rounds_in(tmp_path / "run")
    assert kept > 0

    again = Forked(command, tmp_path / "errors", found)
    assert (again.wait(600), again.said()) == (0, "")
    rows = rows_of(tmp_path / "run")
    assert [row.processes for row in rows] == [2, 2]
    assert [row.n_seen for row in rows] == [8, 8]
    assert rounds_in(tmp_path / "run") >= kept + 6


def rounds_in(directory: Path) -> int:
    try:
        with Store.read(directory) as store:
            return len(store.rounds())
    except TomebenchError:  # it is just being made
        return 0


def is_in_use(directory: Path) -> bool:
    """Some process holds the lock of a run."""
    from tomebench.errors import RunError
    from tomebench.runs.lock import RunLock

    try:
        RunLock.acquire(directory).__exit__(None, None, None)
    except RunError:
        return True
    return False
