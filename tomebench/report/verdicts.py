"""The outcome of a gate as plain strings: its table, its last line, what to do."""

from __future__ import annotations

from collections.abc import Sequence

from tomebench.gate.verdict import VERDICTS, Finding, Verdict

_MARKS: dict[Verdict, str] = {
    "worse": "FAIL",
    "inconclusive": "?",
    "incomparable": "?",
    "missing": "?",
    "better": "ok, better",
    "same": "ok",
}


def by_gravity(findings: Sequence[Finding]) -> list[Finding]:
    """Findings, the gravest first, otherwise in their order."""
    return sorted(findings, key=lambda finding: VERDICTS.index(finding.verdict))


def verdict_table(findings: Sequence[Finding]) -> tuple[list[str], list[list[str]]]:
    """Headers and cells: tier, cell, verdict and what was found."""
    cells = [
        [f.tier, f.cell, mark(f), " ".join(filter(None, (f.quantity and f"{f.quantity}:", f.detail)))] for f in findings
    ]
    return ["tier", "cell", "verdict", "found"], cells


def mark(finding: Finding) -> str:
    """``FAIL``, ``ok`` or why neither can be said."""
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


def advice(findings: Sequence[Finding]) -> list[str]:
    """What to do about verdicts that ask for something."""
    found = {finding.verdict for finding in findings}
    lines = []
    if "better" in found:
        lines.append("something is better than the baseline, which would hide the next regression: --update-baseline")
    if "inconclusive" in found:
        lines.append("inconclusive: measure again on a quiet machine or with a larger --budget")
    if found & {"missing", "incomparable"}:
        lines.append("what cannot be compared needs the baseline's own settings, or a new one: --update-baseline")
    return lines
