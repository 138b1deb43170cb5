"""The CUDA study's script: what it runs, and that it never takes a failure for something that did not fit."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "configs" / "speed_cuda.sh"
pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")


def study(tmp_path: Path, program: str, only: str = "vit_b_16_bf16_batch64") -> tuple[int, str, list[str]]:
    """Exit code, last line on stderr and the command lines, with a shell script in place of the program."""
    fake = tmp_path / "program"
    fake.write_text(f'#!/bin/sh\necho "$@" >> "{tmp_path}/calls"\n{program}\n')
    fake.chmod(0o755)
    done = subprocess.run(
        ["bash", str(SCRIPT), str(fake)],
        cwd=tmp_path, env={**os.environ, "ONLY": only}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    calls = tmp_path / "calls"
    return done.returncode, done.stderr.splitlines()[-1], calls.read_text().splitlines() if calls.exists() else []


def test_a_subset_is_measured(tmp_path: Path) -> None:
    code, last, calls = study(tmp_path, "exit 0", only="vit_[sbl]_16_bf16_batch(64|256)_compiled$")
    assert (code, len(calls)) == (0, 6)
    assert last == "6 runs measured, 0 skipped (memory, or no kernel), 0 failed"
    assert all("--compile" in call and "--dtype bf16" in call for call in calls)


def test_every_run_has_a_folder_of_its_own(tmp_path: Path) -> None:
    code, last, calls = study(tmp_path, "exit 0", only="")
    folders = [call.partition("--out ")[2].split()[0] for call in calls]
    assert (code, len(set(folders))) == (0, len(folders))
    assert last.startswith(f"{len(folders)} runs measured")


@pytest.mark.parametrize(
    ("program", "code", "counts"),
    [
        ("exit 1", 1, "0 runs measured, 0 skipped (memory, or no kernel), {n} failed"),
        ("exit 5", 1, "0 runs measured, 0 skipped (memory, or no kernel), {n} failed"),
        ("echo 'tomebench: error: device cuda: 0 CUDA devices' >&2; exit 2", 1, "{n} failed"),
        ("echo 'tomebench: error: ...; use a smaller --batch-size' >&2; exit 2", 1, "0 runs measured, {n} skipped"),
        ("case \"$*\" in *train*) echo 'x has no kernel here' >&2; exit 2;; esac", 0, "2 skipped"),
    ],
)
def test_only_lack_of_memory_or_of_a_kernel_is_skipped(tmp_path: Path, program: str, code: int, counts: str) -> None:
    found, last, calls = study(tmp_path, program, only="vit_b_16_bf16_batch64_(train_)?(compiled|eager)$")
    assert len(calls) == 4
    assert found == code
    assert counts.format(n=4) in last


def test_an_interruption_ends_it(tmp_path: Path) -> None:
    code, _, calls = study(tmp_path, "exit 130")
    assert (code, len(calls)) == (130, 1)
