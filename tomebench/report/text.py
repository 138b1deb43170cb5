"""The result tables of a sweep as plain strings (main and detail table), and the context printed around them.

The recommendation is in :mod:`tomebench.report.headline`, the texts of warnings in :mod:`tomebench.report.codes`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from tomebench.report.codes import notes, short_notes, warning_lines
from tomebench.report.conditions import conditions
from tomebench.report.escape import clean
from tomebench.report.headline import sentence, yardsticks
from tomebench.report.narrow import Step, Table, before, first, last, without
from tomebench.report.series import interval, is_baseline, overhead, points, value, varying
from tomebench.runs.row import Row
from tomebench.schema import MAX_DROP

__all__ = [
    "ReportContext",
    "context_for",
    "detail_table",
    "display_table",
    "narrower",
    "sentence",
    "yardsticks",
]


_REFERENCE = "vs reference [95%]"


@dataclass(frozen=True)
class ReportContext:
    """Text around the rows of a report, unescaped: each writer escapes it for its own format."""

    title: str
    conditions: tuple[str, ...] = ()  # what makes a pasted table complete: model, device, kernel, versions, images
    warnings: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()  # files written
    command: str | None = None  # measures these results again
    next_command: str | None = None  # proposed to run next
    max_drop: float = MAX_DROP  # largest tolerable loss of top-1, in points
    checkpoint: str | None = None  # the file of the weights


def context_for(
    rows: Sequence[Row],
    title: str,
    *,
    paths: Iterable[object] = (),
    command: str | None = None,
    next_command: str | None = None,
    max_drop: float = MAX_DROP,
    checkpoint: object = None,
) -> ReportContext:
    """Make a context with the conditions and warnings of some rows."""
    shown = tuple(clean(str(path)) for path in paths)
    file = None if checkpoint is None else clean(str(checkpoint))
    lines = (*conditions(rows), *([f"checkpoint: {file}"] if file else []))
    return ReportContext(title, lines, warning_lines(rows), shown, command, next_command, max_drop, file)


def display_table(rows: Sequence[Row]) -> Table:
    """Column titles and texts of the main table.

    Columns are ``r | tokens | GMACs | img/s ± | speed-up [95%] | vs reference [95%] | p50 ms | p95 ms | end-to-end |
    ceiling | overhead [95%] | choosing | top-1 | Δ vs r=0 [95%] | notes``. Speed columns are left out when no row was
    timed, likewise that over a reference that is r = 0 of a single run, latencies (batch size 1), img/s with reading
    (``end-to-end``), those of the ceiling, of choosing (its ms in a pass, its share of the blocks), and accuracy
    columns. A setting that differs between rows (dtype, schedule, ...) becomes a column of its own in front. ``-``
    stands for "not measured". ``±`` is the farther end of the 95 % interval; top-1 is in %, Δ in points.
    """
    timed, evaluated = any(r.img_per_s is not None for r in rows), any(r.top1 is not None for r in rows)
    columns = {field: [value(r, field) for r in rows] for field in varying(rows)}
    columns["r"] = [str(r.r) for r in rows]
    columns["tokens"] = [str(r.tokens_out) for r in rows]
    digits = max(2, _decimals((r.gmacs for r in rows), 2))
    columns["GMACs"] = [f"{r.gmacs:.{digits}f}" for r in rows]
    if timed:
        digits = _decimals((r.img_per_s for r in rows), 4)
        columns["img/s ±"] = [_rate(r, digits) for r in rows]
        columns["speed-up [95%]"] = [
            _paired(r, _ratio(r.speedup_vs_r0, r.speedup_vs_r0_lo, r.speedup_vs_r0_hi)) for r in rows
        ]
    several = len({r.run for r in rows}) > 1
    if any(r.speedup_vs_reference not in (None, r.speedup_vs_r0) or (several and r.reference) for r in rows):
        columns[_REFERENCE] = [
            _ratio(r.speedup_vs_reference, r.speedup_vs_reference_lo, r.speedup_vs_reference_hi) or "-" for r in rows
        ]
    for head, field in (
        ("p50 ms", "latency_p50_ms"),
        ("p95 ms", "latency_p95_ms"),
        ("end-to-end", "img_per_s_end_to_end"),
    ):
        if any(getattr(r, field) is not None for r in rows):
            columns[head] = _numbers(rows, field)
    if any(r.speedup_ceiling is not None for r in rows):
        columns["ceiling"] = [_ratio(r.speedup_ceiling, None, None) or "-" for r in rows]
        columns["overhead [95%]"] = [overhead(r) or "-" for r in rows]
    if any(r.selector_ms is not None for r in rows):
        columns["choosing"] = [_choosing(r) for r in rows]
    if evaluated:
        digits = 1 if max(r.n_seen or 0 for r in rows) <= 1000 else 2  # one image of 1000 is 0.1 points
        if len({r.n_seen for r in rows} - {None}) > 1:  # rows that were stopped, each after images of its own
            columns["images"] = ["-" if r.n_seen is None else str(r.n_seen) for r in rows]
        columns["top-1"] = ["-" if r.top1 is None else f"{r.top1:.{digits}f}" for r in rows]
        columns["Δ vs r=0 [95%]"] = [_paired(r, points(r.delta_top1, r.delta_top1_lo, r.delta_top1_hi)) for r in rows]
    if any(r.agreement is not None and r.top1 is None for r in rows):
        columns["agreement [95%]"] = [_agreement(r) for r in rows]
    columns["notes"] = [notes(r) for r in rows]
    return _table(columns)


def narrower(rows: Sequence[Row]) -> tuple[Step, ...]:
    """Steps that make :func:`display_table` narrower, in order, until it fits.

    Digests and names of runs are shortened first. Then are left out: GMACs; the ± of img/s; words in the notes, for
    marks; p50; the intervals of the speed-up over a reference and of the overhead; the ceiling; choosing, its share
    first; the overhead; end-to-end; tokens; img/s; p95; top-1; the notes, which the lines below the table repeat.
    Settings, r, the speed-ups and Δ (or the agreement) always stay.
    """
    return (
        Step("weights", "weights", first(19)),  # sha256: and twelve digits, as in the conditions
        Step("run", "run", last(12)),
        without("GMACs"),
        Step("img/s ±", "img/s", before(" ±"), lost="±"),
        Step("notes", "notes", lambda cells: short_notes(rows)),
        without("p50 ms"),
        Step(_REFERENCE, "vs reference", before(" ["), lost="the interval of vs reference"),
        Step("overhead [95%]", "overhead", before(" ["), lost="the interval of the overhead"),
        without("ceiling"),
        Step("choosing", "choosing", before(", "), lost="its share of the blocks"),
        without("choosing"),
        without("overhead"),
        without("end-to-end"),
        without("tokens"),
        without("img/s"),
        without("p95 ms"),
        without("top-1"),
        without("notes"),
    )


def detail_table(rows: Sequence[Row]) -> Table:
    """Column titles and texts of the detail table: other speed-ups, latencies, memory, counts behind top-1."""
    columns = {field: [value(r, field) for r in rows] for field in varying(rows)}
    columns["r"] = [str(r.r) for r in rows]
    columns["vs unwrapped [95%]"] = [
        _ratio(r.speedup_vs_unwrapped, r.speedup_vs_unwrapped_lo, r.speedup_vs_unwrapped_hi) for r in rows
    ]
    columns["ceiling [95%]"] = [_ratio(r.speedup_ceiling, r.speedup_ceiling_lo, r.speedup_ceiling_hi) for r in rows]
    columns["MAC ratio"] = [f"{r.mac_ratio:.2f}x" for r in rows]
    columns["efficiency [95%]"] = [
        "" if r.efficiency is None else f"{r.efficiency:.2f}{interval(r.efficiency_lo, r.efficiency_hi, '.2f')}"
        for r in rows
    ]
    columns["mean img/s"] = [cell.strip("-") for cell in _numbers(rows, "img_per_s_mean")]
    columns["passes"] = ["" if r.passes is None else str(r.passes) for r in rows]
    for name in ("p50", "p95", "p99"):
        columns[f"{name} ms [95%]"] = [_with_interval(r, f"latency_{name}_ms") for r in rows]
    columns["choosing ms [95%]"] = [_with_interval(r, "selector_ms") for r in rows]
    columns["end-to-end [95%]"] = [_with_interval(r, "img_per_s_end_to_end") for r in rows]
    columns["MHz"] = ["" if r.gpu_mhz is None else f"{r.gpu_mhz:.0f}" for r in rows]
    columns["J/img"] = [cell.strip("-") for cell in _numbers(rows, "j_per_img")]
    columns["peak MiB"] = ["" if r.peak_mem_mib is None else f"{r.peak_mem_mib:.0f}" for r in rows]
    columns["device MiB"] = ["" if r.device_mem_mib is None else f"{r.device_mem_mib:.0f}" for r in rows]
    columns["top-1 correct"] = ["" if r.top1_correct is None else str(r.top1_correct) for r in rows]
    columns["top-5 correct"] = ["" if r.top5_correct is None else str(r.top5_correct) for r in rows]
    columns["images"] = ["" if r.n_seen is None else str(r.n_seen) for r in rows]
    columns["top-1 [95%]"] = [
        "" if r.top1 is None else f"{r.top1:.1f}{interval(r.top1_lo, r.top1_hi, '.1f')}" for r in rows
    ]
    return _table({head: [cell or "-" for cell in cells] for head, cells in columns.items() if any(cells)})


def _decimals(values: Iterable[float | None], digits: int) -> int:
    """Number of decimals (0 to 4) with which the smallest positive value has ``digits`` significant digits."""
    smallest = min((v for v in values if v is not None and v > 0), default=1.0)
    return min(4, max(0, digits - 1 - math.floor(math.log10(smallest))))


def _numbers(rows: Sequence[Row], field: str) -> list[str]:
    """Text of a column of positive values, with four significant digits in the smallest; ``-`` where not measured."""
    values: list[float | None] = [getattr(row, field) for row in rows]
    digits = _decimals(values, 4)
    return ["-" if value is None else f"{value:.{digits}f}" for value in values]


def _with_interval(row: Row, field: str) -> str:
    value: float | None = getattr(row, field)
    if value is None:
        return ""
    digits = _decimals([value], 3)
    return f"{value:.{digits}f}{interval(getattr(row, f'{field}_lo'), getattr(row, f'{field}_hi'), f'.{digits}f')}"


def _rate(row: Row, digits: int) -> str:
    if row.img_per_s is None:
        return "-"
    text = f"{row.img_per_s:.{digits}f}"
    if row.img_per_s_lo is None or row.img_per_s_hi is None:
        return text
    return f"{text} ±{max(row.img_per_s_hi - row.img_per_s, row.img_per_s - row.img_per_s_lo):.{digits}f}"


def _ratio(value: float | None, low: float | None, high: float | None) -> str:
    return "" if value is None else f"{value:.2f}x{interval(low, high, '.2f')}"


def _choosing(row: Row) -> str:
    """Text of the time of choosing in a pass and its share of the blocks; ``-`` where nothing is chosen."""
    if row.selector_ms is None:
        return "-"
    return f"{row.selector_ms:.{_decimals([row.selector_ms], 3)}f} ms, {row.selector_share:.1f} %"


def _agreement(row: Row) -> str:
    """Text of the agreement: share of images with the same top-1 class as at r = 0, with its interval."""
    if row.agreement is None:
        return "-"
    return f"{row.agreement:.1f}{interval(row.agreement_lo, row.agreement_hi, '.1f')}"


def _paired(row: Row, text: str) -> str:
    """Text of a comparison with r = 0, without interval for the row of r = 0 itself; ``-`` where not measured."""
    return (text.partition(" [")[0] if is_baseline(row) else text) or "-"


def _table(columns: Mapping[str, list[str]]) -> Table:
    return list(columns), [list(cells) for cells in zip(*columns.values(), strict=True)]
