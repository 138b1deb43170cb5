"""``tomebench ablate`` from the command line: every sub-table, on real passes of a tiny model."""

from __future__ import annotations

import json

import pytest
from screens import assert_fits

from tomebench.paper.ablation import SUB_TABLES
from tomebench.runs.store import Store

_SETTINGS = "--model digits_vit --data digits --limit 16 --r 24 --budget none --device cpu --batch-size 16 --threads 1"
FLAGS = _SETTINGS.split()


@pytest.fixture
def ablated(program, tmp_path):
    result = program("ablate", *FLAGS, "--workers", "0", "--quiet", "--out", str(tmp_path / "run"))
    assert (result.code, result.err) == (0, "")
    return result.out


def test_every_sub_table_is_there(ablated, program, tmp_path):
    assert_fits(ablated, 80)
    assert ablated.startswith("\nOf 19 changes ")
    for title, option, values in SUB_TABLES:
        _, found, rest = ablated.partition(f"{title}, r = 24\n")
        assert found, title
        lines = rest.partition("\n\n")[0].splitlines()
        assert lines[0].split()[:2] == [option, "top-1"]
        assert [line.split()[0] for line in lines[2:]] == list(values)
        assert sum(" * " in f"{line} " for line in lines) == 1
    assert "* the default, with which the others are compared on the same images" in ablated
    with Store.read(tmp_path / "run") as store:
        keys = list(store.predictions())
        different = {tuple(store.predictions()[key].top1) for key in keys}
    assert len(keys) == 21
    assert len(different) > 1

    again = program("ablate", *FLAGS, "--workers", "0", "--quiet", "--json", "--out", str(tmp_path / "run"))
    tables = json.loads(again.out)["tables"]
    assert [table["option"] for table in tables] == [option for _, option, _ in SUB_TABLES]
    for table in tables:
        assert sum(value["default"] for value in table["values"]) == 1
        assert all((value["delta"] is None) == value["default"] for value in table["values"])


@pytest.mark.usefixtures("ablated")
def test_the_gate_refuses_it_in_one_line(program, tmp_path):
    flags = ["--accuracy", "--baseline", str(tmp_path / "baseline.json"), "--update-baseline"]
    result = program("check", str(tmp_path / "run"), *flags)
    assert (result.code, result.out) == (2, "")
    assert "the run is an ablation, whose cells the gate cannot tell apart" in result.error


def test_options_of_its_own_are_refused(program):
    result = program("ablate", *FLAGS, "--metric", "q")
    assert (result.code, result.out) == (2, "")
    assert "ablate changes each option in turn" in result.error


def test_the_gate_tells_cells_of_one_r_apart(program, tmp_path):
    flags = ["--model", "digits_vit", "--data", "digits", "--limit", "8", "--r", "6", "--budget", "none"]
    run = str(tmp_path / "run")
    swept = program("sweep", *flags, "--device", "cpu", "--metric", "k,q", "--workers", "0", "--quiet", "--out", run)
    assert swept.code == 0
    assert [line.split()[:2] for line in swept.out.splitlines() if "prop_attn=true " in line][:3]
    baseline = str(tmp_path / "baseline.json")
    assert program("check", run, "--accuracy", "--baseline", baseline, "--update-baseline").code == 0
    checked = program("check", run, "--accuracy", "--baseline", baseline)
    assert checked.code == 0
    assert [line.split()[1:3] for line in checked.out.splitlines() if line.startswith("accuracy")] == [
        ["r=0", "ok"],
        ["r=6", "ok"],
        ["r=6", "metric=q"],
    ]
