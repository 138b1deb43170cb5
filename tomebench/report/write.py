"""Write the files of a report: ``table.csv``, ``rows.jsonl``, ``summary.md`` and ``figure.png``.

All are written under temporary names first, then renamed, so that a reader never sees half a file, and existing files
stay as they were if any new one cannot be written.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from tomebench.errors import StorageError
from tomebench.report.escape import clean, markdown
from tomebench.report.figures import speed_accuracy_figure
from tomebench.report.tables import csv_text, jsonl_text, markdown_table
from tomebench.report.text import ReportContext, detail_table, display_table, sentence, yardsticks
from tomebench.runs.row import Row
from tomebench.whole import beside, write_new

TABLE, ROWS, SUMMARY, FIGURE = "table.csv", "rows.jsonl", "summary.md", "figure.png"

_LEGEND = (
    "Intervals are 95 %. The speed-up is paired: each round times every r and r = 0. Δ is in points, on the same "
    "images. `-` is not measured."
)


def write_reports(directory: Path, rows: Sequence[Row], context: ReportContext) -> list[Path]:
    """Write ``table.csv``, ``rows.jsonl``, ``figure.png`` and ``summary.md`` into ``directory``, made if missing.

    Without matplotlib or without a speed-up there is no figure, and the summary says why.

    Returns:
        The files written, in the order above.

    Raises:
        StorageError: the disk is full, the folder read-only, ...; earlier files are unchanged.
        ValueError: a float in a row is NaN or infinite.
    """
    staged: dict[Path, Path] = {}  # target -> finished temporary file
    try:
        directory.mkdir(parents=True, exist_ok=True)
        _stage(staged, directory / TABLE, lambda path: write_new(path, csv_text(rows)))
        _stage(staged, directory / ROWS, lambda path: write_new(path, jsonl_text(rows)))
        reasons: list[str | None] = []
        drawn = functools.partial(speed_accuracy_figure, conditions=context.conditions, max_drop=context.max_drop)
        _stage(staged, directory / FIGURE, lambda path: reasons.append(drawn(rows, path)))
        no_figure = reasons[0]
        _stage(staged, directory / SUMMARY, lambda path: write_new(path, summary_text(rows, context, no_figure)))
        written = list(staged)
        for target in written:
            staged[target].replace(target)
            del staged[target]
        _sync(directory)
    except OSError as error:
        where = clean(str(directory))
        reason = error.strerror or clean(str(error))
        message = f"cannot write the report in {where}: {reason}; make room or access, then run: tomebench report RUN"
        raise StorageError(message) from error
    finally:
        for temporary in staged.values():
            temporary.unlink(missing_ok=True)
    return written


def summary_text(rows: Sequence[Row], context: ReportContext, no_figure: str | None = None) -> str:
    """The report as markdown: conditions, table, recommendation, figure, warnings, details, command to measure again.

    Args:
        rows: to show; may be empty.
        context: text around them.
        no_figure: why there is no figure; None: there is one, and it is linked.
    """
    said = sentence(rows, context.max_drop), yardsticks(rows, context.max_drop)
    parts = [
        f"# {markdown(context.title)}",
        _bullets(context.conditions),
        markdown_table(*display_table(rows)).rstrip() if rows else "No rows.",
        "\n".join(markdown(line) + "." for line in said if line),
        _LEGEND if rows else "",
        "![Speed and accuracy for every r](figure.png)" if no_figure is None else markdown(no_figure) + ".",
        "## Warnings\n\n" + _bullets(context.warnings) if context.warnings else "",
        "## Details\n\n" + markdown_table(*detail_table(rows)).rstrip() if rows else "",
        "## Again\n\n    " + clean(context.command) if context.command else "",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"- {markdown(line)}" for line in lines)


def _stage(staged: dict[Path, Path], target: Path, make: Callable[[Path], object]) -> None:
    """Write ``target`` under a temporary name beside it and flush it to disk; not staged if ``make`` wrote nothing."""
    temporary = beside(target)
    staged[target] = temporary
    make(temporary)
    if temporary.exists():
        _sync(temporary)
    else:
        del staged[target]


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
