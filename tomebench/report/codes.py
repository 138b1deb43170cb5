"""Texts of status and warning codes: the notes of a row, and the lines below the table that explain them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from tomebench.report.escape import clean
from tomebench.report.series import which, widest_half_width
from tomebench.runs.codes import CODES, DRIFT, INTERRUPTED, NOT_STEADY, R_CLAMPED
from tomebench.runs.row import Row

EXPLANATIONS: Mapping[str, str] = {code: about.text for code, about in CODES.items()}
"""What each code means and what to do next."""

_SAME_AS = re.compile(r"SAME_AS_R(\d+)")
_WITH_ERRORS = ("failed", "oom", "nonfinite")  # the only statuses with an error text


def notes(row: Row) -> str:
    """Notes of a row: its codes in a few words, e.g. ``±2.3 %, unconverged, cap``."""
    words = []
    if row.status == "unconverged" and (width := widest_half_width(row)) is not None:
        words.append(f"±{100 * width:.1f} %")
    for code in _codes(row):
        same = _SAME_AS.fullmatch(code)
        words.append(f"same as r={same[1]}" if same else CODES[code].note if code in CODES else clean(code))
    return ", ".join(words)


def short_notes(rows: Sequence[Row]) -> list[str]:
    """Notes of every row as short marks, e.g. ``unc cap``; codes that every row has are left out."""
    everywhere = set.intersection(*(set(_codes(row)) for row in rows)) if len(rows) > 1 else set()
    return [" ".join(_mark(code) for code in _codes(row) if code not in everywhere) for row in rows]


def warning_lines(rows: Sequence[Row]) -> tuple[str, ...]:
    """One line per status or warning code that occurs: the code, the rows, what it means and what to do."""
    lines = []
    for code, members in _found(rows).items():
        text = EXPLANATIONS.get(code, "see this code in the column warnings of table.csv")
        if same := _SAME_AS.fullmatch(code):
            text = (
                f"these remove the same tokens as r = {same[1]} in every block; leave them out, any difference is noise"
            )
        if code in _WITH_ERRORS:
            errors = _errors(members)
            text = "; ".join([text, *errors[:2], *["more in the column error of table.csv"] * (len(errors) > 2)])
        lines.append(f"{clean(code)} ({which(rows, members)}): {text}")
    return tuple(lines)


def brief_lines(rows: Sequence[Row], width: int) -> list[tuple[str, str]]:
    """The lines of :func:`warning_lines` in brief, the gravest first: (mark of the code, line).

    A line names its rows, and an error, if ``width`` has room; the notes and ``table.csv`` have them, too.
    """
    found = _found(rows)
    lines = []
    if NOT_STEADY in found:
        found.pop(DRIFT, None)  # NOT_STEADY includes it
    for code in sorted(found, key=lambda code: not (code in CODES and CODES[code].grave)):
        brief = CODES[code].brief if code in CODES else "see the column warnings of table.csv"
        if same := _SAME_AS.fullmatch(code):
            brief = f"the same tokens as at r = {same[1]}: leave them out"
        mark = _mark(code)
        name = clean(code) if mark.lower() in code.lower() or same else f"{mark}, {code}"
        if code in _WITH_ERRORS and len(errors := _errors(found[code])) == 1:
            brief = _longest((f"{brief}; {errors[0]}", errors[0], brief), width - len(name) - 2)
        place = f"{name} ({which(rows, found[code])})"
        lines.append((mark, _longest((f"{place}: {brief}", f"{name}: {brief}"), width)))
    return lines


def _found(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Rows by code, in the order of CODES; unknown codes last, in order of occurrence."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        for code in _codes(row):
            found.setdefault(code, []).append(row)
    rank = {code: number for number, code in enumerate(CODES)}
    return {code: found[code] for code in sorted(found, key=lambda code: rank.get(code, len(rank)))}


def _codes(row: Row) -> list[str]:
    # An interrupted row has a wide interval anyway, and needs to be continued, not a larger budget.
    unsaid = ("ok", "unconverged") if INTERRUPTED in row.warnings else ("ok",)
    status = [] if row.status in unsaid else [row.status]
    clamped = [R_CLAMPED] if row.clamped else []
    return list(dict.fromkeys([*status, *clamped, *row.warnings]))


def _mark(code: str) -> str:
    if same := _SAME_AS.fullmatch(code):
        return f"=r{same[1]}"
    return CODES[code].mark if code in CODES else clean(code)


def _errors(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(clean(row.error) for row in rows if row.error))


def _longest(texts: Sequence[str], width: int) -> str:
    """The first of the texts that fits into ``width``, else the last."""
    return next((text for text in texts if len(text) <= width), texts[-1])
