"""Small real sweeps through the command line, and ways to let them go wrong."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from cli_program import Result
from even_clock import EvenClock

from tomebench.measure import speed
from tomebench.runs import budget as budgets
from tomebench.runs import database
from tomebench.runs.store import Store
from tomebench.sweeps import passes, pipeline, run, timing
from tomebench.sweeps.events import Event, Phase, Progress

_SETTINGS = "--model digits_vit --r 0,8 --device cpu --threads 1 --batch-size 2 --budget quick --workers 0"
SWEEP = ("sweep", *_SETTINGS.split(), "--quiet", "--out", "run")
"""A sweep in the folder ``run``; a later flag of the same name wins."""
DIGITS = (*SWEEP, "--data", "digits", "--limit", "6", "--img-size", "28")
"""The same, evaluated on three batches of two images, each of a quarter of the tokens."""
EVERY_PHASE = (*DIGITS, "--compile", "--end-to-end")
ACCURACY = ("r", "n_seen", "top1_correct", "top5_correct", "ties", "top1", "delta_top1", "delta_top1_lo", "status")


class TickingClock(EvenClock):
    """Half a second passes whenever somebody looks."""

    def now(self) -> float:
        self.time += 0.5
        return self.time


def fast(patch: pytest.MonkeyPatch, rounds: int = 2) -> None:
    """Let sweeps take a fraction of a second: two rounds on a clock that charges a millisecond for each step.

    What only costs time here is replaced: the compiler, the profiler that watches memory, and the figure.
    """
    patch.setattr(timing, "clock_for", lambda device: EvenClock())
    patch.setattr(pipeline, "clock_for", lambda device: TickingClock())
    patch.setattr(timing, "peak_bytes", lambda step, device, index: 2**20)
    patch.setattr(passes, "compiled", lambda model: model)
    patch.setattr("tomebench.report.write.speed_accuracy_figure", lambda *arguments, **_: "no figure")
    patch.setattr(speed, "WINDOW", 1)
    patch.setitem(budgets.BUDGETS, "quick", budgets.Budget("quick", rounds, 1e9, 1.0))  # type: ignore[arg-type]


def table(folder: Path, *names: str) -> list[dict[str, Any]]:
    """Columns of the table of a run, by default all that tell its accuracy."""
    rows = [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]
    return [{name: row[name] for name in names or ACCURACY} for row in rows]


def tree(folder: Path) -> dict[str, bytes | None]:
    """Every file below a folder with its content, and every folder."""
    return {
        os.fsdecode(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


def refused(program: Callable[..., Result], *arguments: str, code: int = 2) -> str:
    """The line with which the program refuses a command: documented exit code, no traceback, nothing changed."""
    before = tree(Path.cwd())
    result = program(*arguments)
    assert (result.code, result.out) == (code, ""), result
    assert result.error.startswith("tomebench: error: ")
    assert result.error.isprintable()
    assert len(result.error) < 1200
    assert tree(Path.cwd()) == before
    return result.error


@contextmanager
def at_phase(phase: str, units: int, action: Callable[[], object]) -> Iterator[None]:
    """Within the context, do something once as a phase of a sweep begins, or after so many of its units of work.

    Raises:
        AssertionError: the phase never came.
    """
    seen: list[str] = []
    real, real_peak = run.run_sweep, timing.peak_bytes

    def watched(*arguments: Any, **named: Any) -> Iterator[Event]:
        for event in real(*arguments, **named):
            if isinstance(event, Phase | Progress):
                reach(event.name if isinstance(event, Phase) else event.phase)
            yield event

    def peak(*arguments: Any) -> int | None:
        reach("memory")
        return real_peak(*arguments)

    def reach(name: str) -> None:
        if name == phase:
            seen.append(name)
            if len(seen) == units + 1:
                action()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "run_sweep", watched)
        patch.setattr(timing, "peak_bytes", peak)
        yield
    assert len(seen) > units, f"the phase {phase} has {len(seen)} moments, not {units + 1}"


class Commits:
    """Counts what is committed to stores, and lets the disk be full at the one of that number, from 1."""

    def __init__(self, full_at: int = 0) -> None:
        self.full_at, self.done = full_at, 0

    @contextmanager
    def transaction(self, connection: sqlite3.Connection) -> Iterator[None]:
        """In place of ``database.transaction``, which rolls back what was written before the disk was full."""
        with self._real(connection):
            yield
            if self.done + 1 == self.full_at:
                error = sqlite3.OperationalError("database or disk is full")
                error.sqlite_errorcode = sqlite3.SQLITE_FULL
                raise error
        self.done += 1

    def __enter__(self) -> Commits:
        self._real = database.transaction
        self._patch = pytest.MonkeyPatch()
        self._patch.setattr(database, "transaction", self.transaction)
        return self

    def __exit__(self, *error: object) -> None:
        self._patch.undo()
        assert self.full_at <= self.done + 1, f"there were {self.done} commits, none of number {self.full_at}"


def kept(folder: Path) -> tuple[list[Any], dict[int, Any]]:
    """Rounds and evaluated batches of a store; of none where there is no store."""
    if not (folder / database.FILE).exists():
        return [], {}
    with Store.read(folder) as store:
        chunks = {index: store._select("predictions", "WHERE chunk = ?", index) for index in store.done_chunks()}
        return store.rounds(), chunks


def assert_nothing_lost(folder: Path, before: tuple[list[Any], dict[int, Any]]) -> None:
    """What was kept is still there, bit by bit."""
    rounds, chunks = kept(folder)
    assert rounds[: len(before[0])] == before[0]
    assert {index: chunks.get(index) for index in before[1]} == before[1]
