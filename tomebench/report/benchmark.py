"""Export of a snapshot's figures to services that plot them over commits: github-action-benchmark and Bencher."""

from __future__ import annotations

from typing import Any

from tomebench import stats
from tomebench.gate.records import CellRecord, Snapshot
from tomebench.report.escape import clean


def github_action_benchmark(snapshot: Snapshot) -> list[dict[str, Any]]:
    """Entries for the tool ``customBiggerIsBetter``: name, unit, value, range."""
    entries = []
    for cell, measures in _measured(snapshot):
        for name, (unit, value, lo, hi) in measures.items():
            entry: dict[str, Any] = {"name": f"{cell}: {name}", "unit": unit, "value": value}
            if lo is not None and hi is not None:
                entry["range"] = f"{lo:.4g} to {hi:.4g}"
            entries.append(entry)
    return entries


def bencher_metric_format(snapshot: Snapshot) -> dict[str, dict[str, dict[str, float]]]:
    """Bencher Metric Format: benchmark -> measure -> value with its bounds."""
    return {
        cell: {
            name.replace(" ", "-"): {
                "value": value,
                **({} if lo is None or hi is None else {"lower_value": lo, "upper_value": hi}),
            }
            for name, (_, value, lo, hi) in measures.items()
        }
        for cell, measures in _measured(snapshot)
    }


_Measure = tuple[str, float, float | None, float | None]  # unit, value, interval


def _measured(snapshot: Snapshot) -> list[tuple[str, dict[str, _Measure]]]:
    return [
        (clean(f"{cell.asked.model} {cell.asked.method} {cell.name}"), measures)
        for cell in snapshot.cells
        if cell.problem is None and (measures := _measures(cell))
    ]


def _measures(cell: CellRecord) -> dict[str, _Measure]:
    """Speed, speed-up and top-1 of one cell: name to measure; larger is better for all."""
    found: dict[str, _Measure] = {}
    if cell.speed is not None and not cell.speed.invalid:
        processes = cell.speed.processes or ()
        pace = stats.level(cell.speed.seconds, processes)
        bounds = (None, None) if pace.interval is None else (1 / pace.interval.hi, 1 / pace.interval.lo)
        found["images per second"] = ("img/s", 1 / pace.value, *bounds)
        estimate = stats.speedup(cell.speed.reference, cell.speed.seconds, processes)
        ends = (None, None) if estimate.interval is None else (estimate.interval.lo, estimate.interval.hi)
        found["speed-up over the unwrapped model" if cell.asked.r == 0 else "speed-up"] = ("x", estimate.value, *ends)
    if cell.accuracy is not None:
        right, n = int(cell.accuracy.values().sum()), cell.accuracy.n_seen
        wilson = stats.wilson(right, n)
        found["top-1"] = ("%", 100 * right / n, 100 * wilson.lo, 100 * wilson.hi)
    return found
