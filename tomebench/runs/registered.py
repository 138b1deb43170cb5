"""Registry of the status and warning codes: :mod:`tomebench.runs.codes` declares them."""

from __future__ import annotations

from collections.abc import Callable

from tomebench.runs.evidence import Code, RowEvidence, RunEvidence

SAME_AS_R = "SAME_AS_R"
"""Followed by the r of an earlier row that removes the same number of tokens in every block: this row repeats it."""
CODES: dict[str, Code] = {}
"""Every code by name, in the order of the report."""


def row_codes(row: RowEvidence) -> list[str]:
    """Codes that a row gets for itself, without those of its run."""
    return [name for name, code in _placed() if code.of_row and code.of_row(row)]


def run_codes(run: RunEvidence) -> list[str]:
    """Codes that a run, and so each of its rows, gets."""
    return [name for name, code in _placed() if code.of_run and code.of_run(run)]


def _placed() -> list[tuple[str, Code]]:
    return sorted(CODES.items(), key=lambda item: item[1].place)


def code(
    name: str,
    *,
    note: str,
    mark: str,
    brief: str,
    text: str,
    grave: bool = False,
    invalid: bool = False,
    of_row: Callable[[RowEvidence], bool] | None = None,
    of_run: Callable[[RunEvidence], bool] | None = None,
    place: int = 1000,
) -> str:
    """Register a code; returns its name.

    Raises:
        ValueError: there is a code of that name, or :data:`SAME_AS_R` begins it.
    """
    if name in CODES or name.startswith(SAME_AS_R):
        raise ValueError(f"there is a code {name} already")
    CODES[name] = Code(note, mark, brief, text, grave or invalid, invalid, of_row, of_run, place)
    return name
