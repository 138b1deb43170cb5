"""A method by one file and one line of the registry is listed, planned, swept, profiled and gated."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fault_runs import DIGITS, fast
from reduction.contexts import make_context

from tomebench.errors import SpecError
from tomebench.reduction import registry
from tomebench.reduction.registry import METHODS, MethodInfo, get_method

FILE = "reduction.dropped_ends"


@pytest.fixture(autouse=True)
def added(monkeypatch):
    lines = [
        MethodInfo("ends", f"{FILE}:DroppedEnds", "the last patches are dropped"),
        MethodInfo("free", f"{FILE}:WithoutCost", "nobody knows what it costs"),
    ]
    monkeypatch.setattr(registry, "METHODS", {**METHODS, **{line.name: line for line in lines}})
    fast(monkeypatch)


def test_it_is_listed(program):
    assert "the last patches are dropped" in program("list", "methods").out


def test_it_is_planned_and_charged_what_it_costs(program):
    flags = ("--model", "test_vit", "--r", "0,4", "--method", "ends")
    cell = json.loads(program("plan", *flags, "--json").out)["cells"][1]["resolved"]
    tokens = [101, *cell["tokens"]]
    assert tokens == [101, 97, 93, 89, 85, 81, 77]
    expected = sum(1000 * before * 4 + 64 for before in tokens[:-1]) / 1e9
    assert cell["gmacs_matching"] == pytest.approx(expected)


def test_it_may_remove_more_than_half_of_the_patches(program):
    flags = ("--model", "test_vit", "--r", "0,60", "--method", "ends")
    cell = json.loads(program("plan", *flags, "--json").out)["cells"][1]["resolved"]
    assert cell["tokens"] == [41, 1, 1, 1, 1, 1]
    assert cell["clamped"]


def test_it_is_swept_and_gated(program):
    sweep = (*DIGITS, "--method", "ends")
    assert program(*sweep).code == 0
    rows = [json.loads(line) for line in Path("run/rows.jsonl").read_text().splitlines()]
    assert [(row["method"], row["r"], row["n_seen"], row["status"]) for row in rows] == [
        ("ends", 0, 6, "ok"),
        ("ends", 8, 6, "ok"),
    ]
    check = ("check", "run", "--baseline", "base.json", "--static", "--accuracy")
    assert program(*check, "--update-baseline").code == 0
    result = program(*check)
    assert (result.code, "FAIL" in result.out) == (0, False)


def test_it_is_profiled_with_its_own_work(program):
    flags = ("--model", "digits_vit", "--r", "8", "--method", "ends", "--device", "cpu", "--batch-size", "2")
    result = program("profile", *flags, "--budget", "quick", "--json")
    assert result.code == 0, result
    (found,) = json.loads(result.out)["profiles"]
    matching = next(part for part in found["parts"] if part["part"] == "matching")
    before = [197, *found["tokens"][:-1]]
    assert matching["macs"] == sum(2 * (1000 * n * r + 64) for n, r in zip(before, found["r_layers"], strict=True))


def test_one_without_a_cost_is_refused(program):
    result = program("plan", "--model", "test_vit", "--method", "free")
    assert (result.code, result.out) == (2, "")
    assert "method free declares no cost, without which it cannot be used" in result.error


def test_its_options_are_those_of_its_class():
    assert get_method("ends", {"side": "first"}).choose(make_context(9, 1, 3)).kept.tolist() == [[0, 4, 5, 6, 7, 8]] * 2
    with pytest.raises(SpecError, match="method ends has no colour; leave colour out"):
        get_method("ends", {"colour": "red"})
