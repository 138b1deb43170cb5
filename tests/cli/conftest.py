"""Run the program in this process, and an engine that says what a test wants it to say."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from check_runs import HERE
from cli_program import BASE, MERGED, Result
from even_clock import EvenClock
from fault_runs import EVERY_PHASE, fast

from tomebench.cli import app
from tomebench.measure import testbed
from tomebench.runs.row import Row
from tomebench.sweeps import timing
from tomebench.sweeps.config_files import load_config
from tomebench.sweeps.events import Finished, Note, Phase, Planned, Progress


@pytest.fixture(autouse=True)
def eighty_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same screen whoever runs the tests."""
    monkeypatch.setenv("COLUMNS", "80")


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
        def run_sweep(config, directory, should_stop, facts=(), boards=None):
            assert not should_stop()
            yield Phase("load", None)
            yield Planned(len(rows), config.model, 2, 0)
            yield Note("batch size 4 [chosen]")
            yield Phase("timing", 6.0)
            yield Progress("timing", 3.0, 6.0, "rounds", "widest interval ±2.0%")
            if error is not None:
                raise error
            yield Finished(rows or (BASE, MERGED), directory, max_drop=config.max_drop)

        fake = ModuleType("tomebench.sweeps.run")
        fake.run_sweep = run_sweep  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "tomebench.sweeps.run", fake)

    return install


@pytest.fixture(scope="session")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the demo model on 60 of its images."""
    from tomebench.sweeps.run import run_sweep

    settings = {"model": "digits_vit", "data": "digits", "limit": 60, "r": "0,8", "batch_size": 30, "device": "cpu"}
    config = load_config([], {**settings, "budget": "quick", "workers": 0})
    path = tmp_path_factory.mktemp("runs") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timing, "clock_for", lambda device: EvenClock())
        patch.setattr(testbed, "git_here", lambda: HERE)
        for _ in run_sweep(config, path, lambda: False):
            pass
    return path


@pytest.fixture
def run(measured: Path, tmp_path: Path) -> Path:
    """That run, in the folder of the test."""
    return Path(shutil.copytree(measured, tmp_path / "run"))


@pytest.fixture
def baseline(run: Path, tmp_path: Path, program) -> Path:
    """A baseline of that run, written by the program."""
    path = tmp_path / "base.json"
    result = program("check", "run", "--baseline", "base.json", "--update-baseline", "--quiet")
    assert (result.code, result.err) == (0, "")
    written, *remarks = result.out.splitlines()
    assert written == "written: base.json (2 cells: static, accuracy, speed)"
    assert remarks[0].startswith("! this run timed without --processes: ")
    return path


@pytest.fixture
def quick_sweeps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Real sweeps in a moment."""
    fast(monkeypatch)


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of all phases that nothing happened to; not to be changed."""
    path = tmp_path_factory.mktemp("undisturbed") / "run"
    with pytest.MonkeyPatch.context() as patch:
        fast(patch)
        assert app.run([*EVERY_PHASE, "--out", str(path), "--traceback"]) == 0
    return path


@pytest.fixture
def earlier(undisturbed: Path, program: Callable[..., Result], quick_sweeps: None) -> Path:
    """That run as the folder ``run`` of the test."""
    return Path(shutil.copytree(undisturbed, "run"))


@pytest.fixture
def its_baseline(earlier: Path, program: Callable[..., Result]) -> Path:
    """A baseline of that run."""
    assert program("check", "run", "--baseline", "base.json", "--update-baseline", "--quiet").code == 0
    return Path("base.json")
