"""The content of a report as plain strings: conditions, table, warnings. Nothing here knows about a terminal.

The sentence below the table lives in :mod:`tomebench.report.headline`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from tomebench.report.escape import clean
from tomebench.report.headline import sentence, yardsticks
from tomebench.report.series import group, half_width, interval, is_baseline, overhead, points, varying
from tomebench.rspec import format_r
from tomebench.schema import Row
from tomebench.words import counted

__all__ = [
    "EXPLANATIONS",
    "ReportContext",
    "conditions",
    "context_for",
    "detail_table",
    "display_table",
    "sentence",
    "warning_lines",
    "yardsticks",
]

Table = tuple[list[str], list[list[str]]]

EXPLANATIONS: Mapping[str, str] = {
    "AA_FAILED": "two timings of the very same r = 0 model disagree, so the timing is biased and no speed of this run "
    "can be used; close other programs and run again with a new --out",
    "OUTPUT_MISMATCH": "what the timed passes computed is not what the model computes when it is evaluated, so their "
    "speed is that of something else; leave --compile and --cuda-graphs out, and report it",
    "RECOMPILED": "a graph was compiled inside a timed burst, so these rows have no speed; run again with a new --out",
    "failed": "these rows could not be measured",
    "oom": "out of memory; the batch size never changes within a sweep, so run again with a smaller --batch-size and a "
    "new --out",
    "nonfinite": "some logits are NaN or infinite, so no accuracy is given; try --dtype fp32 or bf16",
    "INTERRUPTED": "timing was stopped before its end; run the same command again to go on",
    "unconverged": "the speed-up interval is still wider than the budget asks; use a quieter machine or a larger "
    "--budget",
    "TESTBED_CHANGED": "the run was resumed on another machine or with other library versions, so img/s mixes the two; "
    "speed-ups, paired within a round, still hold",
    "THROTTLED_BADLY": "heat or the hardware held the GPU under three quarters of its highest clock, so these speeds "
    "are not to be used; cool it, and run again with a new --out",
    "THROTTLED": "heat or the hardware slowed the GPU down in most rounds; cool it",
    "HOST_BOUND": "the GPU waited for the host, so these speeds are those of Python and the driver, which tokens do "
    "not change; use --cuda-graphs, --compile or a larger --batch-size",
    "ALLOCATED": "the driver was asked for memory in most bursts, which takes time; use a smaller --batch-size",
    "POWER_CAPPED": "the power limit held the GPU's clock down, as it does for such work; quote the limit with the "
    "speeds",
    "NOT_STEADY": "r = 0 became over 10 % faster or slower during the run, so img/s are not those of a steady state; "
    "speed-ups, paired within a round, still hold",
    "DRIFT": "r = 0 became over 2 % faster or slower during the run; speed-ups, paired within a round, still hold",
    "SLOW_FIRST": "the first round was slower than the others, so the warm-up was too short; the median does not "
    "mind one",
    "UNWATCHED": "the GPU's clock, energy and company are not known; install nvidia-ml-py (the extra gpu)",
    "GPU_SHARED": "other processes were on the GPU; stop them and run again with a new --out",
    "CPU_BUSY": "other processes took over a tenth of the CPU time; stop them and run again with a new --out",
    "ATTN_FALLBACK": "PyTorch's fused attention would not take this shape and ran its slow math form; try another "
    "--attention or --dtype",
    "NOISY": "step times scatter by more than 10 % of their median; close other programs or use a larger --budget",
    "R_CLAMPED": "a block can merge away at most half of its patch tokens, and this cap lowered r in some block; read "
    "the tokens column, not r",
    "CHANCE_LEVEL": "the unmerged model is right no more often than by guessing, or consistently names other classes "
    "than the labels, so accuracies here mean nothing; check the order of the classes (--class-names) and the "
    "preprocessing",
    "PARTIAL_EVAL": "not all of the images have been evaluated; run the same command again to go on",
}
"""What each status and warning code means and what to do next, in the order of the report."""

_MANY = 4
"""Groups of rows that a line names one by one."""
_SAME_AS = re.compile(r"SAME_AS_R(\d+)")
_NOTES: Mapping[str, str] = {
    "failed": "failed",
    "oom": "out of memory",
    "nonfinite": "NaN or infinite logits",
    "INTERRUPTED": "interrupted",
    "unconverged": "unconverged",
    "AA_FAILED": "A/A failed",
    "TESTBED_CHANGED": "testbed changed",
    "NOISY": "noisy",
    "CHANCE_LEVEL": "chance level",
    "OUTPUT_MISMATCH": "wrong output",
    "THROTTLED_BADLY": "throttled badly",
    "THROTTLED": "throttled",
    "HOST_BOUND": "host bound",
    "ALLOCATED": "allocated",
    "POWER_CAPPED": "power capped",
    "NOT_STEADY": "not steady",
    "DRIFT": "drift",
    "SLOW_FIRST": "slow first round",
    "UNWATCHED": "GPU unwatched",
    "GPU_SHARED": "GPU shared",
    "CPU_BUSY": "CPU busy",
    "ATTN_FALLBACK": "attention fell back",
    "R_CLAMPED": "cap",
    "PARTIAL_EVAL": "not all images",
}


@dataclass(frozen=True)
class ReportContext:
    """What a report says around its rows. The lines are plain text; each writer escapes them for its own format."""

    title: str
    conditions: tuple[str, ...] = ()  # what makes a pasted table complete: model, device, kernel, versions, images
    warnings: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()  # files written
    command: str | None = None  # makes these results again
    next_command: str | None = None  # worth trying now


def context_for(
    rows: Sequence[Row],
    title: str,
    *,
    paths: Iterable[object] = (),
    command: str | None = None,
    next_command: str | None = None,
) -> ReportContext:
    """A context with the conditions and warnings that the rows themselves hold."""
    shown = tuple(clean(str(path)) for path in paths)
    return ReportContext(title, conditions(rows), warning_lines(rows), shown, command, next_command)


def display_table(rows: Sequence[Row]) -> Table:
    """Headers and cells of the table for people.

    Columns are ``r | tokens | GMACs | img/s ± | speed-up [95%] | p50 ms | p95 ms | end-to-end | ceiling | overhead
    [95%] | top-1 | Δ vs r=0 [95%] | notes``. Speed columns are left out when no row was timed, likewise latencies
    (batch size 1), img/s with reading (``end-to-end``), those of the slicing ceiling, and accuracy columns. A setting
    that differs between rows (dtype, schedule, ...) becomes a column of its own in front. ``-`` stands for "not
    measured". ``±`` is the farther end of the 95 % interval; top-1 is in %, Δ in points.
    """
    timed, evaluated = any(r.img_per_s is not None for r in rows), any(r.top1 is not None for r in rows)
    columns = {field: [clean(str(getattr(r, field))) for r in rows] for field in varying(rows)}
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
    if evaluated:
        digits = 1 if max(r.n_seen or 0 for r in rows) <= 1000 else 2  # one image of 1000 is 0.1 points
        columns["top-1"] = ["-" if r.top1 is None else f"{r.top1:.{digits}f}" for r in rows]
        columns["Δ vs r=0 [95%]"] = [_paired(r, points(r.delta_top1, r.delta_top1_lo, r.delta_top1_hi)) for r in rows]
    elif any(r.agreement is not None for r in rows):
        columns["agreement [95%]"] = [_agreement(r) for r in rows]
    columns["notes"] = [notes(r) for r in rows]
    return _table(columns)


def detail_table(rows: Sequence[Row]) -> Table:
    """Headers and cells of the second table: the other yardstick of speed, memory, and the counts behind top-1."""
    columns = {field: [clean(str(getattr(r, field))) for r in rows] for field in varying(rows)}
    columns["r"] = [str(r.r) for r in rows]
    columns["vs unwrapped [95%]"] = [
        _ratio(r.speedup_vs_unwrapped, r.speedup_vs_unwrapped_lo, r.speedup_vs_unwrapped_hi) for r in rows
    ]
    columns["ceiling [95%]"] = [_ratio(r.speedup_ceiling, r.speedup_ceiling_lo, r.speedup_ceiling_hi) for r in rows]
    columns["MAC ratio"] = [f"{r.mac_ratio:.2f}x" for r in rows]
    columns["efficiency"] = ["" if r.efficiency is None else f"{r.efficiency:.2f}" for r in rows]
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


def notes(row: Row) -> str:
    """What is special about a row, in a few words, e.g. ``±2.3 %, unconverged, cap``."""
    words = []
    if row.status == "unconverged" and (width := half_width(row)) is not None:
        words.append(f"±{100 * width:.1f} %")
    for code in _codes(row):
        same = _SAME_AS.fullmatch(code)
        words.append(f"same as r={same[1]}" if same else _NOTES.get(code, clean(code)))
    return ", ".join(words)


def conditions(rows: Sequence[Row]) -> tuple[str, ...]:
    """The lines without which the table means nothing: model, method, device, images, testbed. Empty without rows."""
    if not rows:
        return ()
    weights = re.sub(r"(sha256:[0-9a-f]{12})[0-9a-f]+", r"\1…", _same(rows, "weights", "weights {}"))
    model = (
        _same(rows, "model"),
        weights,
        _same(rows, "img_size", "{} px"),
        _same(rows, "params_m", "{:.2f} M parameters"),
    )
    method = (_same(rows, "method"), _same(rows, "schedule", "{} schedule"), _same(rows, "options"))
    device = (
        _same(rows, "device"),
        _same(rows, "dtype"),
        _same(rows, "batch_size", "batch {}"),
        _same(rows, "mode"),
        "compiled" if any(row.compile for row in rows) else "",
        "CUDA graphs" if any(row.cuda_graphs for row in rows) else "",
        f"attention {_kernels(rows)}",
    )
    seen = max((row.n_seen for row in rows if row.n_seen is not None), default=None)
    images = ["none, accuracy was not evaluated"]
    if seen is not None:
        data = ", ".join(dict.fromkeys(clean(row.dataset) for row in rows if row.dataset is not None))
        mean, std = (f"{field} " + " ".join(f"{x:.4g}" for x in getattr(rows[0], field)) for field in ("mean", "std"))
        crop = (_same(rows, "crop_pct", "crop {:.3g}"), _same(rows, "interpolation"), mean, std)
        images = [data, f"{seen} seen", *crop]
    testbeds = "; ".join(dict.fromkeys(clean(row.testbed) for row in rows if row.testbed)) or "unavailable"
    parts = {"model": model, "method": method, "device": device, "images": images, "testbed": [testbeds]}
    return tuple(f"{head}: {', '.join(filter(None, texts))}" for head, texts in parts.items())


def warning_lines(rows: Sequence[Row]) -> tuple[str, ...]:
    """One line per status or warning code that occurs: the code, the rows, what it means and what to do."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        for code in _codes(row):
            found.setdefault(code, []).append(row)
    rank = {code: number for number, code in enumerate(EXPLANATIONS)}
    lines = []
    for code in sorted(found, key=lambda c: rank.get(c, len(rank))):  # stable: unknown codes as they came
        text = EXPLANATIONS.get(code, "see this code in the column warnings of table.csv")
        if same := _SAME_AS.fullmatch(code):
            text = (
                f"these remove the same tokens as r = {same[1]} in every block; leave them out, any difference is noise"
            )
        if code in ("failed", "oom", "nonfinite"):  # the others have no error but a width, which is in the notes
            errors = list(dict.fromkeys(clean(row.error) for row in found[code] if row.error))
            text = "; ".join([text, *errors[:2], *["more in the column error of table.csv"] * (len(errors) > 2)])
        lines.append(f"{clean(code)} ({_which(rows, found[code])}): {text}")
    return tuple(lines)


def _codes(row: Row) -> list[str]:
    status = [] if row.status == "ok" else [row.status]
    clamped = ["R_CLAMPED"] if row.clamped else []
    return list(dict.fromkeys([*status, *clamped, *row.warnings]))


def _which(rows: Sequence[Row], some: Sequence[Row]) -> str:
    if len(some) == len(rows) > 1:
        return "every row"
    groups = group(some, varying(rows))
    if len(groups) > _MANY:  # the table has their names
        whole = all(row in some for row in rows if row.r in {row.r for row in some})
        return ("" if whole else f"{counted(len(some), 'row')} with ") + _values_of_r(some)
    return "; ".join(f"{label} " * bool(label) + _values_of_r(members) for label, members in groups.items())


def _values_of_r(rows: Sequence[Row]) -> str:
    return "r = " + format_r(sorted({row.r for row in rows})).replace(",", ", ")


def _same(rows: Sequence[Row], field: str, template: str = "{}") -> str:
    values = dict.fromkeys(clean(template.format(getattr(row, field))) for row in rows)
    return next(iter(values)) if len(values) == 1 else f"{field} varies"


def _kernels(rows: Sequence[Row]) -> str:
    kernels: dict[str, list[Row]] = {}
    for row in rows:
        kernels.setdefault(clean(row.attn_kernel), []).append(row)
    if len(kernels) == 1:
        return next(iter(kernels))
    return ", ".join(f"{kernel} ({_which(rows, members)})" for kernel, members in kernels.items())


def _decimals(values: Iterable[float | None], digits: int) -> int:
    """Decimals (0 to 4) that give the smallest positive value ``digits`` significant digits."""
    smallest = min((v for v in values if v is not None and v > 0), default=1.0)
    return min(4, max(0, digits - 1 - math.floor(math.log10(smallest))))


def _numbers(rows: Sequence[Row], field: str) -> list[str]:
    """Positive values of a column with four significant digits of the smallest; ``-`` where there is none."""
    values: list[float | None] = [getattr(row, field) for row in rows]
    digits = _decimals(values, 4)
    return ["-" if value is None else f"{value:.{digits}f}" for value in values]


def _rate(row: Row, digits: int) -> str:
    if row.img_per_s is None:
        return "-"
    text = f"{row.img_per_s:.{digits}f}"
    if row.img_per_s_lo is None or row.img_per_s_hi is None:
        return text
    return f"{text} ±{max(row.img_per_s_hi - row.img_per_s, row.img_per_s - row.img_per_s_lo):.{digits}f}"


def _ratio(value: float | None, low: float | None, high: float | None) -> str:
    return "" if value is None else f"{value:.2f}x{interval(low, high, '.2f')}"


def _agreement(row: Row) -> str:
    """Share of images with the same top-1 class as at r = 0."""
    if row.agreement is None:
        return "-"
    return f"{row.agreement:.1f}{interval(row.agreement_lo, row.agreement_hi, '.1f')}"


def _paired(row: Row, text: str) -> str:
    """A comparison with r = 0; that row itself has no interval, as it is not compared with anything."""
    return (text.partition(" [")[0] if is_baseline(row) else text) or "-"


def _table(columns: Mapping[str, list[str]]) -> Table:
    return list(columns), [list(cells) for cells in zip(*columns.values(), strict=True)]
