"""What a gate writes for machines: valid where there is a schema, inert whatever the names, within limits."""

from __future__ import annotations

import datetime
import json
import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import xmlschema
from hypothesis import given
from hypothesis import strategies as st
from report_rows import TEXT

from tomebench.gate.records import Accuracy, Asked, CellRecord, Snapshot, Speed, packed_bits
from tomebench.gate.verdict import VERDICTS, Finding
from tomebench.report.benchmark import bencher_metric_format, github_action_benchmark
from tomebench.report.github import annotation_lines, step_summary
from tomebench.report.junit import junit_xml
from tomebench.report.verdicts import advice, by_gravity, last_line, verdict_table

NOW = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)
SCHEMA = xmlschema.XMLSchema(str(Path(__file__).parent / "junit.xsd"))
NASTY = ["a|b<script>", "::error::x", "##[error]x", "x\n::error::y", "\x1b[31mred", "=HYPERLINK(1)", "]]>&amp;"]
NASTY += ["%0A", "\ufffe"]

findings = st.lists(
    st.builds(
        Finding,
        tier=st.sampled_from(["static", "accuracy", "speed"]),
        cell=TEXT | st.sampled_from(NASTY),
        verdict=st.sampled_from(VERDICTS),
        detail=TEXT | st.sampled_from(NASTY),
        quantity=TEXT,
    ),
    max_size=12,
)


def found(verdict: str = "worse", cell: str = "r=8", detail: str = "1.30x -> 1.10x", tier: str = "speed") -> Finding:
    return Finding(tier, cell, verdict, detail)  # type: ignore[arg-type]


@given(findings, st.sampled_from(NASTY) | TEXT)
def test_junit_validates_and_counts_right(some: list[Finding], subject: str) -> None:
    text = junit_xml(some, subject=subject, now=NOW)
    SCHEMA.validate(text)
    root = ElementTree.fromstring(text)
    assert len(root.findall(".//testcase")) == max(len(some), 1)
    assert len(root.findall(".//failure")) == sum(f.verdict == "worse" for f in some)
    errors = sum(f.verdict in ("inconclusive", "incomparable", "missing") for f in some)
    assert len(root.findall(".//error")) == (errors if some else 1)
    assert sum(int(suite.get("tests", "")) for suite in root) == max(len(some), 1)


def test_the_schema_refuses_what_is_not_junit() -> None:
    assert not SCHEMA.is_valid("<testsuites><testcase/></testsuites>")
    assert not SCHEMA.is_valid(junit_xml([found()], subject="m", now=NOW).replace('tests="1"', 'tests="many"'))


@given(findings, st.sampled_from(NASTY) | TEXT)
def test_a_summary_is_inert_markdown(some: list[Finding], subject: str) -> None:
    text = step_summary(some, subject=subject)
    assert "<script" not in text
    assert "\x1b" not in text
    for line in text.splitlines():
        if line.startswith("|"):
            assert len(re.findall(r"(?<!\\)\|", line)) == 5  # four columns, whatever the cells hold


def test_a_summary_of_500_cells_is_within_its_limit() -> None:
    some = [found("same", f"r={i}", "<|" * 5000) for i in range(1500)]
    text = step_summary([*some, found("worse", "r=13")], subject="&" * 10_000)
    assert len(text.encode()) < 1_000_000
    assert text.index("r=13") < text.index("r=0")  # the gravest first
    assert "more are in the log" in text


@given(findings)
def test_annotations_are_at_most_one_a_verdict_and_one_line_each(some: list[Finding]) -> None:
    lines = annotation_lines(some)
    kinds = [line.partition("::")[2].partition(" ")[0] for line in lines]
    assert len(lines) == (len({f.verdict for f in some} - {"same"}) if some else 1)
    assert set(kinds) <= {"error", "warning", "notice"}
    for line in lines:
        assert line.splitlines() == [line]
        assert re.match(r"::(error|warning|notice) title=tomebench( [a-z]+)?::", line)


@pytest.mark.parametrize(("trouble", "says"), [("no such\nfile", "no such"), (None, "NOTHING COMPARED")])
def test_a_gate_that_compared_nothing_is_red_everywhere(trouble: str | None, says: str) -> None:
    text = junit_xml([], subject="m", now=NOW, trouble=trouble)
    SCHEMA.validate(text)
    (error,) = ElementTree.fromstring(text).findall(".//error")
    assert says in error.get("message", "")
    (line,) = annotation_lines([], trouble=trouble)
    assert line.startswith(f"::error title=tomebench::{says}")
    summary = step_summary([], subject="m", trouble=trouble)
    assert "NOTHING COMPARED" in summary
    assert says in summary


def test_remarks_are_a_warning_and_in_the_summary() -> None:
    lines = annotation_lines([found("same")], remarks=["other code", "other machine"])
    assert lines == ["::warning title=tomebench::other code; other machine"]
    assert "- other code\n" in step_summary([found("same")], subject="m", remarks=["other code", "other machine"])


def test_an_annotation_cannot_start_another() -> None:
    (line,) = annotation_lines([found(detail="x\n::error::y %0A z")])
    assert line == "::error title=tomebench worse::speed r=8: x\\n::error::y %250A z"


def test_the_last_line_says_what_happened() -> None:
    assert last_line([]) == "NOTHING COMPARED: the baseline has nothing that was asked for"
    assert last_line([found("same"), found("better")]) == "PASS: 1 better, 1 same"
    assert last_line([found("same"), found("missing")]) == "CANNOT TELL: 1 missing, 1 same"
    assert last_line([found("worse"), found("missing")]) == "FAIL: 1 worse, 1 missing"
    assert advice([found("same")]) == []
    assert [line.split()[0] for line in advice([found("better"), found("inconclusive"), found("missing")])] == [
        "something",
        "inconclusive:",
        "what",
    ]


def test_the_table_keeps_the_order_and_gravity_sorts() -> None:
    some = [found("same", "r=0"), found("worse", "r=8"), found("missing", "r=9")]
    assert [row[1:3] for row in verdict_table(some)[1]] == [["r=0", "ok"], ["r=8", "FAIL"], ["r=9", "? missing"]]
    assert [f.verdict for f in by_gravity(some)] == ["worse", "missing", "same"]


def _snapshot(rounds: int) -> Snapshot:
    fields = {
        "model": "vit|x", "weights": "w", "img_size": 32, "method": "tome", "options": "", "schedule": "constant",
        "dtype": "fp32", "attention": "auto", "batch_size": 4, "device": "cpu", "compile": False,
        "cuda_graphs": False, "mode": "infer", "threads": None,
    }  # fmt: skip
    cells = []
    for r, ratio in ((0, 1.0), (8, 1.25)):
        speed = Speed(seconds=(0.01 / ratio,) * rounds, reference=(0.01,) * rounds, testbed="x")
        right = np.arange(200) < 150 - r
        accuracy = Accuracy(dataset="d", digest="x", n_seen=200, complete=True, right=packed_bits(right))
        cells.append(CellRecord(asked=Asked(**fields, r=r), speed=speed, accuracy=accuracy))
    cells.append(CellRecord(asked=Asked(**fields, r=9), problem="oom"))
    return Snapshot(testbed="", settings={}, cells=tuple(cells))


@pytest.mark.parametrize("rounds", [2, 24])
def test_benchmark_services_get_numbers_with_bounds(rounds: int) -> None:
    entries = github_action_benchmark(_snapshot(rounds))
    assert [(e["name"], e["unit"]) for e in entries[:3]] == [
        ("vit|x tome r=0: images per second", "img/s"),
        ("vit|x tome r=0: speed-up over the unwrapped model", "x"),
        ("vit|x tome r=0: top-1", "%"),
    ]
    assert [e["value"] for e in entries] == pytest.approx([100, 1, 75, 125, 1.25, 71])
    assert ["range" in e for e in entries] == [rounds >= 6, rounds >= 6, True] * 2
    metrics = bencher_metric_format(_snapshot(rounds))
    assert list(metrics) == ["vit|x tome r=0", "vit|x tome r=8"]
    assert metrics["vit|x tome r=8"]["speed-up"]["value"] == pytest.approx(1.25)
    assert metrics["vit|x tome r=8"]["top-1"]["lower_value"] < 71 < metrics["vit|x tome r=8"]["top-1"]["upper_value"]
    json.dumps([entries, metrics], allow_nan=False)
