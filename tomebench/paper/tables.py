"""The paper's tables: which reported rows each one has, and which cell of which configuration measures a row.

A table is a folder of ``configs/paper``; every file there is a run. A reported row belongs to a run by the first
:class:`Rows` that takes it, and within the run to the cell of its r and choice.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tomebench.errors import SpecError
from tomebench.paper.reported import Reported, reported_rows, reported_tables
from tomebench.paper.verdicts import Printed

PROP_ATTN = "prop_attn"
"""Name of the choice that is none of :data:`tomebench.reduction.options.OPTIONS`; its values are on and off."""

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

_TOME = "https://dl.fbaipublicfiles.com/tome"
WEIGHTS: Mapping[str, str] = {
    "mae_trained/b": f"{_TOME}/f367082919_vit_B_16_r16.pth",
    "mae_trained/l": f"{_TOME}/f366894475_vit_L_16_r8.pth",
    "mae_trained/h": f"{_TOME}/f366895717_vit_H_14_r7.pth",
    "deit_trained/s": f"{_TOME}/f367470145_deit_S_r13.pth",
    "deit_trained/ti": f"{_TOME}/f367470145_deit_T_r13.pth",
    "schedules/mae_l_constant": f"{_TOME}/f366894475_vit_L_16_r8.pth",
    "schedules/mae_l_decreasing": f"{_TOME}/f366894475_vit_L_16_r8.pth",
    "schedules/mae_h_constant": f"{_TOME}/f366895717_vit_H_14_r7.pth",
    "schedules/mae_h_decreasing": f"{_TOME}/f366895717_vit_H_14_r7.pth",
    "pruning/deit_s_trained": f"{_TOME}/f367470145_deit_S_r13.pth",
}
"""Where the weights of runs are published whose model does not say so: those that were trained with ToMe."""


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


_UNPUBLISHED = "the authors' own fine-tuning without ToMe, which they do not publish"
_WHICH_FILE = "it is not known whether the published file, trained at a constant r, gave this"
_ANOTHER_R = "trained with ToMe at this r; the authors publish the file of another one"
_AUGREG, _SWAG, _MAE = "readme_augreg_off_the_shelf", "readme_swag_off_the_shelf", "readme_mae_sanity_check"
_TABLE1 = (
    "table1_baseline", "table1a_feature", "table1b_distance", "table1d_combine", "table1e_partition",
    "table1f_prop_attn",
)  # fmt: skip
_ALGORITHMS = "table1_matching_algorithm"
_SOTA, _PRUNING = "sota_comparison_mae_trained", "pruning_comparison_deit_s"

PARTS: Mapping[str, str] = {
    "table1_baseline": "Without merging",
    "table1a_feature": "(a) Feature",
    "table1b_distance": "(b) Distance",
    "table1d_combine": "(d) Combining",
    "table1e_partition": "(e) Partition",
    "table1f_prop_attn": "(f) Proportional attention",
    _ALGORITHMS: "Matching algorithm",
}
"""What the parts of an ablation are called."""

TABLES: Mapping[str, PaperTable] = {
    table.name: table
    for table in (
        PaperTable(
            "augreg",
            "AugReg models off the shelf",
            (
                Rows(_AUGREG, "s_224", "ViT-S/16"),
                Rows(_AUGREG, "b_224", "ViT-B/16"),
                Rows(_AUGREG, "l_224", "ViT-L/16", "224"),
                Rows(_AUGREG, "l_384", "ViT-L/16", "384"),
            ),
        ),
        PaperTable(
            "swag",
            "SWAG models off the shelf",
            (
                Rows(_SWAG, "b_384", "ViT-B/16"),
                Rows(_SWAG, "l_512", "ViT-L/16"),
                Rows(_SWAG, "h_518", "ViT-H/14"),
            ),
            (("third_party_expedit_swag", ""),),
        ),
        PaperTable(
            "mae",
            "MAE models off the shelf",
            (Rows(_MAE, "l"), Rows("table10a_mae_off_the_shelf", "l", why_not=_UNPUBLISHED)),
            (("third_party_issue11", "MAE"), ("third_party_toast", "MAE")),
        ),
        PaperTable(
            "mae_trained",
            "MAE models trained with ToMe",
            tuple(
                rows
                for run, model in (("b", "ViT-B/16"), ("l", "ViT-L/16"), ("h", "ViT-H/14"))
                for rows in (
                    Rows("readme_mae_trained", run, model, r=0, why_not=_UNPUBLISHED),
                    Rows("readme_mae_trained", run, model),
                )
            ),
        ),
        PaperTable(
            "deit_trained",
            "DeiT models trained with ToMe",
            (
                Rows("readme_deit_trained", "s_without", "DeiT-S/16", r=0),
                Rows("readme_deit_trained", "s", "DeiT-S/16"),
                Rows("readme_deit_trained", "ti_without", "DeiT-Ti/16", r=0),
                Rows("readme_deit_trained", "ti", "DeiT-Ti/16"),
                Rows("deit_trained_sweep", "s", "DeiT-S", r=13),
                Rows("deit_trained_sweep", "s", "DeiT-S", why_not=_ANOTHER_R),
                Rows("deit_trained_sweep", "ti", "DeiT-Ti", why_not=_ANOTHER_R),
            ),
            (("third_party_issue11", "DeiT"), ("third_party_toast", "DeiT")),
        ),
        PaperTable(
            "table1",
            "Ablations (Table 1)",
            (
                Rows("table1f_prop_attn", "augreg_l_off", training="AugReg", method="off"),
                Rows("table1f_prop_attn", "augreg_l_on", training="AugReg"),
                *(Rows(table, "mae_l") for table in (*_TABLE1, _ALGORITHMS)),
            ),
            by_choice=True,
        ),
        PaperTable(
            "matching",
            "Matching algorithms",
            (Rows("table1_baseline", "mae_l"), Rows(_ALGORITHMS, "mae_l")),
            by_choice=True,
        ),
        PaperTable(
            "schedules",
            "Constant and decreasing schedules",
            (
                *(
                    rows
                    for size, model in (("l", "ViT-L/16"), ("h", "ViT-H/14"))
                    for rows in (
                        Rows(_SOTA, f"mae_{size}_constant", model, r=0, why_not=_UNPUBLISHED),
                        Rows(_SOTA, f"mae_{size}_constant", model, schedule="constant"),
                        Rows(_SOTA, f"mae_{size}_decreasing", model, schedule="decreasing", why_not=_WHICH_FILE),
                    )
                ),
                Rows("notebook_benchmark", "augreg_b_constant", r=0),
                Rows("notebook_benchmark", "augreg_b_constant", schedule="constant"),
                Rows("notebook_benchmark", "augreg_b_decreasing", schedule="decreasing"),
            ),
        ),
        PaperTable(
            "pruning",
            "Comparison with pruning, DeiT-S",
            (
                Rows(_PRUNING, "deit_s", r=0),
                Rows(_PRUNING, method="DynamicViT", why_not="trained pruning, which is no method of this version"),
                Rows(_PRUNING, "deit_s_trained", "DeiT-S"),
                Rows(_PRUNING, "augreg_s", "ViT-S/16"),
            ),
            (("third_party_issue11", "DeiT"), ("third_party_toast", "DeiT")),
        ),
        PaperTable(
            "training",
            "Speed of training with ToMe",
            (
                Rows(_PRUNING, "deit_s", "DeiT-S", r=0, training_speed=True),
                Rows(_PRUNING, "deit_s", "DeiT-S", r=13, training_speed=True),
                Rows(
                    "video_training_time", why_not="hours of training a video model, which is no model of this version"
                ),
            ),
            acc_name="hours",
        ),
        PaperTable(
            "audio",
            "AudioMAE's ViT-B on AudioSet-2M",
            (Rows("audio_audioset2m", "b", why_not="AudioSet is no data set of this version"),),
            acc_name="mAP",
        ),
        PaperTable(
            "video",
            "Spatiotemporal MAE's ViT-L on Kinetics-400",
            (Rows("video_kinetics400", why_not="a video model, which is no model of this version"),),
        ),
        PaperTable("digits", "The miniature: the embedded model and images", (Rows("digits", "vit"),)),
    )
}
"""All tables by name."""


def find_table(name: str) -> tuple[PaperTable, str | None]:
    """A table, or ``table/run`` for one run of it.

    Raises:
        SpecError: there is none of that name; the message says what there is.
    """
    table, _, run = name.partition("/")
    if table not in TABLES:
        near = difflib.get_close_matches(table, TABLES, n=1)
        hint = f"did you mean {near[0]}?" if near else f"use {', '.join(TABLES)}"
        raise SpecError(f"no table {table[:40]!r}; {hint} (see: tomebench reproduce --list)")
    return TABLES[table], run or None
