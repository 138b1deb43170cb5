"""More to do is no other run: another r or column goes on in the folder, and measures what is missing only."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from even_clock import EvenClock
from growing_runs import IMAGES, answers, cells, config, counted, round_of, settings_of, sweep, timed
from noisy_images import write_data

from tomebench.errors import Interrupted, RunError
from tomebench.measure import speed
from tomebench.runs.rows import build_rows
from tomebench.runs.store import Store
from tomebench.sweeps import accuracy, resume, run, timing


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Settings of images and weights."""
    flags = write_data(tmp_path_factory.mktemp("data"), (7 * (i % 5) for i in range(IMAGES)))
    return settings_of(flags)


def steadily(patch: pytest.MonkeyPatch) -> None:
    """Let sweeps take a second, whatever the machine is busy with."""
    patch.setattr(timing, "clock_for", lambda device: EvenClock())
    patch.setattr(speed, "WINDOW", 1)


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    steadily(monkeypatch)


class Watched:
    """Notes which cells are run on which batch."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.batches: list[tuple[int, int]] = []  # index, number of cells
        predict = accuracy.predict

        def noted(models: Any, batch: Any, prepare: Any) -> Any:
            self.batches.append((batch.index, len(models)))
            return predict(models, batch, prepare)

        monkeypatch.setattr(accuracy, "predict", noted)


def test_another_r_measures_one_cell(tmp_path: Path, data: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    sweep(tmp_path / "run", **data)
    with Store.read(tmp_path / "run") as store:
        before = store.rounds(), store.predictions(), store.paces()
    watched = Watched(monkeypatch)
    rows = sweep(tmp_path / "run", r="0,6", **data)

    assert timed(tmp_path / "run") == [round_of("r=0", "r=4")] * 6 + [round_of("r=0", "r=6")] * 6
    assert watched.batches == [(0, 1), (1, 1), (2, 1)]
    with Store.read(tmp_path / "run") as store:
        assert store.rounds()[:6] == before[0]
        assert store.paces() == before[2]
        for key, kept in before[1].items():
            np.testing.assert_array_equal(store.predictions()[key].top1, kept.top1)
        assert store.config == config(r="0,4,6", **data).stored()
    # The table is that of the folder, whatever was asked for last.
    assert [(row.r, row.status, row.rounds, row.n_seen) for row in rows] == [
        (0, "ok", 12, IMAGES),
        (4, "ok", 6, IMAGES),
        (6, "ok", 6, IMAGES),
    ]
    assert all(not {"INTERRUPTED", "PARTIAL_EVAL"} & {*row.warnings} for row in rows)
    assert [row.img_per_s_accuracy is None for row in rows] == [False, False, True]  # of a pass that r = 6 was not in

    whole = sweep(tmp_path / "whole", r="0,4,6", **data)
    assert answers(tmp_path / "run") == answers(tmp_path / "whole")
    assert counted(rows) == counted(whole)
    assert [row.protocol for row in rows] == [row.protocol for row in whole]
    monkeypatch.setattr(timing, "time_round", lambda *_, **__: pytest.fail("a round was timed again"))
    monkeypatch.setattr(accuracy, "predict", lambda *_: pytest.fail("an image was evaluated again"))
    for r in ("0,4,6", "4", "0"):  # fewer are there already
        assert sweep(tmp_path / "run", r=r, **data) == rows


def test_answers_tell_two_runs_apart(tmp_path: Path, data: dict[str, str]) -> None:
    """The comparison above can fail, and so can the one of what was timed."""
    sweep(tmp_path / "one", **data)
    sweep(tmp_path / "two", r="0,8", **data)
    one, two = answers(tmp_path / "one"), answers(tmp_path / "two")
    assert one != two
    assert one[0] == two[0] != one[4] != two[8]
    assert timed(tmp_path / "one") != timed(tmp_path / "two")


@pytest.fixture(scope="module")
def grown(data: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, int]:
    """A run, the same run to which cells were added, and how often it was asked meanwhile whether to stop."""
    first, whole = (tmp_path_factory.mktemp("grown") / name for name in ("first", "whole"))
    asked = itertools.count()
    with pytest.MonkeyPatch.context() as patch:
        steadily(patch)
        sweep(first, **data)
        shutil.copytree(first, whole)
        sweep(whole, lambda: next(asked) < 0, r="0,4,6,8", **data)
    return first, whole, next(asked)


@pytest.mark.parametrize("stop_at", [0.2, 0.5, 0.8, 0.95])
def test_an_added_cell_that_is_stopped_on_the_way_goes_on(
    tmp_path: Path, data: dict[str, str], grown: tuple[Path, Path, int], stop_at: float
) -> None:
    first, whole, times = grown
    shutil.copytree(first, tmp_path / "run")
    last = int(stop_at * times)
    asked = itertools.count()
    with pytest.raises(Interrupted):
        sweep(tmp_path / "run", lambda: next(asked) >= last, r="0,4,6,8", **data)
    with Store.read(tmp_path / "run") as store:
        rows = {row.r: row for row in build_rows(store)}
    assert [rows[r].n_seen for r in (0, 4)] == [IMAGES, IMAGES]
    for row in (rows[r] for r in (6, 8) if r in rows):
        assert ("PARTIAL_EVAL" in row.warnings) == (row.n_seen is None)
    with Store.read(whole) as store:
        expected = counted(build_rows(store))
    assert counted(sweep(tmp_path / "run", r="0,4,6,8", **data)) == expected
    assert answers(tmp_path / "run") == answers(whole)


def test_what_was_stopped_while_it_was_evaluated_goes_on_with_another_r(
    tmp_path: Path, data: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some batches want one cell then, others two."""
    done = itertools.count()
    predict = accuracy.predict

    def stopping(*arguments: Any) -> Any:
        if next(done) == 1:
            raise Interrupted("stopped")
        return predict(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(accuracy, "predict", stopping)
        with pytest.raises(Interrupted):
            sweep(tmp_path / "run", budget="none", **data)
    watched = Watched(monkeypatch)
    rows = sweep(tmp_path / "run", r="0,6", budget="none", **data)
    assert watched.batches == [(0, 1), (1, 2), (2, 2)]
    assert [(row.r, row.n_seen, "PARTIAL_EVAL" in row.warnings) for row in rows] == [
        (0, IMAGES, False),
        (4, None, True),  # it was not asked for, and is not on the images that the others were evaluated on
        (6, IMAGES, False),
    ]
    rows = sweep(tmp_path / "run", budget="none", **data)
    assert watched.batches[3:] == [(1, 1), (2, 1)]
    assert counted(rows) == counted(sweep(tmp_path / "whole", r="0,4,6", budget="none", **data))
    assert answers(tmp_path / "run") == answers(tmp_path / "whole")


def test_what_is_only_evaluated_can_be_timed_later(tmp_path: Path, data: dict[str, str]) -> None:
    rows = sweep(tmp_path / "run", budget="none", **data)
    assert [row.rounds for row in rows] == [0, 0]
    rows = sweep(tmp_path / "run", **data)
    assert [(row.rounds, row.n_seen) for row in rows] == [(6, IMAGES), (6, IMAGES)]
    rows = sweep(tmp_path / "run", r="0,6", budget="none", **data)
    assert [(row.r, row.status, row.rounds, row.n_seen) for row in rows] == [
        (0, "ok", 6, IMAGES),
        (4, "ok", 6, IMAGES),
        (6, "ok", 0, IMAGES),
    ]
    assert all("INTERRUPTED" not in row.warnings for row in rows)


def test_columns_and_options_are_added(tmp_path: Path, data: dict[str, str]) -> None:
    sweep(tmp_path / "run", r="0,4", **data)
    rows = sweep(tmp_path / "run", r="0,4", ceiling=True, **data)
    assert timed(tmp_path / "run")[6:] == [round_of("r=0", "r=4", "ceiling r=4")] * 6
    assert rows[1].merge_overhead is not None
    assert sweep(tmp_path / "run", r="0,4", ceiling=True, **data) == rows
    more = sweep(tmp_path / "run", metric="x", **data)
    assert [(row.r, row.options, row.rounds, row.n_seen) for row in more] == [
        (0, "prop_attn=true", 18, IMAGES),
        (4, "prop_attn=true", 12, IMAGES),
        (4, "metric=x prop_attn=true", 6, IMAGES),
    ]
    with Store.read(tmp_path / "run") as store:
        assert (store.config["metric"], store.config["ceiling"]) == ("k,x", True)
    with pytest.raises(RunError, match=r'metric: "k,x" -> "q"'):  # no settings say these cells and no others
        sweep(tmp_path / "run", r="0,8", metric="q", **data)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"dtype": "bf16"}, 'dtype: "fp32" -> "bf16"'),
        ({"batch_size": 2}, "batch_size: 4 -> 2"),
        ({"batch_size": "auto"}, 'batch_size: 4 -> "auto"'),
        ({"seed": 1}, "seed: 0 -> 1"),
        ({"threads": 2}, "threads: 1 -> 2"),
        ({"prop_attn": False}, "prop_attn: true -> false"),
        ({"r": "0,6", "schedule": "decreasing"}, 'schedule: "constant" -> "decreasing"'),
        ({"r": "0,6", "method": "kmeans"}, 'method: "tome" -> "kmeans"'),
        ({"mode": "train"}, 'mode: not set -> "train"'),
        ({"cells": "1/2"}, 'cells: not set -> "1/2"'),
        ({"r": "0,6", "dtype": "bf16"}, 'dtype: "fp32" -> "bf16"'),
    ],
)
def test_what_means_something_else_is_refused(tmp_path: Path, settings: dict[str, object], says: str) -> None:
    sweep(tmp_path / "run")
    before = (tmp_path / "run" / "run.sqlite").read_bytes()
    with pytest.raises(RunError) as error:
        sweep(tmp_path / "run", **settings)
    assert f"({says})" in str(error.value)
    assert "\n" not in str(error.value)
    assert (tmp_path / "run" / "run.sqlite").read_bytes() == before


def test_auto_is_what_it_came_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "choose_batch_size", lambda *_: 2)
    sweep(tmp_path / "run", batch_size="auto", device="auto")
    rows = sweep(tmp_path / "run", batch_size=2, device=cells(tmp_path / "run").popitem()[1].device, r="0,6")
    assert [(row.r, row.batch_size, row.rounds) for row in rows] == [(0, 2, 12), (4, 2, 6), (6, 2, 6)]
    with pytest.raises(RunError, match='batch_size: "auto" -> 4'):
        sweep(tmp_path / "run", batch_size=4)
    with Store.read(tmp_path / "run") as store:
        assert json.loads(json.dumps(store.config))["batch_size"] == "auto"


def test_other_weights_under_the_same_name_do_not_join(tmp_path: Path, data: dict[str, str]) -> None:
    flags = write_data(tmp_path / "data", (0 for _ in range(4)))
    mine = settings_of(flags)
    sweep(tmp_path / "run", budget="none", **mine)
    Path(mine["checkpoint"]).write_bytes(changed(Path(mine["checkpoint"]).read_bytes()))
    with pytest.raises(RunError, match=r"measured with another weights \(weights [0-9a-f]{16} -> "):
        sweep(tmp_path / "run", r="0,6", budget="none", **mine)
    assert {cell.r for cell in cells(tmp_path / "run").values()} == {0, 4}
    with Store.read(tmp_path / "run") as store:
        assert store.config["r"] == "0,4"


def changed(weights: bytes) -> bytes:
    """Weights of which the last number is another one."""
    return weights[:-4] + np.float32(0.123).tobytes()


def test_options_of_other_code_are_compared_as_they_are_written() -> None:
    for settings in ({"method": "kmeans", "option": "gone=2"}, {"method": "kmeans", "option": "iterations=200,02"}):
        name, _, values = settings["option"].partition("=")
        assert resume._values(settings, name) == values.split(",")
    assert resume._values({"method": "kmeans", "option": "iterations=2,02"}, "iterations") == ["2"]
