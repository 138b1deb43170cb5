"""Which of timm's transformers can be merged: the counts, the reasons, and the command that prints them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable

import pytest
import timm
import torch
from cli_program import Result
from docs import families

from tomebench.backbones.adapt import adapt
from tomebench.cli.architectures import Architecture, architectures, by_family
from tomebench.errors import UnsupportedModelError
from tomebench.models.families import FAMILIES

Program = Callable[..., Result]
ADAPTED = [family for family, needs in FAMILIES.items() if not needs]
MERGED = {
    "vision_transformer": 160, "deit": 16, "vision_transformer_hybrid": 14, "vitamin": 13,
    "eva": 60, "beit": 7, "vision_transformer_relpos": 14, "naflexvit": 14,
}  # fmt: skip
"""Architectures of timm 1.0.31 that can be merged."""


@pytest.fixture(scope="module")
def found() -> list[Architecture]:
    return [*architectures()]


@pytest.mark.slow
def test_counts(found: list[Architecture]) -> None:
    counts = Counter(each.family for each in found if not each.why)
    if timm.__version__ != "1.0.31":
        assert counts.keys() == MERGED.keys()
        pytest.skip(f"the counts are those of timm 1.0.31, not {timm.__version__}")
    assert counts == MERGED
    assert sum(each.weights for each in found if not each.why) == 468
    assert len(found) == len({each.name for each in found})


@pytest.mark.slow
def test_the_page_on_models_has_these_figures(found: list[Architecture]) -> None:
    page = families.PAGE.read_text()
    assert families.written(page, "x") != page
    assert families.written(page, families.table(found)) == page


@pytest.mark.slow
def test_refusals_name_a_part(found: list[Architecture]) -> None:
    refused = [each for each in found if each.why and each.family in ADAPTED]
    assert {each.family for each in refused} == {"vision_transformer", "eva"}
    for each in refused:
        says = "Diff" if each.family == "vision_transformer" else "takes images of 1024 x 768 pixels"
        assert says in each.why, each


@pytest.mark.parametrize("family", [family for family in FAMILIES if family not in ADAPTED])
def test_families_without_an_adapter_are_refused_indeed(family: str) -> None:
    name = timm.list_models(module=family)[0]
    with torch.device("meta"):
        model = timm.create_model(name)
    with pytest.raises(UnsupportedModelError):
        adapt(model)


def test_table_by_family() -> None:
    rows = [
        Architecture("a", "one", 3, ""),
        Architecture("b", "one", 2, "B has 'x'"),
        Architecture("c", "one", 0, "B has 'x'"),
        Architecture("d", "two", 1, "windows"),
    ]
    assert by_family(rows) == [("one", "1 of 3", "3 of 5", "B has 'x'"), ("two", "0 of 1", "0 of 1", "windows")]


def test_list(program: Program) -> None:
    one = program("list", "models", "--all", "swin_tiny")
    assert one.code == 0
    assert "swin_tiny_patch4_window7_224" in one.out
    assert "attention within" in one.out
    shown = json.loads(program("list", "models", "--all", "beit_base_patch16_224", "--json").out)["models"]
    assert shown == [{"name": "beit_base_patch16_224", "family": "beit", "weights": "2", "merged": "yes"}]
    none = program("list", "models", "--all", "convnext")
    assert (none.code, "no transformer with 'convnext' in its name" in none.error) == (2, True)
    wrong = program("list", "methods", "--all")
    assert (wrong.code, "--all lists models" in wrong.error) == (2, True)
