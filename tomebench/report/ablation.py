"""Tables of an ablation as plain strings, laid out like the paper's Table 1: one per option, a line per value."""

from __future__ import annotations

from collections.abc import Sequence

from tomebench.report.narrow import Table, without
from tomebench.report.series import points
from tomebench.runs.row import Row
from tomebench.stats import PairedDelta
from tomebench.words import counted

DEFAULT = "*"
NARROWER = (without("img/s"), without("p"), without("speed-up"))
"""Columns that are left out, in this order, where a sub-table does not fit."""


def answer(values: Sequence[tuple[str, bool, Row, PairedDelta | None]]) -> str | None:
    """What the changes of options cost in top-1, in a sentence; None where top-1 was not measured.

    Args:
        values: of all sub-tables, as :func:`sub_table` takes them.
    """
    deltas = {name: delta for name, default, _, delta in values if not default and delta is not None}
    if not deltas:
        return None
    lose = sum(delta.interval.hi < 0 for delta in deltas.values())
    gain = sum(delta.interval.lo > 0 for delta in deltas.values())
    name, worst = min(deltas.items(), key=lambda item: item[1].delta)
    loses, gains = "loses" if lose == 1 else "lose", "gains" if gain == 1 else "gain"
    text = f"Of {counted(len(deltas), 'change')} {lose} surely {loses} top-1 and {gain} surely {gains} it"
    if worst.delta >= 0:
        return text
    limits = points(100 * worst.delta, 100 * worst.interval.lo, 100 * worst.interval.hi, " points")
    return f"{text}; {name} loses most, {limits}"


def sub_table(option: str, values: Sequence[tuple[str, bool, Row, PairedDelta | None]]) -> Table:
    """Headers and entries of the table of one option.

    Args:
        option: the option that is varied.
        values: for each value its name, whether it is the default, its row, and its paired top-1 difference to the
            default.
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
