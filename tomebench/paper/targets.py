"""Reported rows and what measures them: which run, which cell of it, and what of a row is to be compared.

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
"""Name of the choice that is none of :data:`tomebench.reduction.methods.flags.OPTIONS`; its values are on and off."""

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
"""What the method of a reported row chooses, where it is an ablation's."""


@dataclass(frozen=True)
class Rows:
    """Some rows of one reported table, and the run that measures them. Empty texts take every row."""

    table: str
    run: str = ""  # a file of the table's folder; empty: nothing here measures them
    model: str = ""
    image_size: str = ""
    schedule: str = ""
    training: str = ""  # in the row's training
    method: str = ""  # in the row's method
    r: int | None = None
    why_not: str = ""  # why the top-1 of the run is not that of these rows; without a run, why there is none
    training_speed: bool = False  # what is reported is the speed of training

    def takes(self, row: Reported) -> bool:
        """Whether a reported row is one of these."""
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
    """A reported row, the cell that measures it, and what of it is to be compared."""

    reported: Reported
    run: str  # empty: none
    choice: tuple[str, str] | None  # an option, or proportional attention, and its value
    acc: Printed | None  # top-1 or another share, in %
    gflops: Printed | None
    speedup: float | None  # over the model without reduction
    why_not: str


@dataclass(frozen=True)
class PaperTable:
    """One table. ``context`` names others' measurements, and what their training says."""

    name: str
    title: str
    rows: tuple[Rows, ...]
    context: tuple[tuple[str, str], ...] = ()
    by_choice: bool = False  # a part for every reported table, as in an ablation, and not for every run
    acc_name: str = "top-1"

    def targets(self) -> Iterator[Target]:
        """The reported rows, in their order."""
        own = [row for row in reported_rows() if any(each.table == row.table for each in self.rows)]
        for row in own:
            rows = next((each for each in self.rows if each.takes(row)), None)
            if rows is not None:
                yield _target(rows, row, own)

    def remeasured(self, run: str | None = None) -> list[Reported]:
        """What others measured, for context; with ``run`` of the architectures that this one measures."""
        alike = {target.reported.architecture for target in self.targets() if target.run == run}
        return [
            row
            for table, training in self.context
            for row in reported_tables()[table]
            if training in row.training and row.kind == "remeasured" and (run is None or row.architecture in alike)
        ]


def published_gflops(architecture: str, image_size: str, r: int, schedule: str) -> Printed | None:
    """What the authors print for as many tokens of the same architecture in any table; None if nothing is at hand."""
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
    """Speed of training over that of the unreduced model, which a row says with its hardware."""
    found = re.search(r"training speed (\d+(?:\.\d+)?)x", row.hardware)
    return None if found is None else float(found[1])


def _speedup(row: Reported, table: list[Reported]) -> float | None:
    """Over the unreduced model of the same architecture, in the same reported table or else in another of this one."""
    alike = [
        other
        for other in table
        if other.is_baseline and (other.architecture, other.image_size) == (row.architecture, row.image_size)
    ]
    for base in sorted(alike, key=lambda other: other.table != row.table):
        if row.im_s is not None and base.im_s is not None:
            return row.im_s / base.im_s
    return None
