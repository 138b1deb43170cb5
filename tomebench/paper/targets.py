"""Assign reported rows to what measures them: the run, its cell, and the quantities to compare.

A table is a folder of ``configs/paper``; every file there is a run. A reported row belongs to a run by the first
:class:`Rows` that takes it, and within the run to the cell of its r and choice.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tomebench.paper.reported import Reported, reported_rows, reported_tables
from tomebench.paper.verdicts import Printed

PROP_ATTN = "prop_attn"
"""Name of the choice of proportional attention (on or off), which is no option of the method."""

CHOICES: Mapping[str, tuple[str, str]] = {
    "feature=X_pre (before attention)": ("metric", "x_pre"),
    "feature=X (after attention)": ("metric", "x"),
    "feature=K (default)": ("metric", "k"),
    "feature=Q": ("metric", "q"),
    "feature=V": ("metric", "v"),
    "distance=euclidean": ("distance", "euclidean"),
    "distance=cosine (default)": ("distance", "cosine"),
    "distance=dot product": ("distance", "dot"),
    "distance=softmax score": ("distance", "softmax"),
    "combine=keep one": ("combine", "keep"),
    "combine=max pool": ("combine", "max"),
    "combine=avg pool (unweighted)": ("combine", "mean"),
    "combine=size-weighted avg (default)": ("combine", "weighted"),
    "partition=sequential": ("partition", "sequential"),
    "partition=alternating (default)": ("partition", "alternating"),
    "partition=random": ("partition", "random"),
    "prop_attn=off (default for MAE)": (PROP_ATTN, "off"),
    "prop_attn=on": (PROP_ATTN, "on"),
    "prop_attn=off": (PROP_ATTN, "off"),
    "prop_attn=on (default for supervised)": (PROP_ATTN, "on"),
    "random pruning": ("matching", "random-prune"),
    "attention pruning": ("matching", "attention-prune"),
    "k-means, 2 iterations": ("matching", "kmeans-2"),
    "k-means, 5 iterations": ("matching", "kmeans-5"),
    "greedy matching": ("matching", "greedy"),
    "bipartite matching (default)": ("matching", "bipartite"),
}
"""Option and value that the method of a reported row stands for, in an ablation."""


@dataclass(frozen=True)
class Rows:
    """Selects rows of a reported table and names the run that measures them. Empty texts select every row."""

    table: str
    run: str = ""  # a file of the table's folder; empty: no run measures them
    model: str = ""
    image_size: str = ""
    schedule: str = ""
    training: str = ""  # text contained in the row's training
    method: str = ""  # text contained in the row's method
    r: int | None = None
    why_not: str = ""  # why top-1 is not compared, or why there is no run
    training_speed: bool = False  # the reported speed is that of training

    def takes(self, row: Reported) -> bool:
        """Whether this selects a reported row."""
        return (
            row.table == self.table
            and self.model in ("", row.model)
            and self.image_size in ("", row.image_size)
            and row.schedule.startswith(self.schedule)
            and self.training in row.training
            and self.method in row.method
            and self.r in (None, row.r)
            and (not self.training_speed or _training_speed(row) is not None)
        )


@dataclass(frozen=True)
class Target:
    """A reported row, the run and cell that measure it, and the quantities to compare."""

    reported: Reported
    run: str  # name of the run; empty: none
    choice: tuple[str, str] | None  # option, or proportional attention, and its value
    acc: Printed | None  # top-1 or another share, in %
    gflops: Printed | None
    speedup: float | None  # over the model without token reduction
    why_not: str


@dataclass(frozen=True)
class PaperTable:
    """One table. ``context`` names rows of others, by what their training column says."""

    name: str
    title: str
    rows: tuple[Rows, ...]
    context: tuple[tuple[str, str], ...] = ()
    by_choice: bool = False  # one part per reported table, as in an ablation, rather than one per run
    acc_name: str = "top-1"

    def targets(self) -> Iterator[Target]:
        """The reported rows of the table as targets, in their order."""
        own = [row for row in reported_rows() if any(each.table == row.table for each in self.rows)]
        for row in own:
            rows = next((each for each in self.rows if each.takes(row)), None)
            if rows is not None:
                yield _target(rows, row, own)

    def remeasured(self, run: str | None = None) -> list[Reported]:
        """Rows that others measured, for context; with ``run``, only those of the architectures of that run."""
        alike = {target.reported.architecture for target in self.targets() if target.run == run}
        return [
            row
            for table, training in self.context
            for row in reported_tables()[table]
            if training in row.training and row.kind == "remeasured" and (run is None or row.architecture in alike)
        ]


def published_gflops(architecture: str, image_size: str, r: int, schedule: str) -> Printed | None:
    """GFLOPs that the authors print, in any table, for this architecture, r and schedule; None if nowhere."""
    for row in reported_rows():
        same = (row.architecture, row.image_size, row.r) == (architecture, image_size, r)
        shape = row.schedule.partition(" ")[0]
        if same and row.kind == "reported" and row.gflops is not None and (r == 0 or shape == schedule):
            return Printed(row.gflops, row.gflops_step)
    return None


def _target(rows: Rows, row: Reported, table: list[Reported]) -> Target:
    acc = None if row.acc is None else Printed(row.acc, row.acc_step)
    gflops = None if row.gflops is None else Printed(row.gflops, row.gflops_step)
    if rows.training_speed:
        return Target(row, rows.run, None, None, gflops, _training_speed(row), "")
    return Target(row, rows.run, CHOICES.get(row.method), acc, gflops, _speedup(row, table), rows.why_not)


def _training_speed(row: Reported) -> float | None:
    """Speed-up of training over the unreduced model, which a row states in its hardware column."""
    found = re.search(r"training speed (\d+(?:\.\d+)?)x", row.hardware)
    return None if found is None else float(found[1])


def _speedup(row: Reported, table: list[Reported]) -> float | None:
    """Speed-up over the unreduced model of the same architecture, in the same reported table, else in another part."""
    alike = [
        other
        for other in table
        if other.is_baseline and (other.architecture, other.image_size) == (row.architecture, row.image_size)
    ]
    for base in sorted(alike, key=lambda other: other.table != row.table):
        if row.im_s is not None and base.im_s is not None:
            return row.im_s / base.im_s
    return None
