"""The paper's tables: no reported row is forgotten, and every one that can be measured has its run and its cell."""

from __future__ import annotations

import pytest

from tomebench.errors import SpecError
from tomebench.paper.comparison import compare
from tomebench.paper.reported import reported_rows
from tomebench.paper.runs import found, found_audio, run_files, table_runs
from tomebench.paper.tables import TABLES, WEIGHTS, find_table
from tomebench.paper.targets import CHOICES, PROP_ATTN, published_gflops
from tomebench.reduction.methods.flags import OPTIONS, choices
from tomebench.sweeps.config_files import load_config

UNMEASURED = {"video", "audio"}


def test_every_reported_row_is_in_a_table() -> None:
    told = {target.reported for table in TABLES.values() for target in table.targets()}
    context = {row for table in TABLES.values() for row in table.remeasured()}
    assert told | context == {*reported_rows()}
    assert {row.kind for row in told} == {"reported"}
    assert {row.kind for row in context} == {"remeasured"}


@pytest.mark.parametrize("name", TABLES)
def test_runs_of_a_table_are_its_configurations(name: str) -> None:
    runs = run_files(name)
    assert {target.run for target in TABLES[name].targets()} - {""} <= {*runs} | ({"b"} if name == "audio" else set())
    assert bool(runs) == (name not in UNMEASURED)
    for target in TABLES[name].targets():
        if not target.run:
            assert target.why_not, "a row that nothing measures says why"


def test_published_files_are_those_of_runs() -> None:
    runs = {f"{table}/{run}" for table in TABLES for run in run_files(table)}
    assert {*WEIGHTS} <= runs
    for table in ("mae_trained", "deit_trained"):
        for run, path in run_files(table).items():
            trained = load_config([path], {}).prop_attn and not run.endswith("_without")
            assert (f"{table}/{run}" in WEIGHTS) == trained


def test_choices_are_options_and_their_values() -> None:
    for option, value in CHOICES.values():
        assert value in (("on", "off") if option == PROP_ATTN else choices(option))
    assert {option for option, _ in CHOICES.values()} == {*OPTIONS, PROP_ATTN} - {"heads"}  # 1c was not found


@pytest.mark.parametrize(
    ("table", "run", "settings"),
    [
        ("augreg", "ti_224", {"r": "0..16", "preprocessing": "tome", "prop_attn": True}),
        ("augreg", "l_224", {"r": "0..8", "preprocessing": "tome"}),
        ("augreg", "l_384", {"r": "0,5,10,15,20,23", "model": "vit_large_patch16_384.augreg_in21k_ft_in1k"}),
        ("swag", "b_384", {"r": "0..45:5", "preprocessing": "timm", "model": "swag_vit_b_16"}),
        ("swag", "h_518", {"r": "0..40:5", "preprocessing": "timm"}),
        ("mae", "b", {"r": "0..16", "prop_attn": False}),
        ("mae", "l", {"r": "0..8", "prop_attn": False}),
        ("mae_trained", "h", {"r": "0..7", "prop_attn": True, "model": "mae_vit_h_14"}),
        ("table1", "mae_l", {"r": "8", "ablate": True, "prop_attn": False}),
        ("schedules", "mae_l_decreasing", {"r": "0,8", "schedule": "decreasing", "prop_attn": True}),
        ("training", "deit_s", {"mode": "train", "r": "0,13", "data": None}),
    ],
)
def test_grids_and_settings_of_the_paper(table: str, run: str, settings: dict) -> None:
    config = load_config([run_files(table)[run]], {})
    assert {name: getattr(config, name) for name in settings} == settings


@pytest.mark.parametrize(
    ("architecture", "size", "r", "schedule", "published"),
    [
        ("ViT-Ti/16", "224", 8, "constant", "0.9"),
        ("ViT-Ti/16", "224", 12, "constant", "0.8"),
        ("ViT-S/16", "224", 0, "decreasing", "4.6"),
        ("ViT-S/16", "224", 13, "constant", "2.7"),
        ("ViT-L/16", "224", 8, "decreasing", "22.3"),
        ("ViT-H/14", "224", 7, "constant", "92.9"),
        ("ViT-B/16", "spectrogram", 40, "constant", "24.7"),
        ("ViT-B/16", "224", 13, "constant", None),  # others measured one, which is no target
        ("ViT-S/16", "224", 13, "decreasing", None),
    ],
)
def test_costs_are_found_wherever_the_authors_print_them(architecture, size, r, schedule, published) -> None:
    found = published_gflops(architecture, size, r, schedule)
    assert (None if found is None else str(found)) == published


def test_speed_ups_are_over_the_models_own_baseline() -> None:
    speedups = {
        (target.reported.model, target.reported.image_size, target.reported.r): target.speedup
        for target in TABLES["augreg"].targets()
    }
    assert speedups["ViT-L/16", "384", 23] == 2.0
    assert speedups["ViT-S/16", "224", 13] == pytest.approx(1564 / 953)
    training = {target.reported.r: target.speedup for target in TABLES["training"].targets() if target.run}
    assert training == {0: 1.0, 13: 1.5}
    supervised = [t for t in TABLES["table1"].targets() if t.run == "augreg_l_on"]
    assert [t.speedup for t in supervised] == [pytest.approx(180.8 / 93.3)]  # over that of the table beside it


@pytest.mark.parametrize(
    "name",
    [
        name if name in ("matching", "audio", "schedules", "digits") else pytest.param(name, marks=pytest.mark.slow)
        for name in TABLES
        if name != "video"
    ],
)
def test_every_row_has_a_cell_whose_costs_are_as_printed(name: str) -> None:
    table = TABLES[name]
    facts = [found_audio("b")] if name == "audio" else []
    facts += [found(run) for run in table_runs(table, None, {}, None, speed_only=False)]
    lines = compare(table, facts, static=True)
    measurable = [target for target in table.targets() if target.run]
    assert [line for line in lines if line.differs] == []
    assert len([line for line in lines if line.target is not None and line.cost is not None]) == len(measurable)
    for line in lines:
        assert (line.cost is None) == (line.target is not None and not line.target.run)
        if line.cost is not None:
            assert "tokens" in {finding.quantity for finding in line.findings}
            assert (line.gflops is not None) == ("GMACs" in {finding.quantity for finding in line.findings})
    if name == "table1":  # other cells of the same r are told apart by what they choose
        chosen = {(line.part, line.label): line.cost.changed for line in lines if line.target is not None}
        assert chosen["(a) Feature", "Q"] == {"metric": "q", PROP_ATTN: "off"}
        assert chosen["(b) Distance", "cosine (default)"] == {PROP_ATTN: "off"}
        assert chosen["(f) Proportional attention", "on (default for supervised), AugReg"] == {PROP_ATTN: "on"}
        assert chosen["Matching algorithm", "greedy matching"] == {"matching": "greedy", PROP_ATTN: "off"}


@pytest.mark.parametrize(
    ("flags", "what"),
    [
        ({"schedule": "decreasing"}, "ViT-S/16, 224 px, decreasing; reported for ViT-S/16, 224 px, constant"),
        ({"schedule": "inflect:-0.05"}, "ViT-S/16, 224 px, inflect:-0.05; reported for ViT-S/16, 224 px, constant"),
        ({"img_size": 384}, "ViT-S/16, 384 px, constant; reported for ViT-S/16, 224 px, constant"),
        ({"model": "vit_b_16"}, "ViT-B/16, 224 px, constant; reported for ViT-S/16, 224 px, constant"),
        ({"model": "digits_vit"}, "digits_vit, 56 px, constant; reported for ViT-S/16, 224 px, constant"),
    ],
)
def test_another_model_size_or_schedule_is_never_as_reported(flags: dict, what: str) -> None:
    table = TABLES["augreg"]
    runs = table_runs(table, "s_224", {**flags, "r": "13"}, None, speed_only=False)
    (line,) = [line for line in compare(table, [found(runs[0])], static=True, only="s_224") if line.r == 13]
    assert line.differs
    assert [each.detail for each in line.findings if each.quantity == "model"] == [what]


def test_a_row_belongs_to_the_first_run_that_takes_it() -> None:
    """The paper's Table 1f has rows of two models, of which one needs a run of its own for each value."""
    runs = {
        (target.reported.training.partition(",")[0], target.reported.method.partition(" (")[0]): target.run
        for target in TABLES["table1"].targets()
        if target.reported.table == "table1f_prop_attn"
    }
    assert runs == {
        ("official MAE fine-tuned checkpoint", "prop_attn=off"): "mae_l",
        ("official MAE fine-tuned checkpoint", "prop_attn=on"): "mae_l",
        ("AugReg", "prop_attn=off"): "augreg_l_off",
        ("AugReg", "prop_attn=on"): "augreg_l_on",
    }


def test_digits_of_printed_numbers() -> None:
    """As the authors print them: 79.8 beside 79.36 in one table, 85.30 in another."""
    printed = {
        (table, target.reported.model, target.reported.r): str(target.acc)
        for table in ("deit_trained", "swag", "pruning")
        for target in TABLES[table].targets()
        if target.reported.table != "deit_trained_sweep"
    }
    assert printed["deit_trained", "DeiT-S/16", 0] == printed["pruning", "DeiT-S", 0] == "79.8"
    assert printed["deit_trained", "DeiT-S/16", 13] == "79.36"
    assert printed["swag", "ViT-B/16", 0] == "85.30"


def test_unknown_tables_and_runs_name_the_nearest() -> None:
    assert find_table("augreg/b_224") == (TABLES["augreg"], "b_224")
    with pytest.raises(SpecError, match="no table 'augreq'; did you mean augreg"):
        find_table("augreq")
    with pytest.raises(SpecError, match="table swag has no run 'b_224'; it has b_384, h_518, l_512"):
        run_files("swag", "b_224")
    with pytest.raises(SpecError, match="table video has no run 'l'; nothing in it is measured here"):
        run_files("video", "l")
