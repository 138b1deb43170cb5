"""Measuring a sweep once more: which command that is, and what becomes of its process."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

import tomebench
from tomebench.errors import Interrupted, RunError
from tomebench.gate import remeasure as again
from tomebench.sweeps.config_files import load_config


def words(tmp_path: Path, cells: set[int], **settings: Any) -> list[str]:
    config = load_config([], {"model": "digits_vit", "device": "cpu", "batch_size": 8, **settings})
    return again.sweep_words(config.stored(), cells, tmp_path / "run")


def value(of: list[str], flag: str) -> str | None:
    return of[of.index(flag) + 1] if flag in of else None


def test_only_the_cells_asked_for_and_the_baseline_are_timed(tmp_path: Path) -> None:
    found = words(tmp_path, {8, 4}, r="0..24", schedule="decreasing", dtype="bf16", budget="publish", seed=3)
    assert found[0] == "sweep"
    assert value(found, "--r") == "0,4,8"
    for flag, said in (("--model", "digits_vit"), ("--schedule", "decreasing"), ("--dtype", "bf16"), ("--seed", "3")):
        assert value(found, flag) == said
    assert value(found, "--budget") == "publish"
    assert value(found, "--out") == str(tmp_path / "run")


def test_a_list_schedule_is_one_cell(tmp_path: Path) -> None:
    found = words(tmp_path, {4}, schedule="list:8,8,0,0,8,0")
    assert value(found, "--schedule") == "list:8,8,0,0,8,0"
    assert "--r" not in found


@pytest.mark.parametrize(("limit", "images"), [(None, "64"), (10, "10"), (500, "64")])
def test_images_are_input_and_not_evaluated_all_over(tmp_path: Path, limit: int | None, images: str) -> None:
    found = words(tmp_path, {8}, r="0,8", data="digits", limit=limit, end_to_end=True)
    assert value(found, "--limit") == images
    assert "--end-to-end" not in found
    large = words(tmp_path, {8}, r="0,8", data="digits", batch_size=64)
    assert value(large, "--limit") == "256"


def test_every_word_is_understood(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command line parses, also with every switch turned."""
    from tomebench.cli.app import run

    settings = {"r": "0,8", "prop_attn": False, "ceiling": True, "prefix_only": True, "attention": "matmul"}
    settings |= {"metric": "k,q"}
    found = words(tmp_path, {8}, threads=1, img_size=56, **settings)
    assert run([*found, "--model", "no_such_model"]) == 2
    assert "no_such_model" in capsys.readouterr().err  # it is the model that is refused, no word before it


def fake_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Let a shell script stand in for the interpreter."""
    path = tmp_path / "python"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(path))


def settings() -> dict[str, Any]:
    return load_config([], {"model": "digits_vit", "r": "0,8", "device": "cpu", "batch_size": 8}).stored()


def test_the_package_that_runs_here_is_the_one_that_measures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    fake_python(tmp_path, monkeypatch, f'echo "$PYTHONPATH $1 $2 $3" > {tmp_path}/said')
    again.sweep_again(settings(), {8}, tmp_path / "new" / "run", lambda: False, poll=0.01)
    here = Path(tomebench.__file__).resolve().parents[1]
    assert (tmp_path / "said").read_text() == f"{here}{os.pathsep}/elsewhere -P -m tomebench\n"


@pytest.mark.parametrize(("code", "error"), [(0, None), (5, None), (130, Interrupted), (1, RunError), (2, RunError)])
def test_how_it_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, error: type[Exception] | None) -> None:
    fake_python(tmp_path, monkeypatch, f"echo first >&2; echo last words >&2; exit {code}")
    if error is None:
        assert again.sweep_again(settings(), {8}, tmp_path / "run", lambda: False, poll=0.01) == code
        return
    with pytest.raises(error) as caught:
        again.sweep_again(settings(), {8}, tmp_path / "run", lambda: False, poll=0.01)
    if error is RunError:
        assert "(last words)" in str(caught.value)


def test_it_does_not_outlive_who_asked_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_python(tmp_path, monkeypatch, f"echo $$ > {tmp_path}/pid; exec sleep 600")
    pid = tmp_path / "pid"
    with pytest.raises(Interrupted):
        again.sweep_again(settings(), {8}, tmp_path / "run", lambda: pid.exists() and bool(pid.read_text()), poll=0.01)
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)
