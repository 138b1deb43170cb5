"""Rows as text: csv with full precision, JSON lines, and markdown tables."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Collection, Sequence
from typing import Any

from tomebench.report.escape import clean, csv_guard, markdown
from tomebench.runs.row import COLUMNS, Column, Row


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
    writer.writerows([_csv_cell(cell(row, column)) for column in COLUMNS] for row in rows)
    return file.getvalue()


def cell(row: Row, column: Column) -> int | float | str | None:
    """Value of a row in a column of a table: text is cleaned, a list is text with spaces between its items.

    Returns:
        None where nothing was measured, and for empty text: a csv file cannot tell the two apart.

    Raises:
        ValueError: a float that is NaN or infinite; measured values never are.
    """
    value: Any = getattr(row, column.name)
    if value is None:
        return None
    match column.dtype:
        case "float":
            if not math.isfinite(value):
                raise ValueError(f"{column.name} is {value} at r = {row.r}; a measured value is finite or None")
            return float(value)
        case "str":
            return clean(value) or None
        case "ints" | "floats" | "strs":
            return " ".join(clean(item) if isinstance(item, str) else repr(item) for item in value) or None
    return value


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


def _csv_cell(value: int | float | str | None) -> str:
    if value is None:
        return ""
    return csv_guard(value) if isinstance(value, str) else repr(value)
