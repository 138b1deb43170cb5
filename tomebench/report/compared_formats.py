"""The views of ``tomebench compare`` as markdown, LaTeX, csv, and as records for JSON."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from tomebench.compare.points import Comparison
from tomebench.compare.views import Entry, View
from tomebench.report.compared import WORDS, Section, legend
from tomebench.report.escape import clean, csv_guard, markdown
from tomebench.report.latex import ColumnHead, latex_table

FIELDS = (
    "setting", "question", "limit", "target", "off", "method", "training", "point", "model", "img_size", "r", "options",
    "schedule", "tokens_out", "tokens_out_mean", "gmacs", "speedup", "speedup_lo", "speedup_hi", "speedup_over",
    "seeds", "top1", "top1_sd", "images", "drop", "drop_lo", "drop_hi", "against", "lost", "gained", "difference",
    "difference_lo", "difference_hi", "p", "p_holm", "verdict", "images_needed", "nearest", "nearest_drop",
    "dominated_by",
)  # fmt: skip
"""Columns of the csv, and fields of a record. Speeds are ratios, accuracies per cent, differences points."""


def markdown_text(sections: Sequence[Section], below: Sequence[str]) -> str:
    """Write all tables as markdown, each under its question, and below them the lines of :func:`about`."""
    from tomebench.report.tables import markdown_table  # which loads pandas

    parts = ["# Comparison"]
    for each in sections:
        parts += [f"## {markdown(each.title)}", markdown_table(*each.table, WORDS).rstrip()]
        parts += ["\n".join(f"- {markdown(note)}" for note in each.notes)] * bool(each.notes)
    return "\n\n".join([*parts, "\n".join(f"- {markdown(line)}" for line in below)]) + "\n"


def latex_text(sections: Sequence[Section], below: Sequence[str]) -> str:
    """Write one ``table*`` a question, each complete with the lines of :func:`about`."""
    tables = []
    for each in sections:
        heads, rows = each.table
        columns = [ColumnHead(head, left=head in WORDS) for head in heads]
        tables.append(latex_table(columns, [("", rows)], caption=each.title, notes=[*each.notes, *below]))
    return "\n".join(tables)


def about(comparisons: Sequence[Comparison], remarks: Sequence[str] = ()) -> list[str]:
    """What stands below all tables: what the columns mean, remarks, and the setting.

    Args:
        comparisons: whose tables they are.
        remarks: on the runs.
    """
    lines = []
    for each in comparisons:
        name = f"{clean(each.setting)}: " if len(comparisons) > 1 else ""
        lines += [f"{name}{legend(each)}", *(f"{name}{clean(remark)}" for remark in each.remarks)]
    settings = [] if len(comparisons) > 1 else [clean(each.setting) for each in comparisons]
    return [*dict.fromkeys(lines), *map(clean, remarks), *settings]


def csv_text(views: Sequence[tuple[Comparison, View]]) -> str:
    """Write every entry of every view as a line of csv, floats as ``repr`` writes them, empty where not known."""
    file = io.StringIO(newline="")
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(FIELDS)
    writer.writerows([_cell(record[field]) for field in FIELDS] for record in records(views))
    return file.getvalue()


def _cell(value: object) -> str:
    return "" if value is None else csv_guard(value) if isinstance(value, str) else repr(value)


def records(views: Sequence[tuple[Comparison, View]]) -> list[dict[str, Any]]:
    """Every entry of every view, with the keys ``FIELDS``; None where not known."""
    return [
        {**dict.fromkeys(FIELDS), **_record(comparison, view, entry)}
        for comparison, view in views
        for entry in view.entries
    ]


def _record(comparison: Comparison, view: View, entry: Entry) -> Mapping[str, Any]:
    found: dict[str, Any] = {
        "setting": clean(comparison.setting),
        "question": view.kind,
        "limit": view.limit,
        "method": clean(entry.line.name),
        "training": entry.line.training,
        "against": view.against and clean(view.against.name),
        "verdict": entry.verdict,
        "images_needed": entry.images,
        "p_holm": entry.holm,
    }
    if entry.target is not None:
        found |= {"target": entry.target.value, "off": entry.target.off}
    if entry.nearest is not None:
        found |= {"nearest": clean(entry.nearest.label), "nearest_drop": entry.nearest.lost}
    if entry.dominated_by is not None:
        found["dominated_by"] = clean(" ".join((entry.dominated_by[0].name, entry.dominated_by[1].label)))
    if (versus := entry.versus) is not None:
        ends = versus.interval
        found |= {"lost": versus.lost, "gained": versus.gained, "p": versus.p, "difference": 100 * versus.delta}
        found |= {"difference_lo": 100 * ends.lo, "difference_hi": 100 * ends.hi}
    if (point := entry.point) is None:
        return found
    row = point.row
    found |= {name: clean(getattr(row, name)) for name in ("model", "options", "schedule")}
    found |= {each: getattr(row, each) for each in ("img_size", "r", "tokens_out", "tokens_out_mean", "gmacs")}
    found |= {"point": clean(point.label), "seeds": len(point.rows), "top1": point.top1}
    found["top1_sd"] = point.spread and point.spread[0]
    found["images"] = None if point.right is None else len(point.right.right)
    if point.speed is not None:
        found |= {"speedup": point.speed.value, "speedup_lo": point.speed.lo, "speedup_hi": point.speed.hi}
        found["speedup_over"] = comparison.over and clean(comparison.over)
    if point.drop is not None:
        ends = point.drop.interval
        found |= {"drop": point.lost, "drop_lo": -100 * ends.hi, "drop_hi": -100 * ends.lo}
    return found
