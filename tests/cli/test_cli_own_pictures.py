"""Pictures without labels on the command line: agreement in the table, and nothing for the gate to count."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

SWEEP = ("sweep", "--model", "digits_vit", "--data", "digits", "--limit", "40", "--r", "0,24", "--device", "cpu")
FAST = ("--batch-size", "20", "--budget", "none", "--out", "run", "--quiet")


@pytest.fixture
def unlabelled(program):
    """A stored run without labels, and the program."""
    assert program(*SWEEP, "--no-labels", *FAST).code == 0
    return program


def test_agreement_is_in_the_table_and_top1_is_not(unlabelled):
    shown = unlabelled("report", "run", "--json")
    base, merged = json.loads(shown.out)["rows"]
    assert (base["agreement"], base["agreed"], base["top1"], merged["top1"]) == (100.0, 40, None, None)
    assert merged["agreement"] == 100 * merged["agreed"] / 40 < 100
    assert "agreement [95%]" in unlabelled("report", "run").out


def test_the_gate_has_no_accuracy_to_compare(unlabelled):
    assert unlabelled("check", "run", "--baseline", "b.json", "--update-baseline").code == 0
    assert '"right"' not in Path("b.json").read_text()
    assert unlabelled("check", "run", "--accuracy", "--baseline", "b.json").code == 4


@pytest.mark.parametrize("flags", [("--real", "real.json"), ("--class-names", "sorted")])
def test_what_is_about_labels_is_refused(program, flags):
    refused = program(*SWEEP, "--no-labels", *flags, *FAST)
    assert refused.code == 2
    assert "is about labels, which --no-labels leaves out; drop one of them" in refused.error
    assert program("sweep", "--model", "test_vit", "--no-labels").code == 2
