"""Command line and environment that start another Python interpreter on this copy of the package."""

from __future__ import annotations

import os
import sys
import sysconfig
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[2]


def interpreter() -> list[str]:
    """Start of a command that runs a module of this package, even where the current folder has one of the same name."""
    return [sys.executable, "-P", "-m"]


def environment() -> dict[str, str]:
    """Environment in which another interpreter imports this copy of the package."""
    installed = {sysconfig.get_path(name) for name in ("purelib", "platlib")}
    if str(_PACKAGE) in installed:  # found anyway; in PYTHONPATH, site-packages would come before the standard library
        return {**os.environ}
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(_PACKAGE), os.environ.get("PYTHONPATH")]))}
