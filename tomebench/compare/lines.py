"""Make the lines of a comparison: one for each method, and for its plain rivals, a smaller input and a smaller model.

Rows that differ in the seed only are one point. Drops are against one row, the base, which is r = 0 of the reference or
of the model and input with most MACs; all top-1 are of the images that every row was evaluated on.
"""

from __future__ import annotations

import dataclasses
import functools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tomebench.compare.names import conditions, is_plain, model_names, model_of, options_of, place, setting
from tomebench.compare.points import Comparison, Line, Point, between
from tomebench.compare.read import Measured
from tomebench.compare.speeds import SpeedColumn, common_speed, is_reference, over_the_reference, speed_of, timed_by
from tomebench.reduction.registry import METHODS
from tomebench.runs.codes import PARTIAL_EVAL, SAME_AS_R
from tomebench.runs.row import Row
from tomebench.stats import ShareDelta, Shares
from tomebench.words import counted

SMALLER_INPUT, OTHER_INPUT = "smaller input", "other input"
SMALLER_MODEL, OTHER_MODEL = "smaller model", "other model"
EACH_ITS_OWN = "every row is of the images that it was stopped after"
"""Remark where all rows were stopped."""
_SETTING = ("device", "dtype", "batch_size", "mode", "compile", "cuda_graphs", "attention")
"""Columns within which methods are compared: the base has the same."""
_LONGEST_SCHEDULE = 24


@dataclass(frozen=True)
class Group:
    """Rows that were measured in one setting, with the row that drops are against."""

    rows: tuple[Measured, ...]
    comparison: Comparison
    base: Measured
    column: SpeedColumn | None  # of the speed-ups that can be compared


def comparisons(measured: Sequence[Measured]) -> list[Comparison]:
    """Compare rows: one comparison for each setting (device, dtype, batch size, ...), in order of their names.

    The order of the rows has no effect.
    """
    return [group.comparison for group in groups(measured)]


def groups(measured: Sequence[Measured]) -> list[Group]:
    """The rows behind the :func:`comparisons`."""
    found: dict[tuple[object, ...], list[Measured]] = {}
    for each in measured:
        key = (*(getattr(each.row, field) for field in _SETTING), conditions(each.row))
        found.setdefault(key, []).append(each)
    compared = [_comparison(sorted(some, key=_order)) for some in found.values()]
    return sorted((each for each in compared if each is not None), key=lambda each: each.comparison.setting)


def _order(measured: Measured) -> tuple[object, ...]:
    """Sort key of rows, whatever the order of the runs: as lines and points are shown.

    Of a cell that is in several runs the first is taken: one with top-1, and with a speed.
    """
    row = measured.row
    rank = list(METHODS).index(row.method) if row.method in METHODS else len(METHODS)
    by_name = (row.schedule, options_of(row), row.model, row.weights, -row.img_size)
    known = (measured.right is None, row.speedup_vs_r0 is None)
    return (rank, row.method, *by_name, row.r, row.options, *known, measured.run)


def _comparison(measured: Sequence[Measured]) -> Group | None:
    """Compare the rows of one setting; None where no r = 0 is among them."""
    used = [each for each in measured if each.row.status in ("ok", "unconverged")]
    used = [each for each in used if not any(code.startswith(SAME_AS_R) for code in each.row.warnings)]
    used = over_the_reference(used)
    plain: dict[tuple[str, str, int], Measured] = {}
    for each in used:
        if is_plain(each.row):
            plain.setdefault(model_of(each.row), each)
    if not plain:
        return None
    remarks = []
    if failed := sum(each.row.status not in ("ok", "unconverged") for each in measured):
        remarks.append(
            f"{counted(failed, 'cell')} could not be measured, and {'is' if failed == 1 else 'are'} left out"
        )
    if any(PARTIAL_EVAL in each.row.warnings for each in used):
        remarks.append("a run is not evaluated on all of its images yet; the same sweep goes on")
    column, over, why = common_speed(used)
    base, about_base = _base(used, plain, over)
    common, about_images = _common_images(used)
    make = functools.partial(_point, column=column, common=common)
    base_point = make("r=0", [base], None)
    names = model_names(each.row for each in used)
    lines = [*_methods(used, base, base_point, make, names), *_rivals(plain, base, base_point, make, names)]
    images = len(common) if common is not None else 0
    remarks += [text for text in (about_base, about_images, _disagreeing(used), why) if text]
    found = Comparison(setting(base.row), base_point, place(base.row), tuple(lines), images, over, tuple(remarks))
    return Group(tuple(used), found, base, column)


def _base(
    used: Sequence[Measured], plain: Mapping[tuple[str, str, int], Measured], over: str | None
) -> tuple[Measured, str]:
    """The row that drops are against: r = 0 of the reference, or of most MACs; second, a remark."""
    known = [plain[model_of(each.row)] for each in used if is_reference(each.row) and each.row.reference == over]
    rows = known or [*plain.values()]
    base = max(rows, key=lambda each: (each.right is not None, each.row.gmacs, each.row.params_m))
    if known or over is None or not any(each.row.reference == over for each in used):
        return base, ""
    return base, f"r=0 of the reference {over} is in no run; drops are against {place(base.row)}"


def _common_images(measured: Sequence[Measured]) -> tuple[npt.NDArray[np.int64] | None, str]:
    """Indices of the images that all rows with top-1 have seen; second, a remark where some have seen more."""
    known = [each for each in measured if each.right is not None and each.seen is not None]
    sets = {each.seen.tobytes(): each.seen for each in known if each.seen is not None and not each.stopped}
    if not sets:
        all_ = [each.seen for each in known if each.seen is not None]
        return (max(all_, key=len), EACH_ITS_OWN) if all_ else (None, "")
    common = functools.reduce(np.intersect1d, sets.values())
    if len(sets) == 1:
        return common, ""
    most = max(map(len, sets.values()))
    return common, f"top-1 is of the {counted(len(common), 'image')} that all rows have, of up to {most}"


def _disagreeing(measured: Sequence[Measured]) -> str:
    """Remark where runs do not have the same r = 0 of one model."""
    found: dict[tuple[str, str, int], set[tuple[int | None, int | None]]] = {}
    for each in measured:
        if is_plain(each.row) and each.right is not None:
            found.setdefault(model_of(each.row), set()).add((each.row.top1_correct, each.row.n_seen))
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
    speed = speed_of(rows, column) if column and all(timed_by(each, column) for each in measured) else None
    right, seen, drop = None, None, None
    known = [
        (each.right[np.isin(each.seen, common)], each.seen[np.isin(each.seen, common)])
        for each in measured
        if each.right is not None and each.seen is not None and common is not None
    ]
    stopped = any(each.stopped for each in measured)
    if len(known) == len(measured) and len(known[0][0]):
        seen = functools.reduce(np.intersect1d, (own for _, own in known))
        right = Shares(np.sum([own[np.isin(at, seen)] for own, at in known], axis=0, dtype=np.int64), len(known))
    point = Point(label, rows, speed, right, None, seen, stopped)
    if base is not None and base.right is not None and right is not None:
        drop = between(base, point)
    elif base is not None and common is None and all(model_of(row) == model_of(base.row) for row in rows):
        drop = _counted_drop(rows)
    return dataclasses.replace(point, drop=drop)


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


def _methods(
    used: Sequence[Measured],
    base: Measured,
    base_point: Point,
    make: functools.partial[Point],
    names: Mapping[tuple[str, str], str],
) -> list[Line]:
    """A line for each method, set of options, schedule, model and input, those of the base's model first."""
    groups: dict[tuple[tuple[bool, bool], tuple[object, ...]], list[Measured]] = {}
    for each in used:
        if not is_plain(each.row):
            row = each.row
            other = (model_of(row)[:2] != model_of(base.row)[:2], row.img_size != base.row.img_size)
            key = (other, (row.method, options_of(row), row.schedule, *model_of(row)))
            groups.setdefault(key, []).append(each)
    heads = [some[0].row for some in groups.values()]
    common = set.intersection(*({*options_of(row).split()} for row in heads)) if heads else set()
    own = {(row.method, _prop_attn(row)) for row in heads}
    several = Counter(method for method, _ in own)
    schedules = {row.schedule for row in heads}
    shortened = Counter(map(_short, schedules))
    lines = []
    for _, some in sorted(groups.items(), key=lambda item: item[0][0]):
        row = some[0].row
        hidden = common | ({_prop_attn(row)} if several[row.method] == 1 else set())  # methods differ in its default
        parts = [row.method, *(option for option in options_of(row).split() if option not in hidden)]
        short = _short(row.schedule)
        parts += [short if shortened[short] == 1 else row.schedule] if len(schedules) > 1 else []
        parts += [f"on {names[model_of(row)[:2]]}"] if model_of(row)[:2] != model_of(base.row)[:2] else []
        parts += [f"at {row.img_size} px"] if row.img_size != base.row.img_size else []
        points = _by_r(some, base_point, make)
        lines.append(Line(" ".join(parts), points, training=row.training, method=row.method))
    return lines


def _prop_attn(row: Row) -> str:
    return next((option for option in row.options.split() if option.startswith("prop_attn=")), "")


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
    plain: Mapping[tuple[str, str, int], Measured],
    base: Measured,
    base_point: Point,
    make: functools.partial[Point],
    names: Mapping[tuple[str, str], str],
) -> list[Line]:
    """Lines of the plain rivals: the base's model at other inputs, and other models."""
    others = [each for each in plain.values() if model_of(each.row) != model_of(base.row)]
    lines = []
    for same, smaller, other in ((True, SMALLER_INPUT, OTHER_INPUT), (False, SMALLER_MODEL, OTHER_MODEL)):
        some = [each for each in others if (model_of(each.row)[:2] == model_of(base.row)[:2]) is same]
        if some:
            name = smaller if all(each.row.gmacs < base.row.gmacs for each in some) else other
            points = [make(_rival(each.row, base.row, names), [each], base_point) for each in some]
            lines.append(Line(name, tuple(sorted(points, key=lambda point: -point.row.gmacs)), plain=True))
    return lines


def _rival(row: Row, base: Row, names: Mapping[tuple[str, str], str]) -> str:
    name, size = names[model_of(row)[:2]], f"{row.img_size} px"
    if model_of(row)[:2] == model_of(base)[:2]:
        return size
    return f"{name} {size}" if row.img_size != base.img_size else name
