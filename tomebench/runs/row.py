"""The result row: every column of the table is one field of ``Row``, declared once for all readers and writers.

The order of the fields is that of the columns of ``table.csv``.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from dataclasses import dataclass
from typing import Any, Literal

from tomebench.schema import OFF_THE_SHELF, Status

COMPILE_SECONDS = "compile_seconds"
"""Name of the stored fact: seconds of the first pass, which compiles, by variant name."""
DEVICE_MEMORY = "device_memory"
"""Name of the stored fact: bytes of the GPU that were taken when a cell had run, by cell key."""
SELECTOR = "selector"
"""Name of the stored fact: milliseconds of choosing and of all blocks in each marked pass, by cell key."""
TOKENS_LEFT = "tokens_left"
"""Name of the stored fact: mean tokens after the last block that are no padding, by cell key."""
ENERGY = "energy"
"""Name of the stored fact: joules for one image, by cell key."""

Kind = Literal["str", "int", "float", "bool", "ints", "floats", "strs"]
_KINDS: dict[object, Kind] = {
    str: "str",
    int: "int",
    float: "float",
    bool: "bool",
    tuple[int, ...]: "ints",
    tuple[float, ...]: "floats",
    tuple[str, ...]: "strs",
}


@dataclass(frozen=True)
class Column:
    """Declaration of one column, as readers and writers of the table need it."""

    name: str
    dtype: Kind
    unit: str | None  # img/s, ms, %, points, x, ...
    better: Literal["higher", "lower"] | None  # direction of improvement, None where there is none
    format: str  # format spec for people, e.g. ".2f"
    doc: str
    fact: str | None = None  # name of the stored fact, by cell key, that the column holds
    per: float = 1  # factor from the unit of that fact to the column's


def column(
    doc: str,
    *,
    unit: str | None = None,
    better: Literal["higher", "lower"] | None = None,
    fmt: str = "",
    default: Any = dataclasses.MISSING,
    fact: str | None = None,
    per: float = 1,
) -> Any:
    """Declare a field of :class:`Row`; the arguments are those of its :class:`Column`, whose type is that of the field.

    A column named as a field of ``Cell`` or ``Resolved`` is copied from there, a column with a ``fact`` from the store;
    the functions that :mod:`tomebench.runs.rows` calls compute the others.
    """
    about = {"doc": doc, "unit": unit, "better": better, "format": fmt, "fact": fact, "per": per}
    return dataclasses.field(default=default, metadata=about)


def lower_end(whole: Any, what: str = "95 % interval") -> Any:
    """Declare the lower end of another column's interval, with the same unit and format."""
    return _end("lower", whole, what)


def upper_end(whole: Any, what: str = "95 % interval") -> Any:
    """Declare the upper end of another column's interval, with the same unit and format."""
    return _end("upper", whole, what)


def _end(which: str, whole: Any, what: str) -> Any:
    about = whole.metadata  # in the class body a field is still what column() returned
    return column(f"{which} end of its {what}", unit=about["unit"], fmt=about["format"], default=None)


@dataclass(kw_only=True)
class Row:
    """One line of the result table, for one cell. None means "not measured"; zero is a number."""

    model: str = column("timm id with tag, or the name of a preset")
    method: str = column("token reduction method")
    r: int = column("tokens to remove per layer, as asked", unit="tokens")
    schedule: str = column("how r is spread over the layers")
    tokens_out: int = column("tokens after the last block", unit="tokens")
    tokens_out_mean: float | None = column(
        "tokens after the last block without padding, mean of evaluated images; where the image decides how many",
        unit="tokens",
        fmt=".1f",
        default=None,
        fact=TOKENS_LEFT,
    )
    gmacs: float = column("multiply-accumulates of the matmuls for one image", unit="GMAC", better="lower", fmt=".2f")
    img_per_s: float | None = column(
        "images per second: batch size over the median step time",
        unit="img/s",
        better="higher",
        fmt=".1f",
        default=None,
    )
    img_per_s_lo: float | None = lower_end(img_per_s, "95 % interval, by batches of rounds")
    img_per_s_hi: float | None = upper_end(img_per_s)
    speedup_vs_r0: float | None = column(
        "paired speed-up over the wrapped model at r = 0", unit="x", better="higher", fmt=".2f", default=None
    )
    speedup_vs_r0_lo: float | None = lower_end(speedup_vs_r0)
    speedup_vs_r0_hi: float | None = upper_end(speedup_vs_r0)
    speedup_vs_unwrapped: float | None = column(
        "paired speed-up over the unwrapped model", unit="x", better="higher", fmt=".2f", default=None
    )
    speedup_vs_unwrapped_lo: float | None = lower_end(speedup_vs_unwrapped)
    speedup_vs_unwrapped_hi: float | None = upper_end(speedup_vs_unwrapped)
    speedup_vs_reference: float | None = column(
        "paired speed-up over the common reference: another model, or another input size, at r = 0",
        unit="x",
        better="higher",
        fmt=".2f",
        default=None,
    )
    speedup_vs_reference_lo: float | None = lower_end(speedup_vs_reference)
    speedup_vs_reference_hi: float | None = upper_end(speedup_vs_reference)
    reference: str | None = column("the common reference, timed in the same rounds", default=None)
    mac_ratio: float = column("GMACs of the unwrapped model over GMACs of this row", unit="x", fmt=".2f")
    efficiency: float | None = column("speedup_vs_unwrapped over mac_ratio", better="higher", fmt=".2f", default=None)
    efficiency_lo: float | None = lower_end(efficiency)
    efficiency_hi: float | None = upper_end(efficiency)
    speedup_ceiling: float | None = column(
        "speed-up over r = 0 of the same tokens sliced off", unit="x", better="higher", fmt=".2f", default=None
    )
    speedup_ceiling_lo: float | None = lower_end(speedup_ceiling)
    speedup_ceiling_hi: float | None = upper_end(speedup_ceiling)
    merge_overhead: float | None = column(
        "time over the time of the slicing ceiling, less one", unit="%", better="lower", fmt=".1f", default=None
    )
    merge_overhead_lo: float | None = lower_end(merge_overhead)
    merge_overhead_hi: float | None = upper_end(merge_overhead)
    selector_ms: float | None = column(
        "time of choosing which tokens go, in all blocks of a pass", unit="ms", better="lower", fmt=".3f", default=None
    )
    selector_ms_lo: float | None = lower_end(selector_ms, "95 % interval, over passes")
    selector_ms_hi: float | None = upper_end(selector_ms, "95 % interval, over passes")
    selector_share: float | None = column(
        "part of the time of the blocks that choosing takes", unit="%", better="lower", fmt=".1f", default=None
    )
    top1: float | None = column("top-1 accuracy", unit="%", better="higher", fmt=".2f", default=None)
    top1_lo: float | None = lower_end(top1, "95 % Wilson interval")
    top1_hi: float | None = upper_end(top1, "95 % Wilson interval")
    top1_correct: int | None = column(
        "images whose largest logit is the true class", unit="images", better="higher", default=None
    )
    top5_correct: int | None = column(
        "images whose true class is among the five largest logits", unit="images", better="higher", default=None
    )
    n_seen: int | None = column("images evaluated", unit="images", default=None)
    ties: int | None = column("images whose largest logit is shared by two classes", unit="images", default=None)
    top1_lost: int | None = column(
        "images that are right at r = 0 and wrong here", unit="images", better="lower", default=None
    )
    top1_gained: int | None = column(
        "images that are wrong at r = 0 and right here", unit="images", better="higher", default=None
    )
    delta_top1: float | None = column(
        "top-1 minus top-1 at r = 0, same images", unit="points", better="higher", fmt="+.2f", default=None
    )
    delta_top1_lo: float | None = lower_end(delta_top1, "95 % paired interval")
    delta_top1_hi: float | None = upper_end(delta_top1, "95 % paired interval")
    agreement: float | None = column(
        "images with the same top-1 class as at r = 0", unit="%", better="higher", fmt=".2f", default=None
    )
    agreement_lo: float | None = lower_end(agreement, "95 % Wilson interval")
    agreement_hi: float | None = upper_end(agreement, "95 % Wilson interval")
    agreed: int | None = column("images behind it", unit="images", better="higher", default=None)
    mcnemar_p: float | None = column(
        "exact two-sided McNemar p-value against r = 0; with until, of bets", fmt=".2g", default=None
    )
    img_per_s_mean: float | None = column(
        "all images over all seconds of the timed bursts", unit="img/s", better="higher", fmt=".1f", default=None
    )
    passes: int | None = column("passes that were timed singly; batch size 1 only", unit="passes", default=None)
    latency_p50_ms: float | None = column(
        "half of the single passes are faster; from 64 passes on, in each process",
        unit="ms",
        better="lower",
        fmt=".2f",
        default=None,
    )
    latency_p50_ms_lo: float | None = lower_end(latency_p50_ms)
    latency_p50_ms_hi: float | None = upper_end(latency_p50_ms)
    latency_p95_ms: float | None = column(
        "95 % of the single passes are faster; from 64 passes on, in each process",
        unit="ms",
        better="lower",
        fmt=".2f",
        default=None,
    )
    latency_p95_ms_lo: float | None = lower_end(latency_p95_ms)
    latency_p95_ms_hi: float | None = upper_end(latency_p95_ms)
    latency_p99_ms: float | None = column(
        "99 % of the single passes are faster; from 662 passes on, in each process",
        unit="ms",
        better="lower",
        fmt=".2f",
        default=None,
    )
    latency_p99_ms_lo: float | None = lower_end(latency_p99_ms)
    latency_p99_ms_hi: float | None = upper_end(latency_p99_ms)
    img_per_s_end_to_end: float | None = column(
        "images per second, reading them included", unit="img/s", better="higher", fmt=".1f", default=None
    )
    img_per_s_end_to_end_lo: float | None = lower_end(img_per_s_end_to_end, "95 % interval, by turns")
    img_per_s_end_to_end_hi: float | None = upper_end(img_per_s_end_to_end)
    img_per_s_accuracy: float | None = column(
        "images per second of the one pass that counts all r", unit="img/s", fmt=".1f", default=None
    )
    input_share: float | None = column(
        "part of that pass spent waiting for images", unit="%", better="lower", fmt=".1f", default=None
    )
    gpu_mhz: float | None = column("median clock of the GPU while it was timed", unit="MHz", fmt=".0f", default=None)
    j_per_img: float | None = column(
        "energy of the GPU for one image, over some seconds",
        unit="J",
        better="lower",
        fmt=".3f",
        default=None,
        fact=ENERGY,
    )
    peak_mem_mib: float | None = column(
        "peak memory of a step, weights and optimiser included", unit="MiB", better="lower", fmt=".0f", default=None
    )
    device_mem_mib: float | None = column(
        "taken of the GPU by then: context, workspaces, caches, all",
        unit="MiB",
        fmt=".0f",
        default=None,
        fact=DEVICE_MEMORY,
        per=2**20,
    )
    status: Status = column("ok, failed, nonfinite, oom or unconverged", default="ok")  # noqa: RUF009 - as all of these a field
    warnings: tuple[str, ...] = column("codes of what a reader should know about this row", default=())
    error: str | None = column("why the row is not ok", default=None)
    step_ms: float | None = column(
        "median time of one batch: a forward pass, or a training step",
        unit="ms",
        better="lower",
        fmt=".2f",
        default=None,
    )
    rounds: int = column("timed rounds behind the speed columns", unit="rounds", default=0)
    processes: int | None = column(
        "fresh processes whose medians the intervals are over; 1: over rounds", unit="processes", default=None
    )
    sessions: int | None = column(
        "processes in which the row was timed, whether or not intervals tell them apart", default=None
    )
    r_layers: tuple[int, ...] = column("tokens removed in each block, after clamping", unit="tokens")
    tokens: tuple[int, ...] = column("tokens after each block", unit="tokens")
    clamped: bool = column("r was capped at what the method can remove in some block")
    padded: bool = column("how many tokens are left depends on the image; tokens are with padding", default=False)
    gmacs_matching: float = column(
        "multiply-accumulates of the matching, not in gmacs", unit="GMAC", better="lower", fmt=".3f"
    )
    params_m: float = column("parameters, 1e6", unit="M", fmt=".2f")
    weights: str = column("random:<seed>, sha256:<digest> or sha256:<digest> (pretrained)")
    img_size: int = column("input height and width", unit="px")
    options: str = column("options of the method")
    training: str = column("off-the-shelf, or trained: the method has weights of its own", default=OFF_THE_SHELF)
    batch_size: int = column("images per forward pass", unit="images")
    dtype: str = column("fp32, tf32, bf16 or fp16")
    device: str = column("where it ran")
    attention: str = column("attention kernel asked for")
    attn_kernel: str = column("attention kernel that ran")
    compile: bool = column("the model was compiled")
    compile_s: float | None = column(
        "time of the first pass, which compiles or finds it cached",
        unit="s",
        better="lower",
        fmt=".1f",
        default=None,
        fact=COMPILE_SECONDS,
    )
    cuda_graphs: bool = column("the pass was captured and replayed as a CUDA graph", default=False)
    mode: str = column("infer, or train: forward, backward and optimiser step")
    crop_pct: float = column("input size over resized size", fmt=".3f")
    interpolation: str = column("resampling filter of the resize")
    mean: tuple[float, ...] = column("subtracted from each channel")
    std: tuple[float, ...] = column("divides each channel")
    dataset: str | None = column("images evaluated, with what is partial about them", default=None)
    dataset_digest: str | None = column("hash of the ordered list of images and labels", default=None)
    protocol: str = column("hash of everything that can change the measurement")
    testbed: str = column("device, threads and library versions", default="")
    run: str = column("name of the run folder, where rows of several are shown together", default="")


def _columns() -> tuple[Column, ...]:
    hints = typing.get_type_hints(Row)
    fields = [(each, _kind(hints[each.name])) for each in dataclasses.fields(Row)]
    if odd := [each.name for each, kind in fields if kind is None or not each.metadata]:
        raise TypeError(f"column {odd[0]} is not made by column(), or its type is none of a table")
    return tuple(Column(each.name, kind, **each.metadata) for each, kind in fields if kind is not None)


def _kind(hint: Any) -> Kind | None:
    """Kind of a type hint, its ``| None`` left out; a Literal of strings is a str; None for any other type."""
    parts = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    found = [part for part in parts if part is not types.NoneType]
    if len(found) != 1:
        return None
    return "str" if typing.get_origin(found[0]) is Literal else _KINDS.get(found[0])


COLUMNS: tuple[Column, ...] = _columns()
"""All columns in the order of the table."""
