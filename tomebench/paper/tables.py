"""The paper's tables: reported rows of each, the runs that measure them, URLs of weights, titles of their parts."""

from __future__ import annotations

import difflib
from collections.abc import Mapping

from tomebench.errors import SpecError
from tomebench.paper.targets import PaperTable, Rows

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
"""URLs of weights that the model's name does not determine: those trained with ToMe, by run."""


_UNPUBLISHED = "the authors' own fine-tuning without ToMe, which they do not publish"
_OWN_DEIT = "DeiT trained by the authors of ToMe themselves, which they do not publish; here are DeiT's own weights"
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
"""Titles of the parts of an ablation, by reported table."""

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
                Rows("readme_deit_trained", "s_without", "DeiT-S/16", r=0, why_not=_OWN_DEIT),
                Rows("readme_deit_trained", "s", "DeiT-S/16"),
                Rows("readme_deit_trained", "ti_without", "DeiT-Ti/16", r=0, why_not=_OWN_DEIT),
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
    """Find a table by name, or by ``table/run`` a table and the name of one of its runs.

    Raises:
        SpecError: there is none of that name; the message lists all names.
    """
    table, _, run = name.partition("/")
    if table not in TABLES:
        near = difflib.get_close_matches(table, TABLES, n=1)
        hint = f"did you mean {near[0]}?" if near else f"use {', '.join(TABLES)}"
        raise SpecError(f"no table {table[:40]!r}; {hint} (see: tomebench reproduce --list)")
    return TABLES[table], run or None
