"""From what a run measured to the rows of its table. A pure function of the store, so every table can be rebuilt.

Nothing here measures and nothing is kept: intervals, differences, statuses and warnings are derived anew each time.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tomebench import stats
from tomebench.measure import testbed
from tomebench.measure.accuracy import agreeing, at_chance_level, counts, discordant
from tomebench.measure.budget import BUDGETS, Budget, Shortfall, shortfall
from tomebench.measure.rounds import step_seconds
from tomebench.measure.validity import (
    ATTN_FALLBACK,
    CHANCE_LEVEL,
    OUTPUT_MISMATCH,
    attn_fallback,
    recompiled,
    row_codes,
    run_codes,
)
from tomebench.reduction.options import OPTIONS
from tomebench.schema import (
    CEILING,
    SENTINEL,
    UNWRAPPED,
    Cell,
    CellPredictions,
    ImageList,
    Pace,
    Resolved,
    Round,
    Row,
    Scalar,
    Status,
    fingerprint,
)
from tomebench.sweeps.speed_columns import speed_columns
from tomebench.sweeps.store import Store
from tomebench.words import counted

R_CLAMPED = "R_CLAMPED"
"""The cap of half the tokens changed r in some block."""
SAME_AS_R = "SAME_AS_R"
"""Followed by the r of an earlier row that removes the same number of tokens in every block: this row repeats it."""
PARTIAL_EVAL = "PARTIAL_EVAL"
"""Only some of the images have been evaluated yet, the same ones for every row."""
ACCURACY_SESSIONS = "accuracy_sessions"
"""Name of a fact in older stores: numbers of the sessions that evaluated images, which each chunk says now."""
COMPILE_SECONDS = "compile_seconds"
"""Name of the stored fact: seconds of the first pass, which compiles, by variant name."""
END_TO_END = "end_to_end"
"""Name of the stored fact: images, seconds and turns of a cell fed by the data loader, by cell key."""
ENERGY = "energy"
"""Name of the stored fact: joules for one image, by cell key."""
DEVICE_MEMORY = "device_memory"
"""Name of the stored fact: bytes of the GPU that were taken when a cell had run, by cell key."""
OUTPUT_EXCESS = "output_excess"
"""Name of the stored fact: how far timed logits are from the model's, over what rounding explains, by cell key."""
PROCESSES = "processes"
"""Name in a session's testbed: how many processes evaluate images side by side; absent for one."""
TESTBED_CHANGED = "TESTBED_CHANGED"
"""Measured on different machines or library versions; only the ratios within a round hold."""

_STATED_EXACTLY = frozenset(
    {
        "model",
        "checkpoint",
        "img_size",
        "preprocessing",
        "r",
        "schedule",
        "method",
        "prop_attn",
        "ablate",
        "real",
        "allow_missing",
        "use_ema",
        "class_names",
        "labels",
    }
    | {"data", "limit", "device", "dtype", "batch_size", "attention", "prefix_only", "compile", "cuda_graphs", "mode"}
    | {"ceiling", "end_to_end", "cells"}  # more or less to do, which changes nothing about the rest
    | {*OPTIONS}
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
    max_mhz: int | None  # of the GPU; None where it is not known, or not the same in all sessions
    shortfalls: Mapping[str, Shortfall]
    statuses: Mapping[str, tuple[Status, str | None]]
    peaks: Mapping[str, int]
    device_memory: Mapping[str, int]
    energy: Mapping[str, float]  # joules for an image
    compile_seconds: Mapping[str, float]
    end_to_end: Mapping[str, tuple[int, float, int]]  # images and seconds, of how many turns
    output_excess: Mapping[str, float]
    images: ImageList | None
    labels: npt.NDArray[np.int64]  # of the images seen, [n_seen]
    predictions: Mapping[str, CellPredictions]  # each [n_seen]
    evaluation: Mapping[str, float]  # columns about the pass over the images
    testbed: str
    warnings: tuple[str, ...]  # about the run as a whole


def _load(store: Store, budget: Budget | None) -> _Run:
    keys = [cell.key for cell, _ in store.cells()]
    baseline = next((cell.key for cell, _ in store.cells() if cell.is_baseline), None)
    budget = budget or BUDGETS.get(store.config.get("budget", ""))
    rounds, images, seen = store.rounds(), store.images(), store.seen()
    timed = [key for key in keys if step_seconds(rounds, key)]
    paces = store.paces()
    counted = {pace.session for pace in paces} | set(store.get(ACCURACY_SESSIONS) or ())
    sessions = {round_.session for round_ in rounds} | counted
    testbeds = [found for session, found in store.sessions() if session in sessions or not sessions]
    on_gpu = any(cell.device.startswith("cuda") for cell, _ in store.cells())
    about_run = {
        PARTIAL_EVAL: images is not None and len(seen) < len(images.labels),
        TESTBED_CHANGED: len({testbed.fingerprint(found) for found in testbeds}) > 1,
    }
    return _Run(
        settings={name: value for name, value in store.config.items() if name not in _STATED_EXACTLY},
        baseline=baseline,
        rounds=rounds,
        max_mhz=_max_mhz(testbeds),
        shortfalls=shortfall(rounds, baseline, timed, budget) if budget and baseline else {},
        statuses=store.statuses(),
        peaks=store.peak_memory(),
        device_memory=store.get(DEVICE_MEMORY) or {},
        energy=store.get(ENERGY) or {},
        compile_seconds=store.get(COMPILE_SECONDS) or {},
        end_to_end=end_to_end_turns(store),
        output_excess=store.get(OUTPUT_EXCESS) or {},
        images=images,
        labels=seen if images is None else images.labels[seen],
        predictions=store.predictions(),
        evaluation=_evaluation(paces, dict(store.sessions())),
        testbed="; ".join(dict.fromkeys(testbed.one_line(found) for found in testbeds)),
        warnings=(*run_codes(rounds, baseline, on_gpu=on_gpu), *(code for code, holds in about_run.items() if holds)),
    )


def end_to_end_turns(store: Store) -> dict[str, tuple[int, float, int]]:
    """Images, seconds and turns of every cell that was fed by the data loader; older stores do not say how many."""
    found = store.get(END_TO_END) or {}
    return {key: (entry[0], entry[1], entry[2] if len(entry) > 2 else 2) for key, entry in found.items()}


def _max_mhz(testbeds: Sequence[Mapping[str, Any]]) -> int | None:
    found = {known["gpu_max_mhz"] for known in testbeds if isinstance(known.get("gpu_max_mhz"), int)}
    return found.pop() if len(found) == 1 else None


def _row(run: _Run, cell: Cell, resolved: Resolved, same_as: int | None) -> Row:
    key = cell.key
    mac_ratio = resolved.gmacs_unwrapped / resolved.gmacs
    status, error = _status(run, key)
    peak, taken = run.peaks.get(key), run.device_memory.get(key)
    about_row = {
        R_CLAMPED: resolved.clamped,
        f"{SAME_AS_R}{same_as}": same_as is not None,
        ATTN_FALLBACK: attn_fallback(cell.attention, resolved.attn_kernel),
        CHANCE_LEVEL: key == run.baseline and _guesses(run, key),
        OUTPUT_MISMATCH: any(run.output_excess.get(each, 0.0) > 1 for each in (key, run.baseline or key)),
    }
    codes = [code for code, holds in about_row.items() if holds]
    codes += row_codes(
        run.rounds, key, _beside(run, key), run.max_mhz, SENTINEL if key == run.baseline else run.baseline or key
    )
    return Row(
        model=cell.model,
        method=cell.method,
        r=cell.r,
        schedule=cell.schedule,
        weights=cell.weights,
        img_size=cell.img_size,
        options=options_text(cell.options),
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
        device_mem_mib=None if taken is None else taken / 2**20,
        testbed=run.testbed,
        status=status,
        error=error,
        warnings=(*codes, *run.warnings),
        **_speed(run, cell, mac_ratio),
        **_accuracy(run, key),
    )


def _speed(run: _Run, cell: Cell, mac_ratio: float) -> dict[str, Any]:
    """The speed columns of a row; none of its pace if the compiler was timed with it."""
    fields = {"compile_s": run.compile_seconds.get(cell.key), "j_per_img": run.energy.get(cell.key)}
    if end_to_end := run.end_to_end.get(cell.key):
        images, seconds, _turns = end_to_end
        fields["img_per_s_end_to_end"] = images / seconds
    if not recompiled(run.rounds, _beside(run, cell.key)):
        fields |= speed_columns(run.rounds, cell, run.baseline, mac_ratio)
    return fields


def _beside(run: _Run, key: str) -> set[str]:
    """The variants that a row's speeds are made of."""
    return {key, CEILING + key, UNWRAPPED, SENTINEL, run.baseline or key}


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
        **run.evaluation,
    }
    if found.nonfinite:
        return fields
    base = run.predictions.get(run.baseline or "")
    if base is not None and not base.nonfinite:
        agreed = agreeing(base, found)
        fields |= {"agreement": 100 * agreed / n, "agreed": agreed}
        if key != run.baseline:
            share = stats.wilson(agreed, n)
            fields |= {"agreement_lo": 100 * share.lo, "agreement_hi": 100 * share.hi}
    if not run.images.labelled:
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


def _guesses(run: _Run, key: str) -> bool:
    found = run.predictions.get(key)
    if run.images is None or not run.images.labelled or found is None or found.nonfinite:
        return False
    return at_chance_level(found, run.labels, run.images.num_classes)


def _evaluation(paces: Sequence[Pace], testbeds: Mapping[int, Mapping[str, Any]]) -> dict[str, float]:
    """How fast the pass over the images was, for all cells together; nothing where no chunk says so."""
    if not paces:
        return {}
    # Processes work side by side, each on as many batches as the others or one less.
    wall = 0.0
    for pace in paces:
        turns = math.ceil(pace.chunks / testbeds[pace.session].get(PROCESSES, 1))
        wall += turns * pace.seconds / pace.chunks
    return {
        "img_per_s_accuracy": sum(pace.images for pace in paces) / wall,
        "input_share": 100 * sum(pace.waited for pace in paces) / sum(pace.seconds for pace in paces),
    }


def _status(run: _Run, key: str) -> tuple[Status, str | None]:
    """Status and error text, the gravest first: not measurable, then wrong numbers, then too few."""
    if key in run.statuses and run.statuses[key][0] != "ok":
        return run.statuses[key]
    if recompiled(run.rounds, _beside(run, key)):
        return (
            "failed",
            "a graph was compiled inside a timed burst, so what was timed is the compiler; no speed is given",
        )
    if (found := run.predictions.get(key)) and found.nonfinite:
        return "nonfinite", f"NaN or infinite logits on {found.nonfinite} of {counted(len(run.labels), 'image')}"
    if missing := run.shortfalls.get(key):
        done = len(step_seconds(run.rounds, key))
        so_far = counted(done, "round")
        if missing.half_width is None:
            return "unconverged", f"{so_far} timed; about {missing.rounds_needed} more needed"
        width = f"known to ±{100 * missing.half_width:.1f} %"
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


def options_text(options: tuple[tuple[str, Scalar], ...]) -> str:
    """Options of a method, each value as YAML and the command line write it: ``prop_attn=true``."""
    return " ".join(f"{name}={str(value).lower() if isinstance(value, bool) else value}" for name, value in options)
