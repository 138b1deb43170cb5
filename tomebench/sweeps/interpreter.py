"""Another interpreter that runs this package: its words and its environment."""

from __future__ import annotations

import os
import sys
import sysconfig
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[2]


def interpreter() -> list[str]:
    """Words that run a module of this package: one of the same name in the current folder is not the one that runs."""
    return [sys.executable, "-P", "-m"]


def environment() -> dict[str, str]:
    """That of this process, in which another interpreter finds the package that runs here."""
    installed = {sysconfig.get_path(name) for name in ("purelib", "platlib")}
    if str(_PACKAGE) in installed:  # it finds that anyway, and everything else there must not come before its library
        return {**os.environ}
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(_PACKAGE), os.environ.get("PYTHONPATH")]))}
