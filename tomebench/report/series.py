"""Group rows into series by the settings in which they differ; names of rows and text of intervals, for all reports."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from tomebench.report.escape import clean
from tomebench.rspec import format_r
from tomebench.runs.row import COLUMNS, Row
from tomebench.schema import Cell, split_head
from tomebench.words import counted

_COLUMNS = {column.name for column in COLUMNS}
_SETTINGS = tuple(each.name for each in dataclasses.fields(Cell) if each.name in _COLUMNS and each.name != "r")
_IMAGES = ("data", "data seen", "data digest")
"""Names for the images of a row, the shortest first: data set; with the number of images; with the list's digest."""
_NAMED = {"batch_size": "batch {}", "img_size": "{} px"}
"""Text of settings whose number needs a unit."""
_SIZES = ("", "prop_attn=true", "prop_attn=false")
"""Options of a method that is run as it comes."""
_MANY = 4
"""Most groups of rows that a line names one by one."""


def varying(rows: Sequence[Row]) -> tuple[str, ...]:
    """Names of the settings, r apart, that are not the same in all rows; :func:`value` gives their values.

    Where rows have different image lists, "data" is one of them, or "data" with what tells the lists apart. Runs that
    differ in several settings, or in their weights, are named by their folders instead. The testbed, a long text, is
    included only where nothing else tells two rows of the same r apart.
    """
    fields = _settings(rows)
    images: tuple[str, ...] = ()
    if len({row.dataset_digest for row in rows} - {None}) > 1:
        images = (next((field for field in _IMAGES if _tells_images(rows, field)), _IMAGES[-1]),)
    runs: dict[str, list[Row]] = {}
    for row in rows:
        runs.setdefault(row.run, []).append(row)
    told = len(fields + images) == 1 and len({name(row, fields + images) for row in rows}) == len(rows)
    if len(runs) > 1 and (not told or fields == ("weights",)):
        inside = {field for some in runs.values() for field in _settings(some)}
        fields = ("run", *(field for field in fields if field in inside))
    fields += images
    distinct = {(name(row, fields), row.testbed) for row in rows}
    return fields if len({label for label, _ in distinct}) == len(distinct) else (*fields, "testbed")


def _settings(rows: Sequence[Row]) -> tuple[str, ...]:
    """Names of the settings that differ; without the options where each method says whether attention counts sizes.

    At r = 0 options have no effect.
    """
    fields = tuple(field for field in _SETTINGS if len({_setting(row, field) for row in rows}) > 1)
    options = {(row.method, row.options) for row in rows if not is_baseline(row)}
    usual = all(text in _SIZES for _, text in options)
    implied = "method" in fields and usual and len(options) == len({method for method, _ in options})
    return tuple(field for field in fields if field != "options" or not implied)


def _tells_images(rows: Sequence[Row], field: str) -> bool:
    """Whether the name of images in ``field`` and the digest of the list map one to one."""
    named = {(value(row, field), row.dataset_digest) for row in rows}
    return len({label for label, _ in named}) == len(named) == len({digest for _, digest in named})


def value(row: Row, field: str) -> str:
    """Text of a row's value of a setting that :func:`varying` names."""
    if field not in _IMAGES:
        return clean(str(_setting(row, field)))
    if row.dataset_digest is None:
        return "-"
    short = (row.dataset or "").partition(" (")[0]  # without the note, such as "(partial: ...)"
    more = {_IMAGES[1]: f" {row.n_seen}", _IMAGES[2]: f" {row.dataset_digest[:8]}"}
    return clean(short + more.get(field, ""))


def model_name(model: str, weights: str) -> str:
    """Name of a model in a report; without timm's tag where the weights are the user's own, since tags name timm's.

    Args:
        model: timm id with tag, or the name of a preset or of a module passed in Python.
        weights: of the row.
    """
    own, weights = model.removeprefix("python:"), split_head(weights)[0]
    return own.partition(".")[0] if weights.startswith("sha256:") and not weights.endswith(")") else own


def _setting(row: Row, field: str) -> object:
    return model_name(row.model, row.weights) if field == "model" else getattr(row, field)


def group(rows: Sequence[Row], fields: Sequence[str]) -> dict[str, list[Row]]:
    """Group rows by the values of ``fields``, written out, in order of occurrence."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(" ".join(value(row, field) for field in fields), []).append(row)
    return groups


def name(row: Row, fields: Sequence[str]) -> str:
    """Name of a row: ``r=8``, with the values of ``fields`` in front."""
    return " ".join([*(_NAMED.get(field, "{}").format(value(row, field)) for field in fields), f"r={row.r}"])


def which(rows: Sequence[Row], some: Sequence[Row]) -> str:
    """Name of a subset of rows: ``every row``, ``r = 8, 16`` or ``bf16 r = 8``."""
    if len(some) == len(rows) > 1:
        return "every row"
    groups = group(some, varying(rows))
    if len(groups) > _MANY:  # too many to name; the table has them
        values = {row.r for row in some}
        whole = sum(row.r in values for row in rows) == len(some)
        return ("" if whole else f"{counted(len(some), 'row')} with ") + _values_of_r(some)
    return "; ".join(f"{label} " * bool(label) + _values_of_r(members) for label, members in groups.items())


def _values_of_r(rows: Sequence[Row]) -> str:
    return "r = " + format_r(sorted({row.r for row in rows})).replace(",", ", ")


def is_baseline(row: Row) -> bool:
    """Whether a row is that of r = 0, with which the others are compared."""
    return row.r == 0 and not row.schedule.startswith("list:")


def half_width(row: Row) -> float | None:
    """Relative half-width of the speed-up interval, as ``stats.Estimate`` has it; None if there is none."""
    low, high = row.speedup_vs_r0_lo, row.speedup_vs_r0_hi
    return None if low is None or high is None else math.sqrt(high / low) - 1


def widest_half_width(row: Row) -> float | None:
    """The larger of :func:`half_width` and that of the overhead: a budget limits both."""
    low, high = row.merge_overhead_lo, row.merge_overhead_hi
    overhead = None if low is None or high is None else math.sqrt((100 + high) / (100 + low)) - 1
    return max(filter(None, (half_width(row), overhead)), default=None)


def reach(rows: Sequence[Row]) -> str:
    """Scope of the speed intervals: ``within one process`` or ``between 3 processes``; empty if no row was timed.

    Memory layout and page placement are fixed per process, so intervals over the rounds of one process do not cover
    them. Where a sweep was continued, rounds of several sessions are pooled: ``of 2 processes taken as one``, or ``of 1
    to 2`` where some rows have fewer.
    """
    timed = [row for row in rows if row.rounds]
    apart = {row.processes for row in timed if (row.processes or 1) > 1}
    alike = {row.sessions or 1 for row in timed if (row.processes or 1) == 1}
    words = [f"between {counted(processes, 'process')}" for processes in sorted(filter(None, apart))]
    if alike == {1}:
        words = ["within one process", *words]
    elif alike:
        fewest = f"{min(alike)} to " if len(alike) > 1 else ""
        words.append(f"of {fewest}{counted(max(alike), 'process')} taken as one")
    return " or ".join(words)


def interval(low: float | None, high: float | None, spec: str) -> str:
    """Text of an interval, `` [1.29, 1.33]`` with its leading space; empty where there is none."""
    return "" if low is None or high is None else f" [{_signed(low, spec)}, {_signed(high, spec)}]"


def points(value: float | None, low: float | None, high: float | None, unit: str = "") -> str:
    """Text of a difference in points with its interval, ``-0.35 [-0.50, -0.20]``; empty if not measured."""
    return "" if value is None else _signed(value, "+.2f") + unit + interval(low, high, "+.2f")


def overhead(row: Row) -> str:
    """Text of the overhead, time over that of the ceiling minus one: ``+2.1 % [+1.5, +2.8]``; empty if not measured."""
    if row.merge_overhead is None:
        return ""
    return _signed(row.merge_overhead, "+.1f") + " %" + interval(row.merge_overhead_lo, row.merge_overhead_hi, "+.1f")


def _signed(value: float, spec: str) -> str:
    text = format(value, spec)
    return text if float(text) else text.lstrip("+-")  # a rounded zero has no direction
