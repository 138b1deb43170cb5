"""The sub-tables of an ablation as plain strings, as the paper lays them out: a line for each value."""

from __future__ import annotations

from collections.abc import Sequence

from tomebench.report.narrow import Table
from tomebench.report.series import points
from tomebench.schema import Row
from tomebench.stats import PairedDelta

DEFAULT = "*"


def sub_table(option: str, values: Sequence[tuple[str, bool, Row, PairedDelta | None]]) -> Table:
    """Headers and cells of one sub-table.

    Args:
        option: what is varied.
        values: of each value its name, whether it is the default, its row, and its top-1 less the default's.
    """
    columns = {option: [f"{name} {DEFAULT}" if default else name for name, default, _, _ in values]}
    rows = [row for _, _, row, _ in values]
    if any(row.top1 is not None for row in rows):
        columns["top-1"] = ["-" if row.top1 is None else f"{row.top1:.2f}" for row in rows]
        columns["Δ vs default [95%]"] = [
            points(100 * d.delta, 100 * d.interval.lo, 100 * d.interval.hi) if d is not None else "" if default else "-"
            for _, default, _, d in values
        ]
        columns["p"] = ["" if d is None else f"{d.p:.2g}" for _, _, _, d in values]
    if any(row.img_per_s is not None for row in rows):
        columns["img/s"] = ["-" if row.img_per_s is None else f"{row.img_per_s:.1f}" for row in rows]
        columns["speed-up"] = ["-" if row.speedup_vs_r0 is None else f"{row.speedup_vs_r0:.2f}x" for row in rows]
    return list(columns), [list(cells) for cells in zip(*columns.values(), strict=True)]
