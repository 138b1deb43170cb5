"""Programs as real processes that are started in a moment: forked from one that has imported what they need."""

from __future__ import annotations

import multiprocessing
import os
import runpy
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

_CONTEXT = multiprocessing.get_context("forkserver")
_PROGRAM = ("timm.data", "tomebench.cli.app", "tomebench.report.write", "tomebench.sweeps.run")
_FIGURES = ("matplotlib.backends.backend_agg", "matplotlib.ticker")
_CONTEXT.set_forkserver_preload([*_PROGRAM, *_FIGURES])


class Forked:
    """A running program, killed and waited for as any other process.

    Args:
        command: the file of the program and its arguments.
        errors: file that what it writes to stderr goes to.
        environment: variables it has besides those of this process.
    """

    def __init__(self, command: Sequence[str], errors: Path, environment: Mapping[str, str] | None = None) -> None:
        self.errors = errors
        self._process = _CONTEXT.Process(target=_run, args=([*command], str(errors), dict(environment or {})))
        self._process.start()

    @property
    def code(self) -> int | None:
        """Exit code, minus the signal that ended it; None while it runs."""
        return self._process.exitcode

    def wait(self, seconds: float | None = None) -> int | None:
        """The exit code, None if it still runs after so many seconds."""
        self._process.join(seconds)
        return self.code

    def kill(self) -> None:
        """kill -9, and wait until it is gone."""
        self._process.kill()
        self._process.join()

    def said(self) -> str:
        """What it wrote to stderr."""
        return self.errors.read_text() if self.errors.exists() else ""


def _run(command: list[str], errors: str, environment: dict[str, str]) -> None:
    os.environ.update(environment)
    os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sys.argv = command
    runpy.run_path(command[0], run_name="__main__")
