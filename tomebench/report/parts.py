"""Join runs that are parts of one sweep (``--cells i/n``, for array jobs) into one table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tomebench.report.series import is_baseline
from tomebench.runs.row import Row

CELLS = "cells"
"""Name of the setting with the part of the sweep that a run is."""


def are_parts(configs: Sequence[Mapping[str, Any]]) -> bool:
    """Whether runs are parts of one sweep: equal settings, but each with another ``i`` of ``--cells i/n``.

    Args:
        configs: settings of the runs, as their stores have them.
    """
    if len(configs) < 2 or not all(config.get(CELLS) for config in configs):
        return False
    rest = [{name: value for name, value in config.items() if name != CELLS} for config in configs]
    parts = [str(config[CELLS]).split("/") for config in configs]
    numbers = [part for part, _ in parts]
    return all(each == rest[0] for each in rest) and len({n for _, n in parts}) == 1 and len(set(numbers)) == len(parts)


def joined(runs: Sequence[Sequence[Row]], configs: Sequence[Mapping[str, Any]]) -> tuple[list[Row], list[str]]:
    """Join the rows of all parts in order of r; second, notes to show with them.

    Every part has measured an r = 0 of its own, the base of its speed-ups; the table shows that of the first part.

    Args:
        runs: the rows of each part.
        configs: their settings, for which :func:`are_parts` holds.
    """
    baselines = [row for rows in runs for row in rows if is_baseline(row)]
    others = [row for rows in runs for row in rows if not is_baseline(row)]
    notes = [f"r = 0 is that of part {configs[0][CELLS]}; each speed-up is over the r = 0 of its own part"]
    if len({(row.top1_correct, row.dataset_digest) for row in baselines}) > 1:
        notes.append("the parts do not agree about r = 0: they had other images, weights or arithmetic")
    total = int(str(configs[0][CELLS]).split("/")[1])
    there = {int(str(config[CELLS]).split("/")[0]) for config in configs}
    if missing := [f"{part}/{total}" for part in range(1, total + 1) if part not in there]:
        notes.append(f"parts that are not here: {', '.join(missing)}")
    return [*baselines[:1], *sorted(others, key=lambda row: row.r)], notes
