"""Speed-ups of a comparison: which of them are over the same r = 0, so that they can be compared."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal

import numpy as np

from tomebench.compare.names import is_plain, model_of, place
from tomebench.compare.points import Speed
from tomebench.compare.read import Measured
from tomebench.runs.codes import INVALID
from tomebench.runs.row import Row

SpeedColumn = Literal["speedup_vs_reference", "speedup_vs_r0"]
_ENDS = ("", "_lo", "_hi")


def timed_by(measured: Measured, column: SpeedColumn) -> bool:
    """Whether a row has a valid speed-up in a column."""
    return getattr(measured.row, column) is not None and not INVALID & {*measured.row.warnings}


def is_reference(row: Row) -> bool:
    """Whether a row is r = 0 of the common reference itself, whose speed-up over it is 1 by definition."""
    ends = {row.speedup_vs_reference_lo, row.speedup_vs_reference_hi}
    return row.reference is not None and is_plain(row) and ends == {1.0}


def over_the_reference(measured: Sequence[Measured]) -> list[Measured]:
    """Rows of runs without a reference, whose r = 0 is that of others, with their speed-ups over r = 0 as over it.

    Model and input size say which it is: speed does not depend on weights. All other rows are as they were.
    """
    known = {(each.row.model, each.row.img_size): each.row.reference for each in measured if is_reference(each.row)}
    bases = {each.run: (each.row.model, each.row.img_size) for each in measured if is_plain(each.row)}
    found = []
    for each in measured:
        name = known.get(bases.get(each.run, ("", 0)))
        if each.row.reference is None and name is not None and each.row.speedup_vs_r0 is not None:
            values = {f"speedup_vs_reference{end}": getattr(each.row, f"speedup_vs_r0{end}") for end in _ENDS}
            row = dataclasses.replace(each.row, reference=name, **values)
            found.append(dataclasses.replace(each, row=row))
        else:
            found.append(each)
    return found


def common_speed(measured: Sequence[Measured]) -> tuple[SpeedColumn | None, str | None, str]:
    """Column of the speed-ups that can be compared, what they are over, and a remark."""
    timed = [each for each in measured if timed_by(each, "speedup_vs_r0")]
    compared = [each for each in timed if timed_by(each, "speedup_vs_reference")]
    references = {each.row.reference for each in compared}
    if len(references) == 1 and len({each.run for each in timed}) == len({each.run for each in compared}):
        return "speedup_vs_reference", references.pop() or "the reference", _other_testbed(compared)
    if len({each.run for each in timed}) == 1:
        several = len({model_of(each.row) for each in measured}) > 1
        return "speedup_vs_r0", place(timed[0].row) if several else "r=0", ""
    if not timed:
        return None, None, "nothing was timed, so nothing is said of measured speed"
    return (
        None,
        None,
        (
            "measured speeds cannot be compared: each speed-up is over r=0 of its own run; "
            "measure the runs with one common reference"
        ),
    )


def _other_testbed(measured: Sequence[Measured]) -> str:
    different = len({each.row.testbed for each in measured}) > 1
    return "runs were timed on different testbeds: their speed-ups are of different machines" if different else ""


def speed_of(rows: Sequence[Row], column: SpeedColumn) -> Speed:
    """Geometric mean over seeds; of the ends of the intervals, too, as if the seeds had one error."""
    ends = [[getattr(row, column + end) for row in rows] for end in _ENDS]
    return Speed(*(None if None in each else float(np.exp(np.mean(np.log(each)))) for each in ends))  # type: ignore[arg-type]
