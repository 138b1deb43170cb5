"""Rows as text: csv with full precision, JSON lines, and markdown tables."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Collection, Sequence

import pandas as pd

from tomebench.report.escape import csv_guard, markdown
from tomebench.report.frames import to_frame
from tomebench.runs.row import COLUMNS, Row


def csv_text(rows: Sequence[Row]) -> str:
    """Write rows as csv with a header: floats as ``repr`` writes them, an empty field where not measured.

    Text that a spreadsheet could take for a formula gets a leading apostrophe; numbers are left alone.
    :func:`tomebench.report.frames.read_csv` reads back exactly ``to_frame(rows)``.

    Raises:
        ValueError: a float that is NaN or infinite.
    """
    file = io.StringIO(newline="")
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([column.name for column in COLUMNS])
    writer.writerows([_csv_cell(value) for value in line] for line in to_frame(rows).itertuples(index=False))
    return file.getvalue()


def jsonl_text(rows: Sequence[Row]) -> str:
    """Write rows as JSON lines with the keys of ``COLUMNS``: lists are arrays, null where not measured, ASCII only.

    Raises:
        ValueError: a float that is NaN or infinite.
    """
    records = ({column.name: getattr(row, column.name) for column in COLUMNS} for row in rows)
    lines = (json.dumps(record, allow_nan=False) + "\n" for record in records)
    return "".join(line.replace("##[", "##\\u005b") for line in lines)  # same value; no build log sees a command


def markdown_table(headers: Sequence[str], rows: Sequence[Sequence[str]], words: Collection[str] = ("notes",)) -> str:
    """Write a padded markdown table; columns other than ``words`` are right-aligned. Texts are escaped here."""
    lines = [[markdown(cell) for cell in line] for line in (headers, *rows)]
    widths = [max(3, *map(len, column)) for column in zip(*lines, strict=True)]
    left = [name in words for name in headers]
    rule = ["-" * width if is_left else "-" * (width - 1) + ":" for width, is_left in zip(widths, left, strict=True)]

    def join(cells: Sequence[str]) -> str:
        padded = (c.ljust(w) if is_left else c.rjust(w) for c, w, is_left in zip(cells, widths, left, strict=True))
        return "| " + " | ".join(padded) + " |\n"

    return join(lines[0]) + join(rule) + "".join(join(line) for line in lines[1:])


def _csv_cell(value: object) -> str:
    if value is pd.NA:
        return ""
    if isinstance(value, str):
        return csv_guard(value)
    return repr(float(value)) if isinstance(value, float) else str(value)
