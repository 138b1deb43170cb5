"""From rows to files and to the final screen: shared by the commands that end with a table."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tomebench.cli.console import Screen
from tomebench.cli.following import is_unnamed, next_command
from tomebench.report.tables import jsonl_text
from tomebench.report.text import ReportContext, context_for, display_table, sentence, yardsticks
from tomebench.report.write import write_reports
from tomebench.schema import MAX_DROP, Row
from tomebench.sweeps.config import command_line
from tomebench.sweeps.rows import build_rows
from tomebench.sweeps.store import Store


def read_run(directory: Path) -> tuple[list[Row], dict[str, Any]]:
    """Rows and configuration of a stored run.

    Raises:
        RunError: there is no run in the folder, or it holds no results yet.
        StorageError: the store is damaged.
    """
    with Store.read(directory) as store:
        return list(build_rows(store)), store.config


def write_run(
    directory: Path, rows: Sequence[Row], config: dict[str, Any], max_drop: float = MAX_DROP
) -> ReportContext:
    """Write table.csv, rows.jsonl, summary.md and figure.png of one run.

    Args:
        directory: the run folder.
        rows: of the run.
        config: what identifies it.
        max_drop: loss in points up to which a row may be recommended; no part of what identifies a run.

    Returns:
        What to say around its table, the paths written included.
    """
    config = {**config, "max_drop": max_drop}
    context = context_for(
        rows,
        f"tomebench {directory.resolve().name}",
        command=None if is_unnamed(config) else command_line(config),
        next_command=next_command(rows, config),
        max_drop=max_drop,
    )
    paths = write_reports(directory, rows, context)
    return dataclasses.replace(context, paths=tuple(map(str, paths)))


def show(screen: Screen, rows: Sequence[Row], context: ReportContext) -> None:
    """The final screen, complete enough to be pasted: table, sentence, warnings, conditions, files, what to try."""
    said = [text for text in (sentence(rows, context.max_drop), yardsticks(rows, context.max_drop)) if text]
    if screen.as_json:
        table = [json.loads(line) for line in jsonl_text(rows).splitlines()]
        screen.object({**dataclasses.asdict(context), "sentences": said, "rows": table})
        return
    headers, cells = display_table(rows)
    screen.line()
    screen.table(headers, cells)
    screen.line()
    for text in said:
        screen.line(text, style="bold")
    for warning in context.warnings:
        screen.line(f"! {warning}", style="yellow")
    screen.line()
    for condition in context.conditions:
        screen.line(condition)
    for folder, files in itertools.groupby(map(Path, context.paths), lambda path: path.parent):
        screen.line(f"written to {folder}: {', '.join(file.name for file in files)}")
    if context.next_command:
        screen.line(f"next: {context.next_command}")
