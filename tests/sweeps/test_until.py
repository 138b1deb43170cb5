"""Races in real sweeps of the embedded model: cells stop, and what is counted is what all images would have counted."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from digits_runs import DIGITS

from tomebench.compare.lines import comparisons
from tomebench.compare.questions import answers, parse_match
from tomebench.compare.read import read_runs
from tomebench.compare.recommend import goal_of, recommend
from tomebench.datasets.images import in_random_order, open_dataset
from tomebench.errors import ConfigError, Interrupted, RunError
from tomebench.report.compared import section
from tomebench.report.headline import answer
from tomebench.runs.codes import BREAKS, KEEPS, NOT_NEEDED, PARTIAL_EVAL
from tomebench.runs.goal import Goal
from tomebench.runs.race_facts import half
from tomebench.runs.row import Row
from tomebench.runs.rows import build_rows
from tomebench.runs.store import Store
from tomebench.sweeps import run
from tomebench.sweeps.config_files import load_config
from tomebench.sweeps.events import Finished

N = 160
SETTINGS: dict[str, Any] = {**DIGITS, "r": "0,12,24", "limit": N, "method": "tome,random-merge", "max_drop": 10.0}


def sweep(out: Path, until: str | None, should_stop: Callable[[], bool] = lambda: False, **more: Any) -> list[Row]:
    config = load_config([], {**SETTINGS, "until": until, "out": out, **more})
    *_, last = run.run_sweep(config, out, should_stop)
    assert isinstance(last, Finished)
    return list(last.rows)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All cells on all images, in the random order."""
    out = tmp_path_factory.mktemp("until") / "all"
    sweep(out, "all")
    return out


@pytest.fixture(scope="module")
def decided(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("until") / "decided"
    sweep(out, "decided")
    return out


@pytest.fixture(scope="module")
def recommended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("until") / "recommended"
    sweep(out, "recommended")
    return out


def rows_of(out: Path) -> dict[tuple[str, int], Row]:
    with Store.read(out) as store:
        return {(row.method, row.r): row for row in build_rows(store)}


def counted(out: Path) -> dict[tuple[str, int], dict[str, Any]]:
    """Everything about a run's rows that no clock has measured."""
    timed = ("testbed", "img_per_s_accuracy", "input_share")
    return {key: {n: v for n, v in asdict(row).items() if n not in timed} for key, row in rows_of(out).items()}


def test_the_order_is_random_and_the_same_for_a_seed():
    images = open_dataset("digits")
    first, again, other = (in_random_order(images, seed) for seed in (0, 0, 1))
    assert first.info.digest == again.info.digest != other.info.digest
    assert sorted(first.info.labels) == sorted(images.info.labels)
    assert (first.info.labels[:100] != images.info.labels[:100]).any()
    assert len({*first.info.labels[:60].tolist()}) == 10  # the listed order begins with one class
    assert first.open(3).tobytes() == again.open(3).tobytes()


def test_cells_stop_where_all_images_agree(whole, decided):
    every, stopped = rows_of(whole), rows_of(decided)
    codes = {key: {KEEPS, BREAKS, NOT_NEEDED} & {*row.warnings} for key, row in stopped.items()}
    assert codes["random-merge", 24] == {BREAKS}
    assert stopped["random-merge", 24].n_seen < every["random-merge", 24].n_seen / 2
    assert stopped["tome", 0].n_seen == max(row.n_seen for row in stopped.values())
    assert not any(PARTIAL_EVAL in row.warnings for row in stopped.values())
    shown = Goal(10.0).shown(N, 1 - 0.05 / 4)
    for key, row in stopped.items():
        if key[1] and codes[key]:
            assert shown(every[key].top1_lost, every[key].top1_gained) is (codes[key] == {KEEPS})
            assert row.delta_top1_lo <= row.delta_top1 <= row.delta_top1_hi


def test_what_was_counted_is_what_all_images_count(whole, decided, recommended):
    with Store.read(whole) as store:
        every, batch = store.top1(), store.cells()[0][0].batch_size
    for out in (decided, recommended):
        with Store.read(out) as store:
            for key, found in store.top1().items():
                assert all(np.array_equal(top1, every[key][index]) for index, top1 in found.items())
    assert batch == 16


def test_one_row_is_chosen_on_one_half_and_estimated_on_the_other(whole, recommended):
    (measured, _), (every, _) = read_runs([recommended]), read_runs([whole])
    goal = Goal(10.0)
    found, there = recommend(measured, goal), recommend(every, goal)
    assert found.chosen is not None
    assert found.chosen.name == there.chosen.name
    assert found.chosen.estimate == there.chosen.estimate
    assert found.chosen.estimate.n == N - half(N)
    for each in measured:
        behind = each.seen is not None and bool((each.seen >= half(N) + 16).any())
        assert behind == (each.row.r == 0 or each is found.chosen.measured)
    passes = sum(each.row.n_seen or 0 for each in measured)
    assert passes < 0.85 * sum(each.row.n_seen for each in every)


def test_rows_that_were_stopped_compare_each_on_its_own_images(decided):
    measured, _ = read_runs([decided])
    (comparison,) = comparisons(measured)
    views = answers([comparison], [parse_match("drop=10")], pareto=True, tests=True)
    drops = [entry.point.drop for _, view in views for entry in view.entries if entry.point and entry.point.drop]
    assert {drop.n for drop in drops} == {row.n_seen for row in rows_of(decided).values() if row.r}
    assert all(drop.anytime is not None for drop in drops)
    most = max(row.n_seen for row in rows_of(decided).values())
    assert any(f"up to {most} images" in section(comparison, view).title for _, view in views)


def test_a_race_answers_its_own_question_only(recommended):
    measured, _ = read_runs([recommended])
    for goal in (Goal(5.0), Goal(min_speedup=1.1), Goal(min_agreement=90.0)):
        assert recommend(measured, goal).why == "another question"
    assert goal_of(measured) == Goal(10.0)


def test_a_row_is_recommended_by_no_other_way_than_its_race(recommended):
    found = answer(list(rows_of(recommended).values()), 10.0)
    assert found.choice == "stopped"
    assert found.row is None
    assert "tomebench recommend says which to take" in found.text


def test_a_race_that_is_stopped_takes_the_same_steps(decided, recommended, tmp_path):
    stops = 0
    for until, unstopped in (("decided", decided), ("recommended", recommended)):
        out, asked = tmp_path / until, 0

        def should_stop() -> bool:
            nonlocal asked
            asked += 1
            return asked % 14 == 0

        for _ in range(20):
            try:
                sweep(out, until, should_stop)
                break
            except Interrupted:
                stops += 1
                with Store.read(out) as store:
                    rows = build_rows(store)
                assert all(PARTIAL_EVAL in row.warnings for row in rows)
        assert counted(out) == counted(unstopped)
    assert stops >= 3


def test_a_race_goes_on_to_all_images(whole, tmp_path):
    out = tmp_path / "run"
    sweep(out, "recommended")
    sweep(out, "all")
    assert counted(out) == counted(whole)


def test_a_wider_limit_goes_on_in_the_same_folder(decided, tmp_path):
    out = tmp_path / "run"
    sweep(out, "decided", max_drop=30.0)
    before = {key: row.n_seen for key, row in rows_of(out).items()}
    sweep(out, "decided")
    after = {key: row.n_seen for key, row in rows_of(out).items()}
    assert all(after[key] >= before[key] for key in before)
    assert {KEEPS, BREAKS} & {code for row in rows_of(out).values() for code in row.warnings}


def test_the_listed_order_and_a_random_one_are_two_runs(tmp_path):
    sweep(tmp_path / "run", None, limit=32)
    with pytest.raises(RunError, match="until"):
        sweep(tmp_path / "run", "decided", limit=32)


def test_without_labels_agreement_is_raced(tmp_path):
    rows = sweep(tmp_path / "run", "recommended", labels=False, max_drop=20.0)
    measured, _ = read_runs([tmp_path / "run"])
    found = recommend(measured, Goal(min_agreement=80.0))
    assert found.chosen is not None
    assert found == recommend(measured, Goal(20.0))  # without labels a loss is one of agreement
    assert found.chosen.estimate.gained == 0
    assert all(row.top1 is None for row in rows)


def test_an_ablation_compares_all_images():
    with pytest.raises(ConfigError, match="drop --until decided"):
        load_config([], {"model": "m", "data": "digits", "ablate": True, "until": "decided"})


def test_nothing_is_raced_without_images():
    with pytest.raises(ConfigError, match="until stops the counting of images"):
        load_config([], {"model": "m", "until": "decided"})
    with pytest.raises(ConfigError, match="--until 'soon': use decided, recommended or all"):
        load_config([], {"model": "m", "data": "digits", "until": "soon"})
    with pytest.raises(ConfigError, match="max-drop limits a loss by labels"):
        load_config([], {"model": "m", "max_drop": 1.0, "min_agreement": 99.0})


@pytest.mark.parametrize(
    ("settings", "goal"),
    [
        ({}, Goal(1.0)),
        ({"max_drop": 0.5}, Goal(0.5)),
        ({"min_agreement": 99.0}, Goal(min_agreement=99.0)),
        ({"labels": False, "max_drop": 2.0}, Goal(min_agreement=98.0)),
        ({"min_speedup": 1.5}, Goal(min_speedup=1.5)),
        ({"max_drop": 0.5, "max_latency_ms": 8.0}, Goal(0.5, max_latency_ms=8.0)),
    ],
)
def test_the_question_of_the_settings(settings, goal):
    assert load_config([], {"model": "m", "data": "digits", **settings}).goal == goal


def test_processes_that_share_a_race_take_the_same_steps(recommended, tmp_path):
    out = tmp_path / "shared"
    names = {"device": "cpu", **SETTINGS}
    flags = [text for name, value in names.items() for text in (f"--{name.replace('_', '-')}", str(value))]
    command = [sys.executable, "-m", "tomebench", "sweep", *flags, "--until", "recommended", "--out", str(out)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command += ["--threads", "1", "--workers", "0", "--quiet", "--nproc-per-node", "2"]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 0, ended.stderr
    alone = tmp_path / "alone"
    sweep(alone, "recommended", threads=1)
    assert counted(out) == counted(alone)
