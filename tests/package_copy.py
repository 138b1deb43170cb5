"""A copy of the package, to which a test adds what a stranger would, run as a program of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def copy_package(folder: Path) -> Path:
    """The folder of a copy of the package inside ``folder``, with the bytecode of what stays as it is."""
    return shutil.copytree(ROOT / "tomebench", folder / "tomebench", ignore=shutil.ignore_patterns("*.pyc.*"))


def run_python(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a program in a folder, with the copy of the package there, on a screen of 100 columns without colours."""
    environment = {**os.environ, "PYTHONPATH": str(folder), "COLUMNS": "100", "NO_COLOR": "1"}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
