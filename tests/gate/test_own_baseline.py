"""The gate on this project itself: its committed baseline, and the workflow that uses it."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
import typer
import yaml

import tomebench
from tomebench.cli.app import app
from tomebench.gate.baseline_file import read_baseline

ROOT = Path(__file__).parents[2]
BASELINE = ROOT / "results" / "baselines" / "demo.json"
WORKFLOW = ROOT / ".github" / "workflows" / "gate.yml"

pytestmark = pytest.mark.skipif(not BASELINE.exists(), reason="not a checkout: no results/baselines")


def test_what_merging_computes_is_what_it_was() -> None:
    findings = tomebench.check(None, BASELINE, "static")
    assert len(findings) == 9
    assert {f.cell: f.verdict for f in findings if f.verdict != "same"} == {}, findings


def test_the_baseline_has_what_the_gate_asks_for_and_nothing_of_one_machine() -> None:
    snapshot = read_baseline(BASELINE)
    assert snapshot.tiers() == ("static", "accuracy")
    for cell in snapshot.cells:
        assert cell.static is not None
        assert cell.accuracy is not None
        assert cell.accuracy.n_seen == 599
    assert "/" not in str(snapshot.settings.get("checkpoint") or "")


def test_every_command_of_the_workflow_is_understood() -> None:
    jobs = yaml.safe_load(WORKFLOW.read_text())["jobs"]
    lines = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    commands = [shlex.split(line) for line in lines if line.startswith("tomebench ")]
    assert [words[1] for words in commands] == ["check", "demo", "check"]
    group = typer.main.get_command(app)
    for _, name, *words in commands:
        group.commands[name].make_context(name, words)  # type: ignore[attr-defined]
        if "--baseline" in words:
            assert ROOT / words[words.index("--baseline") + 1] == BASELINE
