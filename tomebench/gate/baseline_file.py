"""Read and write baseline files of the gate (JSON), with a size cap and full validation.

A file may come with a stranger's pull request.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NoReturn

from pydantic import ValidationError

from tomebench.datasets.decode import printable
from tomebench.errors import BaselineError, StorageError
from tomebench.gate.records import FORMAT, VERSION, Snapshot
from tomebench.regular import read_bytes
from tomebench.whole import write_whole

MAX_BYTES = 64 * 2**20
"""Largest baseline file that is read. All r of a model on all of ImageNet take about a hundredth of it."""
_MAX_DEPTH = 20
REMEDY = "write one with: tomebench check RUN --update-baseline --baseline FILE"
"""Advice for a file that is no baseline."""


def read_baseline(path: Path) -> Snapshot:
    """Read a baseline file.

    Raises:
        BaselineError: missing, unreadable, too large, truncated, not a baseline, of another version, or with invalid
            values (NaN, a length that does not fit, an unknown field).
    """
    try:
        data = read_bytes(str(path), most=MAX_BYTES)
    except OSError as error:
        raise BaselineError(f"baseline {path}: {error.strerror or error}; {REMEDY}") from error
    if not data.strip():
        raise BaselineError(f"baseline {path} is empty; {REMEDY}")
    try:
        value = json.loads(data, parse_constant=_refuse_constant)
        _check_depth(value)
    except (ValueError, RecursionError) as error:
        what = "nested too deeply" if isinstance(error, RecursionError) else str(error).partition("\n")[0][:120]
        raise BaselineError(f"baseline {path} is not complete JSON ({what}); restore it, or {REMEDY}") from error
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        raise BaselineError(f"baseline {path} is JSON but no baseline of tomebench; {REMEDY}")
    if value.get("version") not in range(1, VERSION + 1):
        found = str(value.get("version"))[:20]
        raise BaselineError(f"baseline {path} has version {found}, this tomebench knows {VERSION}; {REMEDY}")
    try:
        return Snapshot.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = printable(".".join(map(str, first["loc"])))[:80] or "the file"
        message = first["msg"].removeprefix("Value error, ")
        raise BaselineError(f"baseline {path}: {where}: {message[:120]}; restore it, or {REMEDY}") from error


def write_baseline(path: Path, snapshot: Snapshot) -> None:
    """Write a baseline file beside its place and rename it, so that no reader sees half of it.

    Raises:
        StorageError: it cannot be written; an earlier baseline is unchanged.
    """
    text = json.dumps(snapshot.model_dump(mode="json"), indent=1, allow_nan=False)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, text + "\n")
    except OSError as error:
        raise StorageError(f"baseline {path} cannot be written: {error.strerror}; check the folder") from error


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")


def _check_depth(value: Any, depth: int = 0) -> None:
    if depth > _MAX_DEPTH:
        raise RecursionError
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for child in children:
        if isinstance(child, dict | list):
            _check_depth(child, depth + 1)
