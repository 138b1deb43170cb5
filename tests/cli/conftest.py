"""Run the program in this process, and an engine that says what a test wants it to say."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType

import pytest
from cli_program import BASE, MERGED, Result

from tomebench.cli import app
from tomebench.schema import Row
from tomebench.sweeps.events import Finished, Note, Phase, Planned, Progress


@pytest.fixture
def program(capsys, tmp_path, monkeypatch) -> Callable[..., Result]:
    """Run a command line in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> Result:
        capsys.readouterr()
        code = app.run(arguments)
        return Result(code, *capsys.readouterr())

    return call


@pytest.fixture
def engine(monkeypatch) -> Callable[..., None]:
    """Replace the engine by one that ends with the given rows, or that raises after its first round."""

    def install(*rows: Row, error: BaseException | None = None) -> None:
        def run_sweep(config, directory, should_stop):
            assert not should_stop()
            yield Phase("load", None)
            yield Planned(len(rows), config.model, 2, 0)
            yield Note("batch size 4 [chosen]")
            yield Phase("timing", 6.0)
            yield Progress("timing", 3.0, 6.0, "rounds", "widest interval ±2.0%")
            if error is not None:
                raise error
            yield Finished(rows or (BASE, MERGED), directory)

        fake = ModuleType("tomebench.sweeps.run")
        fake.run_sweep = run_sweep  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "tomebench.sweeps.run", fake)

    return install
