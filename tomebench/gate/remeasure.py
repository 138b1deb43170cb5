"""Measure some cells of a stored run again, with the same code, as a sweep in a process of its own."""

from __future__ import annotations

import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from tomebench.errors import Interrupted, RunError
from tomebench.reduction.schedule import lists_every_r
from tomebench.sweeps.config import command_line
from tomebench.sweeps.interpreter import environment, interpreter


def sweep_words(settings: Mapping[str, Any], r: Collection[int], out: Path) -> list[str]:
    """Command-line words after ``tomebench`` of a sweep that times some cells of another one, and r = 0.

    Args:
        settings: of that other sweep, with its batch size as a number.
        r: values of r to time; where every schedule is a list, this has no effect.
        out: run folder.
    """
    settings = {**settings, "end_to_end": False}
    if settings.get("data") is not None:  # images are the input of the timed passes; nothing is evaluated
        settings["limit"] = min(settings.get("limit") or sys.maxsize, max(4 * settings["batch_size"], 64))
    if not lists_every_r(str(settings["schedule"])):
        settings["r"] = ",".join(map(str, sorted({0, *r})))
    return [*shlex.split(command_line(settings))[1:], "--out", str(out), "--quiet"]


def sweep_again(
    settings: Mapping[str, Any], r: Collection[int], out: Path, should_stop: Callable[[], bool], poll: float = 0.5
) -> int:
    """Run the sweep of :func:`sweep_words` in a process of its own, with this copy of the package.

    Args:
        settings, r, out: as in :func:`sweep_words`.
        should_stop: asked every ``poll`` seconds.
        poll: seconds between two checks.

    Returns:
        The exit code: 0, or 5 if some cell failed, as its record says, or the result is incomplete.

    Raises:
        Interrupted: ``should_stop()`` became true, or the process was interrupted; it has ended.
        RunError: it ended without a result.
    """
    command = [*interpreter(), "tomebench", *sweep_words(settings, r, out)]
    log = out.with_suffix(".log")
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=file, env=environment())
        try:
            while process.poll() is None and not should_stop():
                time.sleep(poll)
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
    if should_stop() or process.returncode == Interrupted.exit_code:
        raise Interrupted("interrupted while measuring once more")
    if process.returncode not in (0, 5):
        lines = log.read_text(errors="replace").strip().splitlines() or [f"exit {process.returncode}"]
        raise RunError(f"it cannot be measured once more here ({lines[-1][:200]}); use --no-confirm")
    return process.returncode
