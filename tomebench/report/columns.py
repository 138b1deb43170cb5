"""What every column of the result table means: type, unit, direction of improvement, format."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tomebench.words import counted


@dataclass(frozen=True)
class Column:
    """Everything a writer or a reader needs to know about one field of a row."""

    name: str
    dtype: Literal["str", "int", "float", "bool", "ints", "floats", "strs"]
    unit: str | None  # img/s, ms, %, points, x, ...
    better: Literal["higher", "lower"] | None  # direction of improvement, None where there is none
    format: str  # format spec for people, e.g. ".2f"
    doc: str


def _column(
    name: str, dtype: str, doc: str, unit: str | None = None, better: str | None = None, fmt: str = ""
) -> Column:
    return Column(name, dtype, unit, better, fmt, doc)  # type: ignore[arg-type]


def _latency_columns(name: str, share: str, least: int) -> tuple[Column, ...]:
    """A quantile of the latency and the ends of its interval."""
    what = f"{share} of the single passes are faster; from {counted(least, 'pass')} on, in each process"
    ends = (("lo", "lower"), ("hi", "upper"))
    return (
        _column(f"latency_{name}_ms", "float", what, "ms", "lower", ".2f"),
        *(
            _column(f"latency_{name}_ms_{end}", "float", f"{word} end of its 95 % interval", "ms", None, ".2f")
            for end, word in ends
        ),
    )


COLUMNS: tuple[Column, ...] = (
    _column("model", "str", "timm id with tag, or the name of a preset"),
    _column("method", "str", "token reduction method"),
    _column("r", "int", "tokens to remove per layer, as asked", "tokens"),
    _column("schedule", "str", "how r is spread over the layers"),
    _column("tokens_out", "int", "tokens after the last block", "tokens"),
    _column("gmacs", "float", "multiply-accumulates of the matmuls for one image", "GMAC", "lower", ".2f"),
    _column("img_per_s", "float", "images per second: batch size over the median step time", "img/s", "higher", ".1f"),
    _column("img_per_s_lo", "float", "lower end of its 95 % interval, by batches of rounds", "img/s", None, ".1f"),
    _column("img_per_s_hi", "float", "upper end of its 95 % interval", "img/s", None, ".1f"),
    _column("speedup_vs_r0", "float", "paired speed-up over the wrapped model at r = 0", "x", "higher", ".2f"),
    _column("speedup_vs_r0_lo", "float", "lower end of its 95 % interval", "x", None, ".2f"),
    _column("speedup_vs_r0_hi", "float", "upper end of its 95 % interval", "x", None, ".2f"),
    _column("speedup_vs_unwrapped", "float", "paired speed-up over the unwrapped model", "x", "higher", ".2f"),
    _column("speedup_vs_unwrapped_lo", "float", "lower end of its 95 % interval", "x", None, ".2f"),
    _column("speedup_vs_unwrapped_hi", "float", "upper end of its 95 % interval", "x", None, ".2f"),
    _column("mac_ratio", "float", "GMACs of the unwrapped model over GMACs of this row", "x", None, ".2f"),
    _column("efficiency", "float", "speedup_vs_unwrapped over mac_ratio", None, "higher", ".2f"),
    _column("efficiency_lo", "float", "lower end of its 95 % interval", None, None, ".2f"),
    _column("efficiency_hi", "float", "upper end of its 95 % interval", None, None, ".2f"),
    _column("speedup_ceiling", "float", "speed-up over r = 0 of the same tokens sliced off", "x", "higher", ".2f"),
    _column("speedup_ceiling_lo", "float", "lower end of its 95 % interval", "x", None, ".2f"),
    _column("speedup_ceiling_hi", "float", "upper end of its 95 % interval", "x", None, ".2f"),
    _column("merge_overhead", "float", "time over the time of the slicing ceiling, less one", "%", "lower", ".1f"),
    _column("merge_overhead_lo", "float", "lower end of its 95 % interval", "%", None, ".1f"),
    _column("merge_overhead_hi", "float", "upper end of its 95 % interval", "%", None, ".1f"),
    _column("top1", "float", "top-1 accuracy", "%", "higher", ".2f"),
    _column("top1_lo", "float", "lower end of its 95 % Wilson interval", "%", None, ".2f"),
    _column("top1_hi", "float", "upper end of its 95 % Wilson interval", "%", None, ".2f"),
    _column("top1_correct", "int", "images whose largest logit is the true class", "images", "higher"),
    _column("top5_correct", "int", "images whose true class is among the five largest logits", "images", "higher"),
    _column("n_seen", "int", "images evaluated", "images"),
    _column("ties", "int", "images whose largest logit is shared by two classes", "images"),
    _column("top1_lost", "int", "images that are right at r = 0 and wrong here", "images", "lower"),
    _column("top1_gained", "int", "images that are wrong at r = 0 and right here", "images", "higher"),
    _column("delta_top1", "float", "top-1 minus top-1 at r = 0, same images", "points", "higher", "+.2f"),
    _column("delta_top1_lo", "float", "lower end of its 95 % paired interval", "points", None, "+.2f"),
    _column("delta_top1_hi", "float", "upper end of its 95 % paired interval", "points", None, "+.2f"),
    _column("agreement", "float", "images with the same top-1 class as at r = 0", "%", "higher", ".2f"),
    _column("agreement_lo", "float", "lower end of its 95 % Wilson interval", "%", None, ".2f"),
    _column("agreement_hi", "float", "upper end of its 95 % Wilson interval", "%", None, ".2f"),
    _column("agreed", "int", "images behind it", "images", "higher"),
    _column("mcnemar_p", "float", "exact two-sided McNemar p-value against r = 0", None, None, ".2g"),
    _column("img_per_s_mean", "float", "all images over all seconds of the timed bursts", "img/s", "higher", ".1f"),
    _column("passes", "int", "passes that were timed singly; batch size 1 only", "passes"),
    *_latency_columns("p50", "half", 64),
    *_latency_columns("p95", "95 %", 64),
    *_latency_columns("p99", "99 %", 662),
    _column("img_per_s_end_to_end", "float", "images per second, reading them included", "img/s", "higher", ".1f"),
    _column("img_per_s_end_to_end_lo", "float", "lower end of its 95 % interval, by turns", "img/s", None, ".1f"),
    _column("img_per_s_end_to_end_hi", "float", "upper end of its 95 % interval", "img/s", None, ".1f"),
    _column("img_per_s_accuracy", "float", "images per second of the one pass that counts all r", "img/s", None, ".1f"),
    _column("input_share", "float", "part of that pass spent waiting for images", "%", "lower", ".1f"),
    _column("gpu_mhz", "float", "median clock of the GPU while it was timed", "MHz", None, ".0f"),
    _column("j_per_img", "float", "energy of the GPU for one image, over some seconds", "J", "lower", ".3f"),
    _column("peak_mem_mib", "float", "peak memory of a step, weights and optimiser included", "MiB", "lower", ".0f"),
    _column(
        "device_mem_mib", "float", "taken of the GPU by then: context, workspaces, caches, all", "MiB", None, ".0f"
    ),
    _column("status", "str", "ok, failed, nonfinite, oom or unconverged"),
    _column("warnings", "strs", "codes of what a reader should know about this row"),
    _column("error", "str", "why the row is not ok"),
    _column("step_ms", "float", "median time of one batch: a forward pass, or a training step", "ms", "lower", ".2f"),
    _column("rounds", "int", "timed rounds behind the speed columns", "rounds"),
    _column("processes", "int", "fresh processes whose medians the intervals are over; 1: over rounds", "processes"),
    _column("sessions", "int", "processes in which the row was timed, whether or not intervals tell them apart"),
    _column("r_layers", "ints", "tokens removed in each block, after clamping", "tokens"),
    _column("tokens", "ints", "tokens after each block", "tokens"),
    _column("clamped", "bool", "the cap of half the tokens changed r in some block"),
    _column("gmacs_matching", "float", "multiply-accumulates of the matching, not in gmacs", "GMAC", "lower", ".3f"),
    _column("params_m", "float", "parameters, 1e6", "M", None, ".2f"),
    _column("weights", "str", "random:<seed>, sha256:<digest> or sha256:<digest> (pretrained)"),
    _column("img_size", "int", "input height and width", "px"),
    _column("options", "str", "options of the method"),
    _column("batch_size", "int", "images per forward pass", "images"),
    _column("dtype", "str", "fp32, tf32, bf16 or fp16"),
    _column("device", "str", "where it ran"),
    _column("attention", "str", "attention kernel asked for"),
    _column("attn_kernel", "str", "attention kernel that ran"),
    _column("compile", "bool", "the model was compiled"),
    _column("compile_s", "float", "time of the first pass, which compiles or finds it cached", "s", "lower", ".1f"),
    _column("cuda_graphs", "bool", "the pass was captured and replayed as a CUDA graph"),
    _column("mode", "str", "infer, or train: forward, backward and optimiser step"),
    _column("crop_pct", "float", "input size over resized size", None, None, ".3f"),
    _column("interpolation", "str", "resampling filter of the resize"),
    _column("mean", "floats", "subtracted from each channel"),
    _column("std", "floats", "divides each channel"),
    _column("dataset", "str", "images evaluated, with what is partial about them"),
    _column("dataset_digest", "str", "hash of the ordered list of images and labels"),
    _column("protocol", "str", "hash of everything that can change the measurement"),
    _column("testbed", "str", "device, threads and library versions"),
    _column("run", "str", "name of the run folder, where rows of several are shown together"),
)
