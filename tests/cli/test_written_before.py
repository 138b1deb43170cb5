"""Runs and baselines of an earlier version are reported, compared and gone on with."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from fault_runs import fast

from tomebench.runs.store import Store
from tomebench.sweeps import made
from tomebench.sweeps.config_files import load_config
from tomebench.sweeps.resume import choose_folder

BEFORE = Path(__file__).parents[1] / "sweeps" / "before"
FLAGS = (
    "--model digits_vit --metric k,q --data digits --limit 24 --batch-size 8 --budget quick --device cpu --threads 1"
)
SWEEP = ("sweep", *FLAGS.split(), "--out", "run", "--quiet", "--workers", "0")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "run").mkdir()
    shutil.copy(BEFORE / "run.sqlite", tmp_path / "run")
    shutil.copy(BEFORE / "baseline.json", tmp_path)
    return tmp_path / "run"


def rows(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]


def test_it_is_reported_as_it_was(program, run):
    assert program("report", "run").code == 0
    before, now = rows(BEFORE), rows(run)
    assert [{name: row[name] for name in was} for row, was in zip(now, before, strict=True)] == before
    assert {(row.pop("training"), row.pop("padded")) for row in now} == {("off-the-shelf", False)}  # as all then were
    assert all(row[name] is None for row in now for name in row.keys() - before[0].keys())  # of younger columns


def test_it_passes_against_its_own_baseline(program, run):
    result = program("check", "run", "--baseline", "baseline.json", "--quiet")
    assert (result.code, "FAIL" in result.out) == (0, False), result


def test_another_r_joins_what_is_there(program, run, monkeypatch):
    fast(monkeypatch)
    monkeypatch.setattr(made, "difference", lambda there, here: None)  # as on the machine and with the code of before
    with Store.read(run) as store:
        keys, seen = [cell.key for cell, _ in store.cells()], store.predictions()
        rounds = store.rounds()
    result = program(*SWEEP, "--r", "0,4,8")
    assert result.code == 0, result
    with Store.read(run) as store:
        assert [cell.r for cell, _ in store.cells()] == [0, 4, 4, 8, 8]
        assert {*keys} <= {cell.key for cell, _ in store.cells()}
        assert store.rounds()[: len(rounds)] == rounds
        for key, kept in seen.items():
            assert (store.predictions()[key].top1 == kept.top1).all()
    assert [row["top1_correct"] for row in rows(run) if row["r"] != 4] == [row["top1_correct"] for row in rows(BEFORE)]


def test_other_code_takes_another_folder(run, monkeypatch):
    monkeypatch.chdir(run.parent)
    Path("results").mkdir()
    run.rename("results/digits_vit-tome")
    config = load_config([], {"model": "digits_vit", "metric": "k,q", "data": "digits", "limit": 24, "batch_size": 8,
                              "budget": "quick", "device": "cpu", "threads": 1, "r": "0,8"})  # fmt: skip
    folder, why = choose_folder(config)
    assert folder.name == "digits_vit-tome-2"
    assert why is not None
    assert "a run of other code or libraries (code " in why
