"""Make the lines of a comparison: one for each method, and for its plain rivals, a smaller input and a smaller model.

Rows that differ in the seed only are one point. Drops are against one row, the base, which is r = 0 of the reference or
of the model and input with most MACs; all top-1 are of the images that every row was evaluated on.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from tomebench import stats
from tomebench.compare.points import Comparison, Line, Point, Speed
from tomebench.compare.read import Measured
from tomebench.reduction.registry import METHODS
from tomebench.runs.codes import INVALID, SAME_AS_R
from tomebench.runs.row import Row
from tomebench.stats import ShareDelta, Shares
from tomebench.words import counted

SMALLER_INPUT, OTHER_INPUT = "smaller input", "other input"
SMALLER_MODEL, OTHER_MODEL = "smaller model", "other model"
_SETTING = ("device", "dtype", "batch_size", "mode", "compile", "cuda_graphs", "attention")
"""Columns within which methods are compared: the base has the same."""
_SEED = re.compile(r"(?:^| )seed=\S+")
_LONGEST_SCHEDULE = 24

SpeedColumn = Literal["speedup_vs_reference", "speedup_vs_r0"]


def comparisons(measured: Sequence[Measured]) -> list[Comparison]:
    """Compare rows: one comparison for each setting (device, dtype, batch size, ...), in order of their names.

    The order of the rows has no effect.
    """
    groups: dict[tuple[object, ...], list[Measured]] = {}
    for each in measured:
        groups.setdefault(tuple(getattr(each.row, field) for field in _SETTING), []).append(each)
    found = [_comparison(sorted(some, key=_order)) for some in groups.values()]
    return sorted((each for each in found if each is not None), key=lambda each: each.setting)


def _order(measured: Measured) -> tuple[object, ...]:
    """Sort key of rows, whatever the order of the runs: as lines and points are shown."""
    row = measured.row
    rank = list(METHODS).index(row.method) if row.method in METHODS else len(METHODS)
    by_name = (row.schedule, _options(row), row.model, row.weights, -row.img_size)
    return (rank, row.method, *by_name, row.r, row.options, row.top1_correct or 0, measured.run)


def _options(row: Row) -> str:
    """Options of a row but the seed."""
    return _SEED.sub("", row.options).strip()


def _is_plain(row: Row) -> bool:
    return row.r == 0 and not row.schedule.startswith("list:")


def _model(row: Row) -> tuple[str, str, int]:
    """Model, weights and input of a row."""
    return (row.model, row.weights, row.img_size)


def _comparison(measured: Sequence[Measured]) -> Comparison | None:
    """Compare the rows of one setting; None where no r = 0 is among them."""
    used = [each for each in measured if each.row.status in ("ok", "unconverged")]
    used = [each for each in used if not any(code.startswith(SAME_AS_R) for code in each.row.warnings)]
    plain: dict[tuple[str, str, int], Measured] = {}
    for each in used:
        if _is_plain(each.row):
            plain.setdefault(_model(each.row), each)
    if not plain:
        return None
    remarks = []
    if failed := sum(each.row.status not in ("ok", "unconverged") for each in measured):
        remarks.append(
            f"{counted(failed, 'cell')} could not be measured, and {'is' if failed == 1 else 'are'} left out"
        )
    column, over, why = _common_speed(used)
    base, about_base = _base(plain, over)
    common, about_images = _common_images(used)
    make = functools.partial(_point, column=column, common=common)
    base_point = make("r=0", [base], None)
    lines = [*_methods(used, base, base_point, make), *_rivals(plain, base, base_point, make)]
    images = len(common) if common is not None else 0
    remarks += [text for text in (about_base, about_images, _disagreeing(used), why) if text]
    return Comparison(_setting(base.row), base_point, _place(base.row), tuple(lines), images, over, tuple(remarks))


def _setting(row: Row) -> str:
    parts = (
        row.device,
        row.dtype,
        f"batch {row.batch_size}",
        "training" if row.mode == "train" else "",
        "compiled" if row.compile else "",
        "CUDA graphs" if row.cuda_graphs else "",
        f"attention {row.attention}" if row.attention != "auto" else "",
    )
    return ", ".join(filter(None, parts))


def _place(row: Row) -> str:
    return f"r=0 of {short_model(row)} at {row.img_size} px"


def short_model(row: Row) -> str:
    """Name of a row's model without timm's tag."""
    return row.model.removeprefix("python:").partition(".")[0]


def _timed(measured: Measured, column: SpeedColumn) -> bool:
    return getattr(measured.row, column) is not None and not INVALID & {*measured.row.warnings}


def _common_speed(measured: Sequence[Measured]) -> tuple[SpeedColumn | None, str | None, str]:
    """Column of the speed-ups that can be compared, what they are over, and a remark."""
    timed = [each for each in measured if _timed(each, "speedup_vs_r0")]
    compared = [each for each in timed if _timed(each, "speedup_vs_reference")]
    references = {each.row.reference for each in compared}
    if len(references) == 1 and len({each.run for each in timed}) == len({each.run for each in compared}):
        return "speedup_vs_reference", references.pop() or "the reference", _other_testbed(compared)
    if len({each.run for each in timed}) == 1:
        return "speedup_vs_r0", "r=0", ""
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


def _base(plain: dict[tuple[str, str, int], Measured], over: str | None) -> tuple[Measured, str]:
    """The row that drops are against: r = 0 of the reference, or of most MACs; second, a remark."""
    rows = list(plain.values())
    largest = max(rows, key=lambda each: (each.right is not None, each.row.gmacs, each.row.params_m))
    if over is None or over == "r=0":
        return largest, ""
    named = [each for each in rows if short_model(each.row) in over]
    exact = [each for each in named if re.search(rf"(?<!\d){each.row.img_size}(?!\d)", over)] or named
    if exact:
        return max(exact, key=lambda each: (each.row.gmacs, each.row.params_m)), ""
    return largest, f"r=0 of the reference {over} is in no run; drops are against {_place(largest.row)}"


def _common_images(measured: Sequence[Measured]) -> tuple[npt.NDArray[np.int64] | None, str]:
    """Indices of the images that all rows with top-1 have seen; second, a remark where some have seen more."""
    sets = {each.seen.tobytes(): each.seen for each in measured if each.seen is not None}
    if not sets:
        return None, ""
    common = functools.reduce(np.intersect1d, sets.values())
    if len(sets) == 1:
        return common, ""
    most = max(map(len, sets.values()))
    return common, f"top-1 is of the {counted(len(common), 'image')} that all rows have, of up to {most}"


def _disagreeing(measured: Sequence[Measured]) -> str:
    """Remark where runs do not have the same r = 0 of one model."""
    found: dict[tuple[str, str, int], set[tuple[int | None, int | None]]] = {}
    for each in measured:
        if _is_plain(each.row) and each.right is not None:
            found.setdefault(_model(each.row), set()).add((each.row.top1_correct, each.row.n_seen))
    odd = [model for (model, _, _), counts in found.items() if len({n for _, n in counts}) == 1 < len(counts)]
    return f"runs do not agree about r=0 of {odd[0]}: they had other arithmetic" if odd else ""


def _point(
    label: str,
    measured: Sequence[Measured],
    base: Point | None,
    *,
    column: SpeedColumn | None,
    common: npt.NDArray[np.int64] | None,
) -> Point:
    rows = tuple(each.row for each in measured)
    speed = _speed(rows, column) if column and all(_timed(each, column) for each in measured) else None
    right, drop = None, None
    known = [
        each.right[np.isin(each.seen, common)]
        for each in measured
        if each.right is not None and each.seen is not None and common is not None
    ]
    if len(known) == len(measured) and len(known[0]):
        right = Shares(np.sum(known, axis=0, dtype=np.int64), len(known))
    if base is not None and base.right is not None and right is not None:
        drop = stats.share_delta(base.right, right)
    elif base is not None and common is None and all(_model(row) == _model(base.row) for row in rows):
        drop = _counted_drop(rows)
    return Point(label, rows, speed, right, drop)


def _counted_drop(rows: Sequence[Row]) -> ShareDelta | None:
    """Drop by the counts of rows without their answers; over seeds their mean, as if all failed on the same images."""
    counts = [
        (row.top1_lost, row.top1_gained, row.n_seen, row.mcnemar_p)
        for row in rows
        if row.top1_lost is not None and row.top1_gained is not None and row.n_seen and row.mcnemar_p is not None
    ]
    if len(counts) < len(rows) or len({n for _, _, n, _ in counts}) > 1:
        return None
    lost, gained, n, p = (float(np.mean(each)) for each in zip(*counts, strict=True))
    return ShareDelta(lost, gained, round(n), 1.0, p)


def _speed(rows: Sequence[Row], column: SpeedColumn) -> Speed:
    """Geometric mean over seeds; of the ends of the intervals, too, as if the seeds had one error."""
    ends = [[getattr(row, column + end) for row in rows] for end in ("", "_lo", "_hi")]
    return Speed(*(None if None in each else float(np.exp(np.mean(np.log(each)))) for each in ends))  # type: ignore[arg-type]


def _methods(used: Sequence[Measured], base: Measured, base_point: Point, make: functools.partial[Point]) -> list[Line]:
    """A line for each method, set of options, schedule, model and input, those of the base's model first."""
    groups: dict[tuple[tuple[bool, bool], tuple[object, ...]], list[Measured]] = {}
    for each in used:
        if not _is_plain(each.row):
            row = each.row
            other = (_model(row)[:2] != _model(base.row)[:2], row.img_size != base.row.img_size)
            key = (other, (row.method, _options(row), row.schedule, *_model(row)))
            groups.setdefault(key, []).append(each)
    heads = [some[0].row for some in groups.values()]
    common = set.intersection(*({*_options(row).split()} for row in heads)) if heads else set()
    attends: dict[str, set[str]] = {}
    for row in heads:
        attends.setdefault(row.method, set()).update(
            option for option in _options(row).split() if option.startswith("prop_attn=")
        )
    schedules, weights = {row.schedule for row in heads}, {(row.model, row.weights) for row in heads}
    lines = []
    for _, some in sorted(groups.items(), key=lambda item: item[0][0]):
        row = some[0].row
        told = {*_options(row).split()} - common
        if len(attends[row.method]) == 1:  # what a method always does, its name says
            told -= attends[row.method]
        parts = [row.method, *(option for option in _options(row).split() if option in told)]
        parts += [_short(row.schedule)] if len(schedules) > 1 else []
        parts += [f"on {short_model(row)}"] if row.model != base.row.model else []
        parts += [row.weights[:14]] if len({own for model, own in weights if model == row.model}) > 1 else []
        parts += [f"at {row.img_size} px"] if row.img_size != base.row.img_size else []
        points = _by_r(some, base_point, make)
        lines.append(Line(" ".join(parts), points, training=row.training, method=row.method))
    return lines


def _short(schedule: str) -> str:
    return schedule if len(schedule) <= _LONGEST_SCHEDULE else f"{schedule[: _LONGEST_SCHEDULE - 1]}…"


def _by_r(some: Sequence[Measured], base: Point, make: functools.partial[Point]) -> tuple[Point, ...]:
    """Points of a method's line; rows of one r differ in the seed only. Of a cell that is in two runs, the first."""
    points: dict[int, dict[str, Measured]] = {}
    for each in some:
        points.setdefault(each.row.r, {}).setdefault(each.row.options, each)
    found = [make(f"r={r}", list(seeds.values()), base) for r, seeds in points.items()]
    return tuple(sorted(found, key=lambda point: -point.row.gmacs))


def _rivals(
    plain: dict[tuple[str, str, int], Measured], base: Measured, base_point: Point, make: functools.partial[Point]
) -> list[Line]:
    """Lines of the plain rivals: the base's model at other inputs, and other models."""
    others = [each for each in plain.values() if _model(each.row) != _model(base.row)]
    lines = []
    for same, smaller, other in ((True, SMALLER_INPUT, OTHER_INPUT), (False, SMALLER_MODEL, OTHER_MODEL)):
        some = [each for each in others if (_model(each.row)[:2] == _model(base.row)[:2]) is same]
        if some:
            name = smaller if all(each.row.gmacs < base.row.gmacs for each in some) else other
            points = [make(_rival(each.row, base.row), [each], base_point) for each in some]
            lines.append(Line(name, tuple(sorted(points, key=lambda point: -point.row.gmacs)), plain=True))
    return lines


def _rival(row: Row, base: Row) -> str:
    size = f"{row.img_size} px"
    if row.model == base.model and row.weights == base.weights:
        return size
    return f"{short_model(row)} {size}" if row.img_size != base.img_size else short_model(row)
