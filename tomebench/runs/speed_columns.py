"""Speed columns of a row (img/s, speed-up, overhead over the ceiling, latency) from stored rounds. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tomebench import stats
from tomebench.runs.budget import complete_processes
from tomebench.runs.rounds import compare, counted_bursts, median_clock, sessions, step_seconds
from tomebench.schema import CEILING, UNWRAPPED, Cell, Round

_QUANTILES = (("p50", 0.5, 64), ("p95", 0.95, 64), ("p99", 0.99, 662))
"""Quantiles of latency, each with the least number of passes for it, as MLPerf inference asks."""


def speed_columns(
    rounds: Sequence[Round],
    cell: Cell,
    baseline: str | None,
    mac_ratio: float,
    *,
    reference: str | None = None,
    between: bool = False,
) -> dict[str, Any]:
    """Speeds of a cell with their intervals; empty if it was never timed.

    Args:
        rounds: all rounds.
        cell: whose row it is.
        baseline: key of the r = 0 cell; None where it was not measured.
        mac_ratio: GMACs of the unwrapped model over those of the cell.
        reference: variant that is the common reference, which may be the baseline; None where the run has none.
        between: each session was a fresh process, and intervals are over processes.
    """
    bursts = counted_bursts(rounds, cell.key)
    if not bursts:
        return {}
    seconds = step_seconds(rounds, cell.key)
    # A single process has no interval over processes, so that over its rounds is used.
    between = between and complete_processes(rounds, baseline or cell.key, cell.key, ceiling=False) > 1
    step = stats.level(seconds, sessions(rounds, cell.key) if between else ())
    fields: dict[str, Any] = {
        "rounds": len(seconds),
        "processes": step.processes,
        "sessions": len({*sessions(rounds, cell.key)}),
        "step_ms": step.value * 1e3,
        "img_per_s": cell.batch_size / step.value,
        "img_per_s_lo": step.interval and cell.batch_size / step.interval.hi,
        "img_per_s_hi": step.interval and cell.batch_size / step.interval.lo,
        "img_per_s_mean": cell.batch_size * sum(b.steps for b in bursts) / sum(b.seconds for b in bursts),
    }
    fields |= _latency(rounds, cell.key, between=between)
    fields["gpu_mhz"] = median_clock(bursts)
    if cell.key == baseline:
        fields |= _estimate("speedup_vs_r0", stats.Estimate(1.0, stats.Interval(1.0, 1.0), 0.0))  # by definition
    elif baseline:
        fields |= _estimate("speedup_vs_r0", compare(rounds, baseline, cell.key, between=between))
    if reference is not None and reference == baseline:
        own = {name.replace("_r0", "_reference"): value for name, value in fields.items() if "speedup_vs_r0" in name}
        fields |= own
    elif reference is not None:
        fields |= _estimate("speedup_vs_reference", compare(rounds, reference, cell.key, between=between))
    if unwrapped := compare(rounds, UNWRAPPED, cell.key, between=between):
        fields |= _estimate("speedup_vs_unwrapped", unwrapped)
        scaled = {name: value and value / mac_ratio for name, value in _estimate("efficiency", unwrapped).items()}
        fields |= scaled  # the MAC ratio is exact
    ceiling = CEILING + cell.key
    if baseline and (promised := compare(rounds, baseline, ceiling, between=between)):
        fields |= _estimate("speedup_ceiling", promised)
    # Seconds of the cell over seconds of its ceiling.
    if overhead := compare(rounds, cell.key, ceiling, between=between):
        percent = {name: value and 100 * (value - 1) for name, value in _estimate("merge_overhead", overhead).items()}
        fields |= percent
    return fields


def selector_columns(passes: Sequence[Sequence[float]]) -> dict[str, Any]:
    """Time of choosing and its share of the blocks' time, from (choosing, blocks) in ms of each marked pass."""
    choosing, blocks = np.array(passes, dtype=np.float64).T
    return {
        **_estimate("selector_ms", stats.Estimate(float(np.median(choosing)), stats.median_interval(choosing), None)),
        "selector_share": 100 * float(np.median(choosing / blocks)),
    }


def _latency(rounds: Sequence[Round], name: str, *, between: bool) -> dict[str, Any]:
    """Quantiles of the milliseconds of single passes; each needs a least number of passes.

    With several processes it is the mean of theirs, with Student's interval over them, if every process that counts has
    that number: leaving out those with fewer passes would bias it.
    """
    timed = [round_ for round_ in rounds if name in round_.counted]
    by_session: dict[int, list[list[float]]] = {}
    for round_ in timed:
        by_session.setdefault(round_.session, []).append([1e3 * s for s in round_.counted[name].passes])
    together = [each for found in by_session.values() for each in found]
    counted = [found for found in by_session.values() if len(found) >= stats.MIN_VALUES] if between else [together]
    passes = [np.concatenate(found) for found in counted if found]
    total = sum(map(len, together))
    fields: dict[str, Any] = {"passes": total} if total else {}
    for quantile, share, least in _QUANTILES:
        if not passes or min(map(len, passes)) < least:
            continue
        logs = [math.log(np.quantile(each, share)) for each in passes]
        column, value = f"latency_{quantile}_ms", math.exp(float(np.mean(logs)))
        interval = None if between else stats.quantile_interval(together, share)
        if (half := stats.mean_half_width(logs)) is not None:
            interval = stats.Interval(value * math.exp(-half), value * math.exp(half))
        ends = (None, None) if interval is None else (interval.lo, interval.hi)
        fields |= {column: value, f"{column}_lo": ends[0], f"{column}_hi": ends[1]}
    return fields


def _estimate(column: str, estimate: stats.Estimate | None) -> dict[str, float | None]:
    if estimate is None:
        return {}
    interval = estimate.interval
    lo, hi = (None, None) if interval is None else (interval.lo, interval.hi)
    return {column: estimate.value, f"{column}_lo": lo, f"{column}_hi": hi}
