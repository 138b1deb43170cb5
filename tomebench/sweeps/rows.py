"""From what a run measured to the rows of its table. A pure function of the store, so every table can be rebuilt.

Nothing here measures and nothing is kept: intervals, differences, statuses and warnings are derived anew each time.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tomebench import stats
from tomebench.measure import testbed
from tomebench.measure.accuracy import counts, discordant
from tomebench.measure.speed import BUDGETS, Budget, Shortfall, paired_seconds, shortfall, step_seconds
from tomebench.measure.validity import AA_FAILED, NOISY, RECOMPILED, aa_failed, noisy, recompiled
from tomebench.schema import (
    CEILING,
    SENTINEL,
    UNWRAPPED,
    Cell,
    CellPredictions,
    ImageList,
    Resolved,
    Round,
    Row,
    Status,
    fingerprint,
)
from tomebench.sweeps.store import Store

R_CLAMPED = "R_CLAMPED"
"""The cap of half the tokens changed r in some block."""
SAME_AS_R = "SAME_AS_R"
"""Followed by the r of an earlier row that removes the same number of tokens in every block: this row repeats it."""
PARTIAL_EVAL = "PARTIAL_EVAL"
"""Only some of the images have been evaluated yet, the same ones for every row."""
ACCURACY_SESSIONS = "accuracy_sessions"
"""Name of the stored fact: numbers of the sessions that evaluated images."""
COMPILE_SECONDS = "compile_seconds"
"""Name of the stored fact: seconds of the first pass, which compiles, by variant name."""
TESTBED_CHANGED = "TESTBED_CHANGED"
"""Measured on different machines or library versions; only the ratios within a round hold."""

_STATED_EXACTLY = frozenset(
    {"model", "checkpoint", "img_size", "r", "schedule", "method", "prop_attn"}
    | {"data", "limit", "device", "dtype", "batch_size", "attention", "prefix_only", "compile", "cuda_graphs", "mode"}
    | {"ceiling"}  # more to time, which changes nothing about the rest
)
"""Settings whose outcome is in the cell or the image list: a path, or "auto", says less than what it came to."""
_RUN = ("timm_id", "r_layers", "tokens_in", "crop_pct", "interpolation", "mean", "std")
"""Fields of Resolved that say what runs; the others are costs that follow from it."""


def build_rows(store: Store, budget: Budget | None = None) -> list[Row]:
    """One row per cell, in order of r.

    Speeds are compared in the rounds that have both variants, top-1 on the images that every cell has seen; a run that
    was stopped halfway gives the rows of what it has.

    Args:
        store: an open run.
        budget: what the speed-up intervals should reach; by default the one the run was asked for.

    Raises:
        StorageError: the store is damaged.
    """
    run = _load(store, budget)
    first_r: dict[tuple[Cell, tuple[int, ...]], int] = {}
    rows = []
    for cell, resolved in sorted(store.cells(), key=lambda pair: pair[0].r):
        alike = (dataclasses.replace(cell, r=0, schedule=""), resolved.r_layers)
        same_as = first_r.setdefault(alike, cell.r)
        rows.append(_row(run, cell, resolved, None if same_as == cell.r else same_as))
    return rows


@dataclass(frozen=True)
class _Run:
    """What the rows of one run share. Mappings are by cell key."""

    settings: Mapping[str, Any]  # of the configuration, those that neither cells nor images state
    baseline: str | None  # key of the r = 0 cell
    rounds: Sequence[Round]
    shortfalls: Mapping[str, Shortfall]
    statuses: Mapping[str, tuple[Status, str | None]]
    peaks: Mapping[str, int]
    compile_seconds: Mapping[str, float]
    images: ImageList | None
    labels: npt.NDArray[np.int64]  # of the images seen, [n_seen]
    predictions: Mapping[str, CellPredictions]  # each [n_seen]
    testbed: str
    warnings: tuple[str, ...]  # about the run as a whole


def _load(store: Store, budget: Budget | None) -> _Run:
    keys = [cell.key for cell, _ in store.cells()]
    baseline = next((cell.key for cell, _ in store.cells() if cell.is_baseline), None)
    budget = budget or BUDGETS.get(store.config.get("budget", ""))
    rounds, images, seen = store.rounds(), store.images(), store.seen()
    timed = [key for key in keys if step_seconds(rounds, key)]
    sessions = {round_.session for round_ in rounds} | set(store.get(ACCURACY_SESSIONS) or ())
    testbeds = [found for session, found in store.sessions() if session in sessions or not sessions]
    about_run = {
        AA_FAILED: baseline is not None and aa_failed(rounds, baseline),
        PARTIAL_EVAL: images is not None and len(seen) < len(images.labels),
        TESTBED_CHANGED: len({testbed.fingerprint(found) for found in testbeds}) > 1,
    }
    return _Run(
        settings={name: value for name, value in store.config.items() if name not in _STATED_EXACTLY},
        baseline=baseline,
        rounds=rounds,
        shortfalls=shortfall(rounds, baseline, timed, budget) if budget and baseline else {},
        statuses=store.statuses(),
        peaks=store.peak_memory(),
        compile_seconds=store.get(COMPILE_SECONDS) or {},
        images=images,
        labels=seen if images is None else images.labels[seen],
        predictions=store.predictions(),
        testbed="; ".join(dict.fromkeys(testbed.one_line(found) for found in testbeds)),
        warnings=tuple(code for code, holds in about_run.items() if holds),
    )


def _row(run: _Run, cell: Cell, resolved: Resolved, same_as: int | None) -> Row:
    key = cell.key
    mac_ratio = resolved.gmacs_unwrapped / resolved.gmacs
    status, error = _status(run, key)
    peak = run.peaks.get(key)
    about_row = {
        R_CLAMPED: resolved.clamped,
        f"{SAME_AS_R}{same_as}": same_as is not None,
        NOISY: noisy(run.rounds, key),
        RECOMPILED: _recompiled(run, key),
    }
    return Row(
        model=cell.model,
        method=cell.method,
        r=cell.r,
        schedule=cell.schedule,
        weights=cell.weights,
        img_size=cell.img_size,
        options=" ".join(f"{name}={_option(value)}" for name, value in cell.options),
        batch_size=cell.batch_size,
        dtype=cell.dtype,
        device=cell.device,
        attention=cell.attention,
        compile=cell.compile,
        mode=cell.mode,
        cuda_graphs=cell.cuda_graphs,
        protocol=_protocol(run, cell, resolved),
        r_layers=resolved.r_layers,
        tokens=resolved.tokens,
        tokens_out=resolved.tokens[-1],
        clamped=resolved.clamped,
        crop_pct=resolved.crop_pct,
        interpolation=resolved.interpolation,
        mean=resolved.mean,
        std=resolved.std,
        attn_kernel=resolved.attn_kernel,
        gmacs=resolved.gmacs,
        mac_ratio=mac_ratio,
        gmacs_matching=resolved.gmacs_matching,
        params_m=resolved.params_m,
        peak_mem_mib=None if peak is None else peak / 2**20,
        testbed=run.testbed,
        status=status,
        error=error,
        warnings=tuple(code for code, holds in about_row.items() if holds) + run.warnings,
        **_speed(run, cell, mac_ratio),
        **_accuracy(run, key),
    )


def _speed(run: _Run, cell: Cell, mac_ratio: float) -> dict[str, Any]:
    """The speed columns of a row; none if the cell was never timed, or the compiler was timed with it."""
    compile_s = {"compile_s": run.compile_seconds.get(cell.key)}
    seconds = step_seconds(run.rounds, cell.key)
    if not seconds or _recompiled(run, cell.key):
        return compile_s
    median, interval = float(np.median(seconds)), stats.median_interval(seconds)
    fields: dict[str, Any] = {
        **compile_s,
        "rounds": len(seconds),
        "step_ms": median * 1e3,
        "img_per_s": cell.batch_size / median,
        "img_per_s_lo": interval and cell.batch_size / interval.hi,
        "img_per_s_hi": interval and cell.batch_size / interval.lo,
    }
    if cell.key == run.baseline:
        fields |= _estimate("speedup_vs_r0", stats.Estimate(1.0, stats.Interval(1.0, 1.0), 0.0))  # by definition
    elif run.baseline:
        fields |= _estimate("speedup_vs_r0", _speedup(run, run.baseline, cell.key))
    if unwrapped := _speedup(run, UNWRAPPED, cell.key):
        fields |= _estimate("speedup_vs_unwrapped", unwrapped)
        fields["efficiency"] = unwrapped.value / mac_ratio
    ceiling = CEILING + cell.key
    if run.baseline and (promised := _speedup(run, run.baseline, ceiling)):
        fields |= _estimate("speedup_ceiling", promised)
    if overhead := _speedup(run, cell.key, ceiling):  # time of the cell over time of its ceiling
        percent = {name: value and 100 * (value - 1) for name, value in _estimate("merge_overhead", overhead).items()}
        fields |= percent
    return fields


def _recompiled(run: _Run, key: str) -> bool:
    """A graph was compiled inside a burst that the row's speeds are made of."""
    return recompiled(run.rounds, {key, CEILING + key, UNWRAPPED, SENTINEL, run.baseline or key})


def _speedup(run: _Run, base: str, other: str) -> stats.Estimate | None:
    first, second = paired_seconds(run.rounds, base, other)
    return stats.speedup(first, second) if first else None


def _estimate(column: str, estimate: stats.Estimate | None) -> dict[str, float | None]:
    if estimate is None:
        return {}
    interval = estimate.interval
    lo, hi = (None, None) if interval is None else (interval.lo, interval.hi)
    return {column: estimate.value, f"{column}_lo": lo, f"{column}_hi": hi}


def _accuracy(run: _Run, key: str) -> dict[str, Any]:
    """The accuracy columns of a row; none if the cell was not evaluated, no counts if its logits were not finite."""
    found, n = run.predictions.get(key), len(run.labels)
    if run.images is None or found is None:
        return {}
    note = f" ({run.images.note})" if run.images.note else ""
    fields: dict[str, Any] = {
        "dataset": run.images.name + note,
        "dataset_digest": run.images.digest,
        "n_seen": n,
    }
    if found.nonfinite:
        return fields
    hits, top5 = counts(found, run.labels)
    interval = stats.wilson(hits, n)
    fields |= {
        "top1_correct": hits,
        "top5_correct": top5,
        "ties": found.ties,
        "top1": 100 * hits / n,
        "top1_lo": 100 * interval.lo,
        "top1_hi": 100 * interval.hi,
    }
    base = run.predictions.get(run.baseline or "")
    if key == run.baseline:
        fields |= {"delta_top1": 0.0, "delta_top1_lo": 0.0, "delta_top1_hi": 0.0, "mcnemar_p": 1.0}  # by definition
    elif base is not None and not base.nonfinite:
        delta = stats.paired_delta(*discordant(base, found, run.labels), n)
        fields |= {
            "delta_top1": 100 * delta.delta,
            "delta_top1_lo": 100 * delta.interval.lo,
            "delta_top1_hi": 100 * delta.interval.hi,
            "mcnemar_p": delta.p,
        }
    return fields


def _status(run: _Run, key: str) -> tuple[Status, str | None]:
    """Status and error text, the gravest first: not measurable, then wrong numbers, then too few."""
    if key in run.statuses and run.statuses[key][0] != "ok":
        return run.statuses[key]
    if _recompiled(run, key):
        return (
            "failed",
            "a graph was compiled inside a timed burst, so what was timed is the compiler; no speed is given",
        )
    if (found := run.predictions.get(key)) and found.nonfinite:
        return "nonfinite", f"NaN or infinite logits on {found.nonfinite} of {len(run.labels)} images"
    if missing := run.shortfalls.get(key):
        done = len(step_seconds(run.rounds, key))
        so_far = f"{done} round" + ("s" if done != 1 else "")
        if missing.half_width is None:
            return "unconverged", f"{so_far} timed; about {missing.rounds_needed} more needed"
        width = f"speed-up known to ±{100 * missing.half_width:.1f} %"
        return "unconverged", f"{width} after {so_far}; about {missing.rounds_needed} more needed"
    return "ok", None


def _protocol(run: _Run, cell: Cell, resolved: Resolved) -> str:
    """Hash of what was asked and what it came to: two rows may be compared if and only if it is equal.

    It covers the cell, what runs for it, the images and the remaining settings (budget, seed, threads), so neither the
    other values of r, nor paths, nor "auto" matter. The machine and the library versions are the testbed's part: a
    change of theirs is what comparisons are made for.
    """
    runs = resolved.to_json()
    return fingerprint(
        {
            "cell": cell.key,
            "fused": not resolved.attn_kernel.startswith("unfused"),
            "resolved": {name: runs[name] for name in _RUN},
            "images": run.images and run.images.digest,
            "settings": dict(run.settings),
        }
    )


def _option(value: str | int | float | bool) -> str:
    """A value as YAML and the command line write it."""
    return str(value).lower() if isinstance(value, bool) else str(value)
