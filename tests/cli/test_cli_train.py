"""Trained predictors on the command line: what is refused, and what a sweep with them says of itself."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from reduction.learned_files import random_predictors, write_predictors

from tomebench.compare.lines import comparisons
from tomebench.compare.read import read_runs
from tomebench.reduction.learned import read_learned

pytestmark = pytest.mark.usefixtures("quick_sweeps")

TRAIN = ("train-predictors", "--model", "digits_vit", "--data", "digits-train", "--out", "out", "--device", "cpu")
SWEEP = ("sweep", "--model", "digits_vit", "--device", "cpu", "--batch-size", "4", "--budget", "none", "--quiet")
SCHEDULE = "list:0,98,0,49,0,25,0,0"


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (("--keep", "1"), "--keep 1: give a share above 0 and below 1"),
        (("--keep", "nan"), "--keep nan: give a share above 0 and below 1"),
        (("--epochs", "0"), "--epochs 0: give a whole number from 1"),
        (("--steps", "3", "--epochs", "3"), "--epochs and --steps both say how long; drop one of them"),
        (("--lr", "inf"), "--lr inf: give a rate above 0"),
        (("--batch-size", "0"), "--batch-size 0: give a whole number"),
        (("--seed", "-1"), "--seed -1: give a whole number"),
        (("--limit", "0"), "--limit 0: give 1 or more images"),
        (("--blocks", "3,x"), "--blocks '3,x': give numbers of blocks such as 3,6,9"),
        (("--blocks", "4,2"), "cannot stand before the blocks 4,2 of a model of 8 blocks; give blocks from 1 to 7"),
        (("--data", "digits"), "top-1 is counted on these images; train on the others, --data digits-train"),
        (("--data", "absent"), "no such folder"),
        (("--model", "test_vit", "--checkpoint", "absent"), "no such file"),
    ],
)
def test_what_cannot_be_trained_is_one_line(program, given, says):
    result = program(*TRAIN, *given)
    assert result.code == 2
    assert says in result.error


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (("--method", "dynamicvit", "--r", "4"), "never run with random ones; give --predictors FILE"),
        (("--method", "tome", "--predictors", "p"), "predictors are weights of a trained method, and tome is none"),
        (("--method", "dynamicvit", "--predictors", "absent", "--r", "4"), "predictors absent: No such file"),
        (("--method", "tome,dynamicvit", "--predictors", "p", "--r", "4"), f"in block 0; use --schedule {SCHEDULE}"),
    ],
)
def test_what_cannot_be_swept_is_one_line(program, given, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_predictors(Path("p"), random_predictors([2, 4, 6], 64), keep=0.5)
    result = program(*SWEEP, "--data", "digits", "--limit", "8", *given)
    assert result.code == 2
    assert says in result.error


def test_a_sweep_says_what_was_trained(program, tmp_path, monkeypatch):
    """Only the rows that predictors decide are trained; compared lines keep the two apart; other weights are said."""
    monkeypatch.chdir(tmp_path)
    file = write_predictors(Path("p.safetensors"), random_predictors([2, 4, 6], 64), keep=0.5, weights="sha256:other")
    asked = ("--method", "tome,dynamicvit", "--predictors", str(file), "--schedule", SCHEDULE, "--out", "run")
    result = program(*SWEEP[:-1], "--data", "digits", "--limit", "8", *asked)
    assert result.code == 0, result.err
    assert "trained with other weights of the model, sha256:other" in result.err
    rows = list(csv.DictReader(Path("run/table.csv").read_text().splitlines()))
    assert [(row["method"], row["r"], row["training"]) for row in rows] == [
        ("tome", "0", "off-the-shelf"), ("tome", "22", "off-the-shelf"), ("dynamicvit", "22", "trained")
    ]  # fmt: skip
    digest = read_learned(file).digest
    assert f"predictors={digest}" in rows[2]["options"]
    assert all("predictors" not in row["options"] for row in rows[:2])
    (found,) = comparisons(read_runs([Path("run")])[0])
    assert {line.method: line.training for line in found.lines} == {"tome": "off-the-shelf", "dynamicvit": "trained"}
    before = Path("run/table.csv").read_bytes()
    write_predictors(file, random_predictors([2, 4, 6], 64, seed=1), keep=0.5)
    again = program(*SWEEP, "--data", "digits", "--limit", "8", *asked)
    assert again.code == 2
    assert "was measured with another predictors" in again.error
    assert Path("run/table.csv").read_bytes() == before


def test_training_ends_with_the_sweep_that_measures_it(program, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("names.txt").write_text("\n".join("0123456789"))
    result = program(
        *(*TRAIN, "--limit", "8", "--batch-size", "8", "--steps", "2", "--keep", "0.5", "--class-names", "names.txt")
    )
    assert result.code == 0, result.err
    assert "--class-names names.txt" in result.out.replace("\\\n", "")
    assert "digits_vit: 2 steps, predictors before blocks 2, 4, 6" in result.err
    assert "epoch 2 of 2: loss " in result.err
    assert "written: out/predictors.safetensors" in result.out
    assert f"--schedule {SCHEDULE}" in result.out.replace("\\\n", "")
    again = program(*TRAIN, "--limit", "8", "--batch-size", "8", "--steps", "2", "--keep", "0.5", "--json")
    said = json.loads(again.out)
    assert said["schedule"] == SCHEDULE
    assert said["digest"] == read_learned(Path("out/predictors.safetensors")).digest
    other = program(*TRAIN, "--limit", "8", "--batch-size", "8", "--steps", "3", "--keep", "0.5")
    assert other.code == 2
    assert "holds a training with other steps (2 -> 3)" in other.error
