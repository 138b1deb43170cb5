"""Findings of the gate for GitHub Actions: a step summary in markdown, and annotations (workflow commands)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from tomebench.gate.verdict import VERDICTS, Finding, Verdict
from tomebench.report.escape import clean, markdown
from tomebench.report.tables import markdown_table
from tomebench.report.verdicts import advice, by_gravity, last_line, verdict_table

MAX_ROWS = 300
"""Most findings in the summary, the gravest first; GitHub accepts 1 MiB per step."""
MAX_BYTES = 900_000
"""Most bytes of the summary."""
_MAX_TEXT = 400
_LEVELS: dict[Verdict, Literal["error", "warning", "notice"]] = {
    "worse": "error",
    "inconclusive": "warning",
    "incomparable": "warning",
    "missing": "warning",
    "better": "notice",
}


def step_summary(
    findings: Sequence[Finding], *, subject: str, remarks: Sequence[str] = (), trouble: str | None = None
) -> str:
    """Markdown for ``$GITHUB_STEP_SUMMARY``: outcome, table of findings, what to do; under GitHub's limit of 1 MiB.

    Args:
        findings: of the gate.
        subject: name of what was checked.
        remarks: lines below the table, beside those about what to do.
        trouble: why nothing could be compared.
    """
    outcome = last_line(findings) if trouble is None else f"NOTHING COMPARED: {trouble}"
    parts = [f"### tomebench: {markdown(_cut(subject))}", f"**{markdown(_cut(outcome))}**"]
    rows, text = MAX_ROWS, _summary(findings, parts, remarks, MAX_ROWS)
    while len(text.encode()) > MAX_BYTES and rows:  # only if escapes make the text many times as long
        rows //= 2
        text = _summary(findings, parts, remarks, rows)
    return text


def _summary(findings: Sequence[Finding], head: Sequence[str], remarks: Sequence[str], max_rows: int) -> str:
    shown = by_gravity(findings)[:max_rows]
    headers, rows = verdict_table(shown)
    parts = list(head)
    if rows:
        parts.append(markdown_table(headers, [[_cut(cell) for cell in row] for row in rows]).rstrip())
    if len(findings) > len(shown):
        parts.append(f"{len(findings) - len(shown)} more are in the log.")
    parts += [f"- {markdown(_cut(line))}" for line in (*remarks, *advice(findings))]
    return "\n\n".join(parts) + "\n"


def annotation_lines(
    findings: Sequence[Finding], *, remarks: Sequence[str] = (), trouble: str | None = None
) -> list[str]:
    """Workflow commands, at most one for each verdict: GitHub shows ten of a kind and drops the rest silently.

    Args:
        findings: of the gate.
        remarks: together one more annotation.
        trouble: why nothing could be compared.
    """
    if not findings:
        return [f"::error title=tomebench::{_data(_cut(trouble or last_line(findings)))}"]
    lines = [f"::warning title=tomebench::{_data(_cut('; '.join(remarks)))}"] if remarks else []
    for verdict in VERDICTS:
        own = [finding for finding in findings if finding.verdict == verdict]
        if own and verdict in _LEVELS:
            first = own[0]
            more = f" (and {len(own) - 1} more)" if len(own) > 1 else ""
            text = _cut(f"{first.tier} {first.cell}: {first.detail}") + more
            lines.append(f"::{_LEVELS[verdict]} title=tomebench {verdict}::{_data(text)}")
    return lines


def _cut(text: str) -> str:
    return text if len(text) <= _MAX_TEXT else text[: _MAX_TEXT - 1] + "…"


def _data(text: str) -> str:
    """Escape text as the message of a workflow command."""
    return clean(text).replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
