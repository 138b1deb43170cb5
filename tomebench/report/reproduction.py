"""Tables of ``tomebench reproduce``: a paper's reported figures beside measured ones, for terminal, markdown, LaTeX."""

from __future__ import annotations

import dataclasses
import string
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tomebench.paper.comparison import Line
from tomebench.paper.reported import Reported
from tomebench.report.escape import markdown
from tomebench.report.latex import ColumnHead, latex_table
from tomebench.report.narrow import Step, Table, before, without
from tomebench.report.series import interval
from tomebench.report.tables import markdown_table
from tomebench.runs.row import COLUMNS
from tomebench.words import counted


@dataclass(frozen=True)
class Layout:
    """A reproduction table as text: one set of columns, and rows by part."""

    title: str
    heads: tuple[ColumnHead, ...]
    parts: tuple[tuple[str, tuple[tuple[str, ...], ...]], ...]
    notes: tuple[str, ...]  # what stands below: marks, differences, sources

    def table(self, part: int) -> Table:
        """Column titles and rows of one part."""
        return [head.alone or head.name for head in self.heads], [list(row) for row in self.parts[part][1]]


def layout(
    title: str,
    lines: Sequence[Line],
    acc_name: str,
    missing: Mapping[str, Sequence[str]],
    *,
    by_choice: bool = False,
) -> Layout:
    """Lay out a reproduction table; empty columns are left out.

    Args:
        title: of the table.
        lines: in order; those of a part are consecutive.
        acc_name: name of the reported accuracy, such as top-1.
        missing: what runs lack (images, weights), by name of the run.
        by_choice: lines differ in an option, as in an ablation, not in r: their common cost is a note below.
    """
    marks = {note: f"({_letters(n)})" for n, note in enumerate(dict.fromkeys(x.note for x in lines if x.note))}
    columns = [(head, cells) for head, cells in _columns(lines, acc_name, marks) if any(cells)]
    if by_choice:
        columns = [(head, cells) for head, cells in columns if head not in _COSTS]
    confidences = {line.reported.confidence for line in lines if line.reported}
    if len(confidences) == 1:  # the notes say it
        columns = [(head, cells) for head, cells in columns if head != _SOURCE]
    rows = list(zip(*(cells for _, cells in columns), strict=True))
    parts: dict[str, list[tuple[str, ...]]] = {}
    for line, row in zip(lines, rows, strict=True):
        parts.setdefault(line.part, []).append(tuple(cell or "-" for cell in row))
    notes = [
        *(f"{mark} {note}" for note, mark in marks.items()),
        *(_difference(line, found.detail) for line in lines for found in line.findings if found.verdict == "differs"),
        *(dict.fromkeys(_cost(line) for line in lines if line.cost is not None) if by_choice else ()),
        *_missing(missing),
        *_sources(lines),
    ]
    heads = tuple(head for head, _ in columns)
    return Layout(title, heads, tuple((part, tuple(rows)) for part, rows in parts.items()), tuple(notes))


_R = ColumnHead("r")
_MAC_RATIO = ColumnHead("of MACs", "speed-up", alone="MAC ratio")
_GMACS_REPORTED = ColumnHead("reported", "GMACs", alone="GMACs reported")
_GMACS = ColumnHead("here", "GMACs", alone="GMACs")
_TOKENS = ColumnHead("tokens")
_SOURCE = ColumnHead("source", left=True)
_COSTS = (_R, _MAC_RATIO, _GMACS_REPORTED, _GMACS, _TOKENS)


def _columns(lines: Sequence[Line], acc_name: str, marks: Mapping[str, str]) -> Iterator[tuple[ColumnHead, list[str]]]:
    yield ColumnHead("choice", left=True), [line.label for line in lines]
    yield _R, ["" if line.r is None else str(line.r) for line in lines]
    yield ColumnHead("reported", acc_name, alone=f"{acc_name} reported"), [_acc(line) for line in lines]
    yield ColumnHead("here", acc_name, alone=acc_name), [_measured(line) for line in lines]
    yield ColumnHead("images", acc_name), [_images(line) for line in lines]
    yield ColumnHead("img/s"), [_rate(line) for line in lines]
    yield ColumnHead("reported", "speed-up", alone="speed-up reported"), [_reported_speedup(line) for line in lines]
    yield ColumnHead("here [95%]", "speed-up", alone="speed-up [95%]"), [_speedup(line) for line in lines]
    yield _MAC_RATIO, [_times(line.cost.mac_ratio if line.cost else None) for line in lines]
    yield _GMACS_REPORTED, [_printed_gmacs(line) for line in lines]
    yield _GMACS, [_gmacs(line) for line in lines]
    yield _TOKENS, ["" if line.cost is None else str(line.cost.seen[-1]) for line in lines]
    yield ColumnHead("verdict", left=True), [_verdict(line, marks) for line in lines]
    yield _SOURCE, [line.reported.confidence if line.reported else "" for line in lines]


def _cost(line: Line) -> str:
    assert line.cost is not None
    reported = "" if line.gflops is None else f", reported {line.gflops}"
    ratio = f"MAC ratio {_times(line.cost.mac_ratio)}"
    tokens = counted(line.cost.seen[-1], "token")
    return f"r = {line.r}: {_gmacs(line)} GMACs{reported}; {ratio}; {tokens} after the last block"


def _missing(missing: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Notes on what is missing, with the runs that lack it."""
    runs: dict[str, list[str]] = {}
    for name, what in missing.items():
        for each in what:
            runs.setdefault(each, []).append(name)
    for each, names in runs.items():
        yield f"not measured: {', '.join(names)}: {each}"


def _sources(lines: Sequence[Line]) -> Iterator[str]:
    hardware: dict[str, dict[str, None]] = {}
    for line in lines:
        if line.reported is not None:
            source = f"{line.reported.source} ({line.reported.confidence})"
            hardware.setdefault(source, {})[line.reported.hardware] = None
    for source, on in hardware.items():
        yield f"reported: {source}; {', '.join(filter(None, on))}".rstrip("; ")


def narrower(found: Layout) -> tuple[Step, ...]:
    """Steps that make the tables narrower, in order; r or choice, top-1, speed-up and verdict always stay."""
    reported = [head for head in found.table(0)[0] if head.endswith(" reported")]
    return (
        *map(without, ("source", "tokens", "img/s")),
        *(Step(head, head.replace("reported", "rep.")) for head in reported if not head.startswith("GMACs")),
        *map(without, ("GMACs reported", "GMACs", "images", "MAC ratio")),
        Step("speed-up [95%]", "speed-up", before(" ["), lost="the interval of the speed-up"),
    )


def context_table(rows: Sequence[Reported]) -> Table:
    """Table of figures that others measured: for context, not to be reproduced."""
    headers = ["model", "training", "size", "method", "r", "acc", "im/s", "GFLOPs", "hardware", "source"]
    cells = [
        [
            row.model,
            row.training,
            row.image_size,
            row.method,
            *("-" if value is None else f"{value:g}" for value in (row.r, row.acc, row.im_s, row.gflops)),
            row.hardware or "not stated",
            row.source,
        ]
        for row in rows
    ]
    return headers, cells


def markdown_text(found: Layout, context: Table, conditions: Sequence[str]) -> str:
    """Write the table as markdown, a section for each part."""
    words = {head.name for head in found.heads if head.left}
    texts = [f"## {markdown(found.title)}"]
    for place, (title, _) in enumerate(found.parts):
        texts += [f"### {markdown(title)}", markdown_table(*found.table(place), words).rstrip()]
    if found.notes:
        texts.append("\n".join(f"- {markdown(note)}" for note in found.notes))
    if context[1]:
        texts += ["### Measured by others, for context", markdown_table(*context, context[0]).rstrip()]
    if conditions:
        texts.append("\n".join(f"- {markdown(line)}" for line in conditions))
    return "\n\n".join(texts) + "\n"


_PAGE = 45
"""Rows that fit a page; a longer table is split into one for each part."""


def latex_text(found: Layout, conditions: Sequence[str]) -> str:
    """Write the table for a LaTeX document with booktabs."""
    notes = (*found.notes, *conditions)
    if sum(len(rows) + 1 for _, rows in found.parts) <= _PAGE:
        return latex_table(found.heads, found.parts, caption=found.title, notes=notes)
    last = len(found.parts) - 1
    return "\n".join(
        latex_table(found.heads, [("", rows)], caption=f"{found.title}. {part}", notes=notes if place == last else ())
        for place, (part, rows) in enumerate(found.parts)
    )


def summary(lines: Sequence[Line]) -> str:
    """Count lines by outcome, e.g. ``2 reproduced, 1 differs, 5 not measured``."""
    counts: dict[str, int] = {}
    for line in lines:
        counts[_outcome(line)] = counts.get(_outcome(line), 0) + 1
    return ", ".join(f"{counts[each]} {each}" for each in _OUTCOMES if each in counts)


def line_object(line: Line) -> dict[str, Any]:
    """A line as a JSON object."""
    cost, row, target = line.cost, line.row, line.target
    return {
        "part": line.part,
        "choice": line.label,
        "r": line.r,
        "verdict": _outcome(line),
        "note": line.note or None,
        "findings": [dataclasses.asdict(finding) for finding in line.findings],
        "reported": None if target is None else dataclasses.asdict(target.reported),
        "reported_speedup": None if target is None else target.speedup,
        "gmacs_reported": None if line.gflops is None else line.gflops.value,
        "gmacs": None if cost is None else cost.gmacs,
        "mac_ratio": None if cost is None else cost.mac_ratio,
        "tokens": None if cost is None else list(cost.seen),
        "row": None if row is None else {column.name: getattr(row, column.name) for column in COLUMNS},
    }


def _letters(n: int) -> str:
    return string.ascii_lowercase[n % 26] * (n // 26 + 1)


def _acc(line: Line) -> str:
    return "" if line.target is None or line.target.acc is None else str(line.target.acc)


def _measured(line: Line) -> str:
    return "" if line.row is None or line.row.top1 is None else f"{line.row.top1:.2f}"


def _images(line: Line) -> str:
    """Right images in this measurement minus those that the paper reports, with sign; empty if not compared."""
    found = [each.images for each in line.findings if each.images is not None]
    return f"{found[0]:+d}" if found else ""


def _times(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}x"


def _rate(line: Line) -> str:
    return "" if line.row is None or line.row.img_per_s is None else f"{line.row.img_per_s:.1f}"


def _reported_speedup(line: Line) -> str:
    return _times(None if line.target is None else line.target.speedup)


def _speedup(line: Line) -> str:
    row = line.row
    if row is None or row.speedup_vs_r0 is None:
        return ""
    limits = interval(row.speedup_vs_r0_lo, row.speedup_vs_r0_hi, ".2f") if row.r else ""
    return f"{row.speedup_vs_r0:.2f}x{limits}"


def _printed_gmacs(line: Line) -> str:
    return "" if line.gflops is None else str(line.gflops)


def _gmacs(line: Line) -> str:
    if line.cost is None:
        return ""
    digits = 2 if line.gflops is None else line.gflops.decimals + 1
    return f"{line.cost.gmacs:.{max(digits, 2)}f}"


_COSTS_AGREE, _TOKENS_AGREE = "agree in GMACs and tokens", "agree in tokens"
_OUTCOMES = (
    "reproduced", "differs", "partial data", "not measured", _COSTS_AGREE, _TOKENS_AGREE, "without a verdict",
)  # fmt: skip


def _outcome(line: Line) -> str:
    if line.differs:
        return "differs"
    for finding in line.findings:
        if finding.quantity == "top-1":
            return finding.verdict
    if not line.findings:
        return "without a verdict"
    return _TOKENS_AGREE if line.gflops is None else _COSTS_AGREE


def _verdict(line: Line, marks: Mapping[str, str]) -> str:
    mark = f" {marks[line.note]}" if line.note else ""
    if wrong := [finding.quantity for finding in line.findings if finding.verdict == "differs"]:
        return f"{', '.join(wrong)} differ{'s' if wrong in (['top-1'], ['model']) else ''}{mark}"
    for finding in line.findings:
        if finding.quantity == "top-1":
            return finding.verdict + mark
    if line.cost is None or (line.reported is not None and line.note):
        return f"no verdict{mark}"
    return ("costs agree" if line.gflops is not None else "tokens agree") + mark


def _difference(line: Line, detail: str) -> str:
    row = line.row
    text = f"{line.part}, r = {line.r}{f', {line.label}' * bool(line.label)}: {detail}"
    if row is not None and not row.r:
        mean, std = (" ".join(f"{value:.4g}" for value in values) for values in (row.mean, row.std))
        text += f"; look at the weights and at crop {row.crop_pct:.3g}, {row.interpolation}, mean {mean}, std {std}"
    return text
