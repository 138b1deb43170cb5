"""Write the report files of a run and print its final screen; shared by the commands that end with a table."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tomebench.cli.console import Screen
from tomebench.cli.following import is_unnamed, next_command
from tomebench.report.alternative import best_alternative
from tomebench.report.codes import brief_lines, warning_lines
from tomebench.report.conditions import compact_conditions
from tomebench.report.headline import Answer, answer
from tomebench.report.tables import jsonl_text
from tomebench.report.text import ReportContext, context_for, display_table, narrower, yardsticks
from tomebench.report.write import write_reports
from tomebench.runs.row import Row
from tomebench.schema import MAX_DROP
from tomebench.sweeps.config import command_line


def write_run(
    directory: Path, rows: Sequence[Row], config: dict[str, Any], max_drop: float = MAX_DROP, *, keep: bool = True
) -> ReportContext:
    """Write table.csv, rows.jsonl, summary.md and figure.png of one run.

    Args:
        directory: the run folder.
        rows: of the run.
        config: its settings.
        max_drop: largest tolerable loss in points; no setting that identifies a run.
        keep: write the files; False only returns the context.

    Returns:
        The context to print around its table, with the paths written.
    """
    config = {**config, "max_drop": max_drop}
    context = context_for(
        rows,
        f"tomebench {directory.resolve().name}",
        command=None if is_unnamed(config) else command_line(config),
        next_command=next_command(rows, config, directory),
        max_drop=max_drop,
        checkpoint=config.get("checkpoint"),
    )
    paths = write_reports(directory, rows, context) if keep else []
    return dataclasses.replace(context, paths=tuple(map(str, paths)))


def show(screen: Screen, rows: Sequence[Row], context: ReportContext) -> None:
    """Print the final screen: recommendation, table, remarks, and the conditions that a pasted table needs."""
    found, also = answer(rows, context.max_drop), yardsticks(rows, context.max_drop)
    other = best_alternative(rows, context.max_drop)
    if screen.as_json:
        table = [json.loads(line) for line in jsonl_text(rows).splitlines()]
        said = [text for text in (found and found.text, also, other) if text]
        screen.object(
            {**dataclasses.asdict(context), "answer": found and _plain(found), "sentences": said, "rows": table}
        )
        return
    screen.line()
    if found:
        screen.line(found.text, style="bold")
        if also and screen.details:
            screen.line(also)
        if other:
            screen.line(other)
        screen.line()
    headers, cells = display_table(rows)
    lost = screen.table(
        headers,
        cells,
        left=("notes", *headers[: headers.index("r")]),
        steps=narrower(rows),
        keys=headers[: headers.index("r") + 1],
    )
    screen.line()
    tell(screen, rows, context, lost)
    if context.next_command:
        screen.next(context.next_command)


def _plain(found: Answer) -> dict[str, Any]:
    """An answer as a JSON object: with r and run of the recommended row, None where there is none."""
    fields = {name: getattr(found, name) for name in ("choice", "text", "images", "rounds", "processes")}
    return {"r": found.row and found.row.r, "run": found.row and found.row.run, **fields}


def tell(screen: Screen, rows: Sequence[Row], context: ReportContext, lost: Sequence[str] = ()) -> None:
    """Print what stands below a table: remarks, conditions, and files written.

    Args:
        screen: to print on.
        rows: of the table.
        context: of the rows.
        lost: what the table leaves out.
    """
    of_rows = warning_lines(rows)
    others = [("", line) for line in context.warnings if line not in of_rows]
    screen.remarks([*others, *brief_lines(rows, screen.width - 2)], context.warnings, lost)
    if context.warnings and screen.details:
        screen.line()
    for condition in context.conditions if screen.details else [compact_conditions(rows, context.checkpoint)]:
        screen.line(condition)
    for folder, files in itertools.groupby(map(Path, context.paths), lambda path: path.parent):
        screen.line(f"written to {folder}: {', '.join(file.name for file in files)}", whole=[str(folder)])
