"""The time of choosing: a column of its own, from marked passes apart from the rounds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fault_runs import DIGITS, fast

from tomebench.runs.row import SELECTOR
from tomebench.runs.speed_columns import selector_columns
from tomebench.runs.store import Store


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    fast(monkeypatch)


def test_columns_are_medians_with_the_interval_of_order_statistics():
    passes = [(choosing, 100.0) for choosing in (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 70.0)]
    assert selector_columns(passes) == {
        "selector_ms": 4.0,
        "selector_ms_lo": 1.0,
        "selector_ms_hi": 70.0,
        "selector_share": 4.0,
    }


def test_a_run_gains_the_columns_and_keeps_its_others(program):
    assert program(*DIGITS).code == 0
    before = [json.loads(line) for line in Path("run/rows.jsonl").read_text().splitlines()]
    assert [row["selector_ms"] for row in before] == [None, None]
    assert program(*DIGITS, "--selector").code == 0
    after = [json.loads(line) for line in Path("run/rows.jsonl").read_text().splitlines()]
    none, row = after
    assert none["selector_ms"] is None, "nothing is chosen at r = 0"
    assert 0 < row["selector_ms_lo"] <= row["selector_ms"] <= row["selector_ms_hi"]
    assert 0 < row["selector_share"] < 100
    assert [row["top1_correct"] for row in before] == [row["top1_correct"] for row in after]
    with Store.read(Path("run")) as store:
        passes = store.get(SELECTOR)
    assert [len(found) >= 7 for found in passes.values()] == [True]
    again = program(*DIGITS, "--selector")
    assert again.code == 0
    assert [json.loads(line) for line in Path("run/rows.jsonl").read_text().splitlines()][1]["selector_ms"] == row[
        "selector_ms"
    ], "what is known is not timed again"


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--compile",), "which --compile leaves no trace of"),
        (("--mode", "train"), "--mode train times none"),
        (("--budget", "none", "--data", "digits"), "--budget none times none"),
    ],
)
def test_passes_without_stages_are_refused(program, flags, says):
    done = program("sweep", "--model", "digits_vit", "--selector", *flags)
    assert done.code == 2
    assert says in done.err
    assert done.err.count("\n") == 1
