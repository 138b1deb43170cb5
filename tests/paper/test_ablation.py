"""The sub-tables of an ablation: every choice against the default, on the same images."""

from __future__ import annotations

from pathlib import Path

import pytest
from runs.store_samples import CONFIG, TESTBED, make_cell, make_chunks, make_images, make_resolved

from tomebench.paper.ablation import PROP_ATTN, SUB_TABLES, sub_tables
from tomebench.reduction.methods.flags import choices
from tomebench.report.ablation import sub_table
from tomebench.runs.store import Store
from tomebench.sweeps.cells import resolve_sweep
from tomebench.sweeps.config_files import load_config


def test_differences_by_hand(tmp_path: Path) -> None:
    """Right at the default: all but 0; with queries: all but 1 and 2; without proportional attention: all."""
    base, default = make_cell(0), make_cell(8)
    queries = make_cell(8, options=(("metric", "q"),))
    off = make_cell(8, prop_attn=False)
    with Store.open(tmp_path / "run", CONFIG) as store:
        store.put_cells([(cell, make_resolved(cell.r)) for cell in (base, default, queries, off)])
        store.begin_session(TESTBED)
        images = make_images(10)
        store.put_images(images)
        wrong = {base.key: set(), default.key: {0}, queries.key: {1, 2}, off.key: set()}
        for chunk in make_chunks(images, wrong):
            store.add_chunk(chunk)
        tables = {table.option: table for table in sub_tables(store)}
    assert [(e.value, e.default, e.row.top1) for e in tables["metric"].entries] == [
        ("k", True, 90.0),
        ("q", False, 80.0),
    ]
    _, found = tables["metric"].entries
    assert found.delta is not None
    assert found.delta.delta == pytest.approx(-0.1)  # one image won, two lost
    assert found.delta.p == pytest.approx(1.0)
    assert [(e.value, e.default, e.row.top1) for e in tables["prop_attn"].entries] == [
        ("off", False, 100.0),
        ("on", True, 90.0),
    ]
    assert [e.value for e in tables["distance"].entries] == ["cosine"]  # the others were not measured

    headers, cells = sub_table("metric", [(e.value, e.default, e.row, e.delta) for e in tables["metric"].entries])
    assert headers == ["metric", "top-1", "Δ vs default [95%]", "p"]
    assert cells[0] == ["k *", "90.00", "", ""]
    assert cells[1][:2] == ["q", "80.00"]
    assert cells[1][2].startswith("-10.00 [-")


def test_an_ablation_has_every_line_of_every_sub_table() -> None:
    planned = resolve_sweep(load_config([], {"model": "test_vit", "r": "4", "ablate": True, "device": "cpu"}))
    names = {cell.name for cell in planned}
    lines = sum(len(values) - 1 for _, _, values in SUB_TABLES)
    assert len(planned) == 2 + lines  # r = 0 and the default
    of_rotary = {"k_rot"}
    assert all({*values} == {*choices(option)} - of_rotary for _, option, values in SUB_TABLES if option != PROP_ATTN)
    assert {"r=0", "r=4", "r=4 metric=q", "r=4 matching=kmeans-5"} <= names
    assert len({cell.cell.key for cell in planned}) == len(planned)


def test_options_leave_the_cells_of_earlier_runs_what_they_were() -> None:
    """The keys of default cells are those of before there were options, so that runs go on and baselines hold."""
    planned = resolve_sweep(load_config([], {"model": "test_vit", "r": "4", "metric": "k,q", "device": "cpu"}))
    assert [cell.cell.written_options for cell in planned] == [
        (("prop_attn", True),),
        (("prop_attn", True),),
        (("metric", "q"), ("prop_attn", True)),
    ]
    assert [cell.cell.r for cell in planned] == [0, 4, 4]
