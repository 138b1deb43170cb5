"""The gate on the machine at hand: real sweeps of the demo at the standard budget. An hour on a machine left alone."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import tomebench

PACKAGE = Path(tomebench.__file__).parent

SLOWER = """

def _slowed(self, images, forward=ReducedViT.forward):
    import time

    start = time.perf_counter()
    logits = forward(self, images)
    if any(self.r_layers):
        end = time.perf_counter()
        while time.perf_counter() < end + 0.2 * (end - start):
            pass
    return logits


ReducedViT.forward = _slowed
"""
"""A merged pass that takes a fifth longer."""


def program(root: Path, *words: str) -> tuple[int, str]:
    """Exit code and output of the program whose package lies in ``root``."""
    command = [sys.executable, "-m", "tomebench", *words]
    environment = {**os.environ, "PYTHONPATH": str(root), "NO_COLOR": "1", "COLUMNS": "160"}
    done = subprocess.run(command, env=environment, cwd=root, capture_output=True, text=True, check=False)
    print(*command[2:], f"exit {done.returncode}", done.stdout, done.stderr, sep="\n")
    return done.returncode, done.stdout


@pytest.mark.bench
def test_the_same_code_passes_both_ways_and_a_fifth_slower_fails(tmp_path: Path) -> None:
    intact, slow = PACKAGE.parent, tmp_path / "slow"
    shutil.copytree(PACKAGE, slow / "tomebench", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(PACKAGE.parent / "configs", slow / "configs")
    with (slow / "tomebench" / "reduction" / "vit.py").open("a") as file:
        file.write(SLOWER)
    runs = {"one": (intact, []), "two": (intact, []), "slower": (slow, ["--r", "0,12", "--method", "tome"])}
    for name, (root, r) in runs.items():
        code, _ = program(root, "demo", *r, "--budget", "standard", "--out", str(tmp_path / name), "--quiet")
        assert code == 0
        baseline = str(tmp_path / f"{name}.json")
        code, _ = program(root, "check", str(tmp_path / name), "--baseline", baseline, "--update-baseline", "--quiet")
        assert code == 0
    for run, baseline in (("one", "two"), ("two", "one")):
        code, said = program(intact, "check", str(tmp_path / run), "--baseline", str(tmp_path / f"{baseline}.json"))
        assert code == 0, said
        assert "speed" in said
    code, said = program(slow, "check", str(tmp_path / "slower"), "--baseline", str(tmp_path / "one.json"))
    assert code == 3
    failed = [line for line in said.splitlines() if "FAIL" in line and line.strip().startswith("speed")]
    assert [line.split()[1] for line in failed] == ["r=12"], said
    assert all("measured again" in line for line in failed)
