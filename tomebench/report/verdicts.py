"""Findings of the gate as plain strings: table, last line, details, and what to do."""

from __future__ import annotations

import re
from collections.abc import Sequence

from tomebench.gate.verdict import VERDICTS, Finding, Verdict
from tomebench.report.narrow import Step, without

_MARKS: dict[Verdict, str] = {
    "worse": "FAIL",
    "inconclusive": "?",
    "incomparable": "?",
    "missing": "?",
    "better": "ok, better",
    "same": "ok",
}
_QUANTITY = re.compile(r"^(top-1|speed-up over [^:]*|img/s): | right \([^)]*\)")


def by_gravity(findings: Sequence[Finding]) -> list[Finding]:
    """Sort findings by verdict, the gravest first; equal ones stay in order."""
    return sorted(findings, key=lambda finding: VERDICTS.index(finding.verdict))


def verdict_table(findings: Sequence[Finding]) -> tuple[list[str], list[list[str]]]:
    """Table of findings: tier, cell, verdict and detail."""
    cells = [
        [f.tier, f.cell, mark(f), " ".join(filter(None, (f.quantity and f"{f.quantity}:", f.detail)))] for f in findings
    ]
    return ["tier", "cell", "verdict", "found"], cells


def mark(finding: Finding) -> str:
    """Text of a verdict: ``FAIL``, ``ok``, ``ok, better``, or ``?`` with the reason."""
    sign = _MARKS[finding.verdict]
    return f"{sign} {finding.verdict}" if sign == "?" else sign


def last_line(findings: Sequence[Finding]) -> str:
    """The outcome in one line, e.g. ``FAIL: 1 worse, 23 same``."""
    counts = {verdict: sum(f.verdict == verdict for f in findings) for verdict in VERDICTS}
    said = ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count)
    if not findings:
        return "NOTHING COMPARED: the baseline has nothing that was asked for"
    if counts["worse"]:
        return f"FAIL: {said}"
    if counts["inconclusive"] + counts["incomparable"] + counts["missing"]:
        return f"CANNOT TELL: {said}"
    return f"PASS: {said}"


def _brief(found: str) -> str:
    return _QUANTITY.sub("", found).partition(";")[0]


FULL_TEXT = "found in full"
NARROWER = (
    Step("found", "found", lambda cells: [_brief(cell) for cell in cells], lost=FULL_TEXT),
    without("found"),
)
"""Steps, in order, where the table of findings does not fit."""


def details(findings: Sequence[Finding], lost: Sequence[str]) -> list[str]:
    """Full text of the findings that are not simply the same, where the table does not show it.

    Args:
        findings: of the table.
        lost: what the table leaves out.
    """
    return [
        " ".join(filter(None, (f.tier, f"{f.cell}:", f.quantity and f"{f.quantity}:", f.detail)))
        for f in by_gravity(findings)
        if ("; " in f.detail and lost)
        or (f.verdict != "same" and ("found" in lost or (lost and _brief(f.detail) != f.detail)))
    ]


def advice(findings: Sequence[Finding]) -> list[str]:
    """Lines on what to do about verdicts other than ``same`` and ``worse``."""
    found = {finding.verdict for finding in findings}
    lines = []
    if "better" in found:
        lines.append("something is better than the baseline, which would hide the next regression: --update-baseline")
    if "inconclusive" in found:
        lines.append("inconclusive: measure again on a quiet machine or with a larger --budget")
    if found & {"missing", "incomparable"}:
        lines.append("what cannot be compared needs the baseline's own settings, or a new one: --update-baseline")
    return lines
