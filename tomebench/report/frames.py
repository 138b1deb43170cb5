"""Rows as a typed pandas data frame; read ``table.csv`` back into the same frame."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from tomebench.errors import StorageError
from tomebench.report.escape import clean, csv_unguard
from tomebench.report.tables import cell
from tomebench.runs.row import COLUMNS, Row

_DTYPES: Mapping[str, str] = {"int": "Int64", "float": "Float64", "bool": "boolean"}
_READ: Mapping[str, Callable[[str], Any]] = {
    "int": int,
    "float": float,
    "bool": {"True": True, "False": False}.__getitem__,
}


def to_frame(rows: Sequence[Row]) -> pd.DataFrame:
    """Make a data frame of rows: columns in the order of ``COLUMNS``, dtypes Int64, Float64, boolean and string.

    Values are those of :func:`tomebench.report.tables.cell`, with ``pd.NA`` for None.

    Raises:
        ValueError: a float that is NaN or infinite; measured values never are.
    """
    return _frame({column.name: [cell(row, column) for row in rows] for column in COLUMNS})


def read_csv(path: Path) -> pd.DataFrame:
    """Read ``table.csv`` into the data frame that it was written from, value for value and dtype for dtype.

    Raises:
        StorageError: the file cannot be read, or is not a table of this version.
    """
    advice = "rebuild it with: tomebench report RUN"
    names = [column.name for column in COLUMNS]
    try:
        with path.open(encoding="utf-8", newline="") as file:
            header, *lines = list(csv.reader(file, strict=True)) or [[]]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise StorageError(f"cannot read {path}: {_reason(error)}; {advice}") from error
    if header != names:
        odd = sorted(set(header) ^ set(names)) or ["their order"]
        raise StorageError(f"{path} does not have the columns of this version ({clean(odd[0])}); {advice}")
    values: dict[str, list[Any]] = {name: [] for name in names}
    for number, line in enumerate(lines, start=2):
        if len(line) != len(names):
            raise StorageError(f"{path} line {number} has {len(line)} of {len(names)} fields; {advice}")
        for column, text in zip(COLUMNS, line, strict=True):
            try:
                values[column.name].append(_READ.get(column.dtype, csv_unguard)(text) if text else None)
            except (ValueError, KeyError) as error:
                message = f"{path} line {number}: {column.name} cannot be {clean(text)!r}; {advice}"
                raise StorageError(message) from error
    return _frame(values)


def _frame(values: Mapping[str, list[Any]]) -> pd.DataFrame:
    arrays = {c.name: pd.array(values[c.name], dtype=_DTYPES.get(c.dtype, "string")) for c in COLUMNS}
    return pd.DataFrame(arrays)


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or clean(str(error))
