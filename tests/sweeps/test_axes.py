"""Lists of methods and schedules: cells of one run with one baseline, to which a later sweep adds others."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from even_clock import EvenClock
from growing_runs import config, sweep
from hypothesis import given
from hypothesis import strategies as st

from tomebench.errors import ConfigError, InputError, SpecError
from tomebench.gate.snapshot import run_snapshot
from tomebench.gate.static_tier import static_snapshot
from tomebench.measure import speed
from tomebench.reduction.methods.kmeans import Kmeans
from tomebench.reduction.registry import METHODS, method_class
from tomebench.reduction.schedule import lists_every_r, parse_schedule, split_schedules
from tomebench.runs.store import Store
from tomebench.sweeps import passes, timing
from tomebench.sweeps.cells import ResolvedCell, resolve_sweep
from tomebench.sweeps.config_files import load_config


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "clock_for", lambda device: EvenClock())
    monkeypatch.setattr(speed, "WINDOW", 1)


SCHEDULES = st.one_of(
    st.sampled_from(["constant", "decreasing", "increasing"]),
    st.sampled_from([-1, -0.5, 0, 0.25, 1]).map("inflect:{}".format),
    st.lists(st.integers(0, 30), min_size=1, max_size=6).map(lambda r: f"list:{','.join(map(str, r))}"),
)


@given(st.lists(SCHEDULES, min_size=1, max_size=5), st.sampled_from([",", ", "]))
def test_numbers_belong_to_the_list_before_them(schedules: list[str], comma: str) -> None:
    found = split_schedules(comma.join(schedules))
    assert found == tuple(dict.fromkeys(schedules))
    assert [parse_schedule(each) for each in found] == [parse_schedule(each) for each in dict.fromkeys(schedules)]
    assert lists_every_r(",".join(schedules)) == all(parse_schedule(each).layers is not None for each in schedules)


@pytest.mark.parametrize(
    "text", ["constant,8", "list:8,x", "constant,", "8,constant", "constant,,decreasing", "inflect"]
)
def test_what_is_no_list_of_schedules_is_refused(text: str) -> None:
    with pytest.raises(SpecError, match="cannot be read; use constant, decreasing"):
        load_config([], {"model": "m", "schedule": text})


def names(**settings: object) -> list[str]:
    return [cell.name for cell in resolve_sweep(config(**settings))]


def test_cells_are_schedules_times_r_times_methods_times_their_options() -> None:
    shapes = "constant,decreasing,list:1,2,3,4,5,6"
    assert names(r="4,8", method="tome,random-prune", schedule=shapes, metric="k,q") == [
        "r=0 tome constant",
        *(
            f"r={r} {rest}"
            for r, schedule in (
                (4, "constant"), (4, "decreasing"), (4, "list:1,2,3,4,5,6"), (8, "constant"), (8, "decreasing")
            )
            for rest in (f"tome {schedule}", f"tome {schedule} metric=q", f"random-prune {schedule}")
        ),
    ]  # fmt: skip
    assert names(r="4", method="kmeans,greedy", option="kmeans.iterations=2,3") == [
        "r=0 kmeans",
        "r=4 kmeans iterations=2",
        "r=4 kmeans iterations=3",
        "r=4 greedy",
    ]
    assert names(r="4", method="random-merge,random-prune", option="seed=1 random-prune.seed=2,3") == [
        "r=0 random-merge",
        "r=4 random-merge seed=1",
        "r=4 random-prune seed=2",
        "r=4 random-prune seed=3",
    ]
    assert names(r="4") == ["r=0", "r=4"]


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (
            {"method": "random-prune,attention-prune", "metric": "q"},
            "none of the methods random-prune,attention-prune has",
        ),
        ({"method": "random-prune", "metric": "q"}, "method random-prune has no metric; leave metric out"),
        (
            {"method": "kmeans,tome", "option": "gone=2"},
            "none of the methods kmeans,tome has such an option; they have",
        ),
        ({"method": "tome", "option": "kmeans.iterations=2"}, "kmeans is not among the methods asked for"),
        ({"method": "tome,random-prune", "option": "random-prune.metric=q"}, "method random-prune has no such option"),
        ({"method": "tome,kmean"}, "unknown method 'kmean'; did you mean 'kmeans'?"),
        ({"method": "tome,"}, "must not be empty"),
        ({"method": "tome,kmeans", "ablate": True}, "ablate changes the options of one method; give one --method"),
        ({"schedule": "constant,list:1,2,3,4,5,6", "cells": "1/2"}, "schedule list:... has one; drop --cells"),
    ],
)
def test_what_does_not_go_together_is_refused(settings: dict[str, object], says: str) -> None:
    with pytest.raises(InputError) as error:
        config(**settings)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_lists_of_yaml_and_python_are_those_of_commas(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("model: m\nmethod: [tome, kmeans]\nschedule: [decreasing, 'list:1,2', constant]\n")
    assert load_config([file], {}).schedules == ("decreasing", "list:1,2", "constant")
    assert load_config([], {"model": "m", "method": ("tome", "kmeans")}).methods == ("tome", "kmeans")
    with pytest.raises(ConfigError, match="schedule list:"):
        load_config([], {"model": "m", "r": "8", "schedule": ["list:1,2", "list:2,1"]})


def variants(folder: Path) -> list[set[tuple[str, str, int]]]:
    """Method, schedule and r of the cells that every round timed."""
    with Store.read(folder) as store:
        found = {cell.key: (cell.method, cell.schedule, cell.r) for cell, _ in store.cells()}
        return [{found[burst.variant] for burst in one.bursts if burst.variant in found} for one in store.rounds()]


def test_methods_and_schedules_share_rounds_and_join_a_run(tmp_path: Path) -> None:
    """The baseline stays that of the sweep that began the run."""
    before = sweep(tmp_path / "run", r="0,4", method="kmeans")
    with Store.read(tmp_path / "run") as store:
        keys = [cell.key for cell, _ in store.cells()]
    rows = sweep(tmp_path / "run", r="0,4", method="tome,random-prune")
    first, again = [("kmeans", "constant", 0)], ("kmeans", "constant", 4)
    new = [("tome", "constant", 4), ("random-prune", "constant", 4)]
    assert variants(tmp_path / "run") == [{*first, again}] * 6 + [{*first, *new}] * 6
    assert [(row.method, row.r) for row in rows] == [("kmeans", 0), ("kmeans", 4), ("tome", 4), ("random-prune", 4)]
    assert [row.speedup_vs_r0 is not None for row in rows] == [True] * 4
    assert [row.protocol for row in rows[:2]] == [row.protocol for row in before]

    rows = sweep(tmp_path / "run", r="0,4", method="kmeans,tome,random-prune", schedule="constant,decreasing")
    assert [row.schedule for row in rows] == ["constant"] * 4 + ["decreasing"] * 3
    with Store.read(tmp_path / "run") as store:
        assert (
            store.config == config(r="0,4", method="kmeans,tome,random-prune", schedule="constant,decreasing").stored()
        )
        assert [cell.key for cell, _ in store.cells()][:2] == keys
        snapshot = run_snapshot(store)
    told = ["r=0", *(f"r=4{m}{s}" for s in ("", " decreasing") for m in ("", " tome", " random-prune"))]
    assert [cell.name for cell in snapshot.cells] == told
    assert [cell.name for cell in static_snapshot(config(**snapshot.settings)).cells] == told


def test_a_failed_cell_is_named_with_its_method(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = passes.reduced_vit

    def broken(backbone, settings, cell: ResolvedCell, *kind):  # type: ignore[no-untyped-def]
        model = real(backbone, settings, cell, *kind)
        if cell.cell.method == "kmeans" and cell.cell.r:
            model.forward = lambda images: (_ for _ in ()).throw(RuntimeError("no luck"))
        return model

    monkeypatch.setattr(passes, "reduced_vit", broken)
    from tomebench.sweeps.events import Note
    from tomebench.sweeps.run import run_sweep

    said = [
        each.text
        for each in run_sweep(config(r="0,4", method="tome,kmeans"), tmp_path / "run", lambda: False)
        if isinstance(each, Note)
    ]
    assert "r=4 kmeans: no luck; the other cells go on" in said


def test_a_cell_says_whether_its_attention_counts_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is asked for: a method may leave sizes out."""
    monkeypatch.setattr(Kmeans, "counts_sizes", property(lambda self: False))
    cells = [cell.cell for cell in resolve_sweep(config(r="0,4", method="tome,kmeans"))]
    assert [(cell.method, cell.r, cell.prop_attn) for cell in cells] == [
        ("tome", 0, True), ("tome", 4, True), ("kmeans", 4, False)
    ]  # fmt: skip


def test_every_method_can_be_one_of_many() -> None:
    untrained = [name for name in METHODS if not method_class(name).trained]
    cells = [cell.cell for cell in resolve_sweep(config(r="0,4,8", method=",".join(untrained)))]
    assert len({cell.key for cell in cells}) == len(cells) == 1 + 2 * len(untrained)
    alone = [dataclasses.replace(each) for each in cells if each.method == cells[0].method]
    assert alone == [cell.cell for cell in resolve_sweep(config(r="0,4,8", method=cells[0].method))]
