"""Several models, sizes, dtypes or batch sizes on the command line: planned, measured, reported as one table."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cli_program import Result

from tomebench.models.spec import ModelSpec
from tomebench.reduction.vit import ReducedViT
from tomebench.sweeps import members

Program = Callable[..., Result]
SMALL = ("--device", "cpu", "--batch-size", "2", "--threads", "1")


def test_plan_says_how_many_cells_and_how_long(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every model is built once for each size."""
    built: Counter[ModelSpec] = Counter()
    real = members.build_model

    def counted(spec: ModelSpec, **how: bool) -> object:
        built[spec] += 1
        return real(spec, **how)

    monkeypatch.setattr(members, "build_model", counted)
    lists = "--model test_vit,test_vit2 --img-size 64,48,32 --method tome,random-prune --r 0,1,2 --dtype fp32,bf16"
    result = program("plan", *lists.split(), *SMALL)
    assert (result.code, result.err) == (0, "")
    assert "60 cells in 12 runs, of which each has rounds and r=0 of its own" in result.out
    assert "speed-ups over test_vit@64" in result.out
    assert "results would go to results/test_vit-test_vit2-tome-random-prune" in result.out
    assert len(built) == 6
    assert {*built.values()} == {1}
    shown = json.loads(program("plan", *lists.split(), *SMALL, "--json").out)
    assert shown["cells"] == sum(len(run["cells"]) for run in shown["runs"]) == 60
    assert shown["estimated_seconds"] == pytest.approx(sum(run["estimated_seconds"] for run in shown["runs"]))
    assert not Path("results").exists()


def test_plan_names_kernels_once_for_cells_that_leave_as_many_tokens(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PyTorch is asked for the kernel of every block, which takes long for the blocks of hundreds of cells."""
    named: list[object] = []
    real = ReducedViT.attention_kernels

    def counted(self: ReducedViT, *how: Any) -> tuple[str, ...]:
        named.append(self.trace)
        return real(self, *how)

    monkeypatch.setattr(ReducedViT, "attention_kernels", counted)
    for methods in ("topk", "topk,random-prune,evit"):
        named.clear()
        result = program(
            "plan", "--model", "test_vit", "--img-size", "64,32", "--method", methods, "--r", "0..2", *SMALL
        )
        assert (result.code, result.err) == (0, "")
        assert len(named) == 6 + 4 * ("evit" in methods)  # fused tokens have sizes, which attention counts


def test_runs_are_measured_reported_and_gone_on_with(program: Program, quick_sweeps: None) -> None:
    asked = ("sweep", "--model", "test_vit,test_vit2", "--img-size", "48", "--r", "0,2", *SMALL, "--quiet")
    parent = Path("results/test_vit-test_vit2-tome")
    result = program(*asked)
    assert (result.code, result.err) == (0, "")
    assert "vs reference" in result.out
    assert result.out.rstrip().endswith(f"tomebench compare {parent}")
    assert {path.name for path in parent.iterdir() if path.is_dir()} == {"test_vit", "test_vit2"}
    table, alone = (parent / "table.csv").read_bytes(), (parent / "test_vit2" / "table.csv").read_bytes()
    assert program(*asked).code == 0
    assert program("report", str(parent)).code == 0
    assert (parent / "table.csv").read_bytes() == table
    assert (parent / "test_vit2" / "table.csv").read_bytes() == alone
    again = program(*(word for word in asked if word != "--quiet"), "--seed", "1")
    assert again.code == 0
    assert f"{parent}-2" in again.err
    assert (Path(f"{parent}-2") / "test_vit" / "run.sqlite").is_file()
    one = program("check", str(parent), "--baseline", "base.json", "--update-baseline")
    assert (one.code, "holds runs below it and none itself; name one of them, such as" in one.err) == (2, True)


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (("sweep", "--model", "a,b", "--nproc-per-node", "2"), "which processes that share a sweep cannot do"),
        (("profile", "--model", "test_vit,test_vit2"), "--model has several values, of which only sweep and plan"),
        (("profile", "--model", "test_vit", "--method", "tome,kmeans"), "profile takes one method and one schedule"),
        (("ablate", "--model", "test_vit", "--img-size", "64,48"), "--img-size has several values"),
        (("demo", "--dtype", "fp32,bf16"), "--dtype has several values"),
        (("reproduce", "augreg", "--batch-size", "1,2"), "batch-size"),
    ],
)
def test_what_takes_one_value_refuses_a_list(program: Program, command: tuple[str, ...], says: str) -> None:
    result = program(*command)
    assert (result.code, result.out) == (2, "")
    assert says in result.err
    assert len(result.err.splitlines()) == 1
