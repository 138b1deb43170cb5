"""Stopped runs at the gate: the first images of a random order tell what all would say, as far as they tell it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from digits_runs import DIGITS

from tomebench.cli import app
from tomebench.errors import BaselineError, ConfigError, Interrupted
from tomebench.gate.compare_accuracy import MaxDrop, compare_accuracies, keeps, level_of
from tomebench.gate.records import Accuracy, Asked, CellRecord, packed_bits
from tomebench.gate.snapshot import run_snapshot
from tomebench.runs.codes import AGAINST, STOPPED
from tomebench.runs.rows import build_rows
from tomebench.runs.store import Store
from tomebench.sweeps import accuracy
from tomebench.sweeps.config_files import load_config

TOTAL = 5_000
ASKED = Asked(
    model="m", weights="w", img_size=224, method="tome", options="", schedule="constant", r=8, dtype="fp32",
    attention="auto", batch_size=8, device="cpu", compile=False, cuda_graphs=False, mode="infer", threads=None,
)  # fmt: skip


def record(right: np.ndarray, *, complete: bool = True, digest: str = "d", content: str = "c") -> CellRecord:
    about = {"dataset": "x", "digest": digest, "content": content, "complete": complete}
    answers = Accuracy(**about, n_seen=len(right), right=packed_bits(right))
    return CellRecord(asked=ASKED, accuracy=answers)


def judged(right: np.ndarray, now: np.ndarray, limit: str = "0.5", *, random: bool = True, **of: Any):
    """The finding about a cell, of which all images or only the first have been evaluated anew."""
    new = record(now, complete=len(now) == len(right), **of)
    raced_cells = 1 if random else None
    (found,) = compare_accuracies({"r=8": (record(right), new)}, MaxDrop.parse(limit), raced_cells=raced_cells)
    return found


def answers(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random(TOTAL) < 0.8


def without(right: np.ndarray, share: float) -> np.ndarray:
    """The same answers with a share of all images lost."""
    gone = np.random.default_rng(1).permutation(np.flatnonzero(right))[: round(share * TOTAL)]
    now = right.copy()
    now[gone] = False
    return now


def test_equal_answers_pass_once_enough_are_seen():
    right = answers()
    few, more = judged(right, right[:64]), judged(right, right[:2_000])
    assert (few.verdict, more.verdict) == ("inconclusive", "same")
    assert "not known whether more than 0.5 points are lost of all 5000: go on with --until all" in few.detail
    assert more.detail.endswith("0 lost and 0 gained; no more than 0.5 points are lost of all 5000")
    assert more.change == 0
    assert more.change_lo > -0.005 * TOTAL - 1
    assert judged(right, right[:2_000], "25images").verdict == "same"
    assert judged(right, right[:2_000], "1images").verdict == "inconclusive"


def test_a_loss_is_found_long_before_the_last_image():
    right = answers()
    now = without(right, 0.05)
    found = judged(right, now[:640])
    assert found.verdict == "worse"
    assert found.detail.endswith("more than 0.5 points are lost of all 5000")
    assert found.change_hi < -0.005 * TOTAL
    assert judged(right, now).verdict == "worse"


@pytest.mark.parametrize("share", [0.0, 0.004, 0.006, 0.02])
def test_what_is_foreseen_is_what_all_images_say(share):
    """At whatever image one stops, an answer is that of all images in 98 of 100 orders."""
    wrong = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        found = np.zeros(TOTAL, dtype=np.int8)
        found[: round(share * TOTAL)] = -1
        rng.shuffle(found)
        truth = share <= 0.005
        said = [keeps(found[:n], TOTAL, MaxDrop(), level_of(1)) for n in (64, 200, 600, 1500, 3000, 4500)]
        wrong += any(each is not None and each is not truth for each in said)
    assert wrong <= 5
    assert keeps(found, TOTAL, MaxDrop(), level_of(1)) is truth


def test_more_cells_need_more_images():
    found = np.zeros(TOTAL, dtype=np.int8)

    def needed(cells: int) -> int:
        return next(n for n in range(64, TOTAL, 64) if keeps(found[:n], TOTAL, MaxDrop(), level_of(cells)))

    assert needed(1) < needed(10) < needed(1_000)


def test_only_a_random_order_can_be_stopped_and_only_the_same_images_compare():
    right = answers()
    listed = judged(right, right[:2_000], random=False)
    assert (listed.verdict, listed.detail) == (
        "incomparable",
        "this run has not seen all of its images; finish the run",
    )
    assert judged(right, right[:2_000], digest="e").verdict == "incomparable"
    assert judged(right, right[:2_000], content="of the first images").verdict == "same"
    assert judged(right, right, content="other").detail == "the files of x hold other images than they did (c -> other)"


N = 160
SETTINGS: dict[str, Any] = {**DIGITS, "r": "0,12,24", "limit": N}


def sweep(out: Path, should_stop: Callable[[], bool] = lambda: False, **more: Any) -> None:
    from tomebench.gate.race import boards_of
    from tomebench.sweeps.run import run_sweep

    config = load_config([], {**SETTINGS, "out": out, **more})
    for _ in run_sweep(config, out, should_stop, boards=boards_of(config)):
        pass


@pytest.fixture(scope="module")
def gated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A baseline of all images in the random order, beside its run."""
    gated = tmp_path_factory.mktemp("gate")
    sweep(gated / "all", until="all")
    code = app.run(["check", str(gated / "all"), "--update-baseline", "--accuracy", "--baseline", f"{gated}/a.json"])
    assert code == 0
    return gated


def check(run: Path, gated: Path, capsys: pytest.CaptureFixture[str], *more: str) -> tuple[int, dict[str, Any]]:
    code = app.run(["check", str(run), "--baseline", f"{gated}/a.json", "--accuracy", "--json", *more])
    said = capsys.readouterr()
    return code, json.loads(said.out)


def seen(run: Path) -> dict[int, int]:
    with Store.read(run) as store:
        by_key = {cell.key: cell.r for cell, _ in store.cells()}
        return {by_key[key]: len(found) for key, found in store.top1().items()}


def test_an_equal_run_stops_early_and_passes(gated, tmp_path, capsys):
    sweep(tmp_path / "run", until="decided", against=gated / "a.json", max_drop=10.0)
    assert max(seen(tmp_path / "run").values()) < N // 16
    with Store.read(tmp_path / "run") as store:
        assert {code for row in build_rows(store) for code in row.warnings} & STOPPED == {AGAINST}
    code, said = check(tmp_path / "run", gated, capsys, "--max-drop", "10")
    assert (code, [each["verdict"] for each in said["findings"]]) == (0, ["same"] * 3)
    code, said = check(tmp_path / "run", gated, capsys)  # a narrower limit is another question
    assert (code, {each["verdict"] for each in said["findings"]}) == (4, {"inconclusive"})
    sweep(tmp_path / "run", until="all")
    code, said = check(tmp_path / "run", gated, capsys)
    assert (code, {each["verdict"] for each in said["findings"]}) == (0, {"same"})


def test_a_worse_cell_stops_and_fails_and_a_kill_changes_nothing(gated, tmp_path, capsys, monkeypatch):
    with Store.read(gated / "all") as store:
        (worse,) = (cell.key for cell, _ in store.cells() if cell.r == 12)
    real = accuracy.predict

    def broken(models, batch, prepare):
        chunk = real(models, batch, prepare)
        predictions = {
            key: dataclasses.replace(own, top1=(own.top1 + np.uint16(1)) % 10) if key == worse else own
            for key, own in chunk.predictions.items()
        }
        return dataclasses.replace(chunk, predictions=predictions)

    monkeypatch.setattr(accuracy, "predict", broken)
    asked = {"until": "decided", "against": gated / "a.json", "max_drop": 10.0}
    sweep(tmp_path / "run", **asked)
    calls = iter(range(100))
    with pytest.raises(Interrupted):
        sweep(tmp_path / "again", lambda: next(calls) > 12, **asked)
    sweep(tmp_path / "again", **asked)
    assert seen(tmp_path / "run") == seen(tmp_path / "again")
    code, said = check(tmp_path / "run", gated, capsys, "--max-drop", "10")
    assert (code, {each["cell"]: each["verdict"] for each in said["findings"]}) == (
        3,
        {"r=0": "same", "r=12": "worse", "r=24": "same"},
    )
    with Store.read(tmp_path / "run") as store:
        sizes = {cell.asked.r: cell.accuracy.n_seen for cell in run_snapshot(store).cells}
    assert sizes[12] <= sizes[24] <= sizes[0] < N


def test_a_stopped_run_is_no_baseline(gated, tmp_path, capsys):
    sweep(tmp_path / "run", until="decided", against=gated / "a.json", max_drop=10.0)
    code = app.run(["check", str(tmp_path / "run"), "--update-baseline", "--baseline", str(tmp_path / "b.json")])
    assert code == 2
    assert "sweep it on with --until all, then keep it" in capsys.readouterr().err
    assert not (tmp_path / "b.json").exists()


@pytest.mark.parametrize("more", [{"seed": 1}, {"limit": 80}, {"r": "0,8"}])
def test_a_baseline_of_something_else_is_refused(gated, tmp_path, more):
    settings = {"until": "decided", "against": gated / "a.json", **more}
    if "r" in more:  # r = 0 is in both, r = 8 in none, so that it is not evaluated
        sweep(tmp_path / "run", **settings)
        assert {*seen(tmp_path / "run")} == {0}
        return
    with pytest.raises(BaselineError, match="the baseline is not of these images in this random order"):
        sweep(tmp_path / "run", **settings)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({}, "add --until decided"),
        ({"until": "all"}, "add --until decided"),
        ({"until": "decided", "labels": False}, "drop --no-labels and --processes"),
        ({"until": "decided", "budget": "quick", "processes": 2}, "drop --no-labels and --processes"),
    ],
)
def test_against_says_which_question_stops_cells(more, message):
    with pytest.raises(ConfigError, match=message):
        load_config([], {**SETTINGS, "against": "a.json", **more})


def test_a_gap_is_never_taken_for_the_next_images(gated, tmp_path, capsys):
    """Of a race for one row, the row that it chose has the first images and the last, until --until all fills in."""
    sweep(tmp_path / "run", until="recommended", max_drop=60.0)  # which 64 images decide
    calls = iter(range(100))
    with pytest.raises(Interrupted):
        sweep(tmp_path / "run", lambda: next(calls) > 4, until="all")
    with Store.read(tmp_path / "run") as store:
        top1, gaps = store.top1(), 0
        keys = {cell.r: cell.key for cell, _ in store.cells()}
        for cell in run_snapshot(store).cells:
            found = top1.get(keys[cell.asked.r], {})
            first = next(index for index in range(len(found) + 1) if index not in found)
            assert first == 0 if cell.accuracy is None else cell.accuracy.n_seen == 16 * first
            gaps += first < len(found)
    assert gaps
    _, said = check(tmp_path / "run", gated, capsys, "--max-drop", "10")
    assert not {each["verdict"] for each in said["findings"]} & {"worse", "better"}


def test_a_baseline_that_cannot_be_read_ends_the_sweep_before_it_begins(tmp_path):
    with pytest.raises(BaselineError, match=r"baseline .*nowhere\.json: No such file"):
        sweep(tmp_path / "run", until="decided", against=tmp_path / "nowhere.json")
    assert not (tmp_path / "run").exists()
