"""Stored runs are read once each, whatever their number of cells, and refused where they cannot be compared."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from compare.made_runs import FIELD, write_run
from runs.store_samples import CONFIG

from tomebench.compare.lines import comparisons
from tomebench.compare.questions import answers
from tomebench.compare.read import read_runs
from tomebench.errors import InputError, RunError
from tomebench.runs.store import Store


def test_rows_come_with_the_images_that_they_are_right_on(tmp_path: Path) -> None:
    found, remarks = read_runs([write_run(tmp_path / "a", FIELD)])
    assert remarks == []
    wrong = {
        (each.row.method, each.row.r): tuple(np.flatnonzero(~each.right)) for each in found if each.right is not None
    }
    assert wrong == dict(FIELD)
    assert all(each.row.top1_correct == 40 - len(FIELD[each.row.method, each.row.r]) for each in found)


def test_without_images_or_labels_no_image_is_right(tmp_path: Path) -> None:
    found, _ = read_runs([write_run(tmp_path / "a", FIELD, images=None)])
    assert [each.right for each in found] == [None] * 5


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"there is no run in .*nowhere"):
        read_runs([tmp_path / "nowhere"])
    with Store.open(tmp_path / "empty", CONFIG):
        pass
    with pytest.raises(RunError, match="empty holds no results yet; tomebench sweep measures them"):
        read_runs([tmp_path / "empty"])
    run = write_run(tmp_path / "a", FIELD)
    with pytest.raises(InputError, match="a run folder is named twice"):
        read_runs([run, tmp_path / "b" / ".." / "a"])


def test_other_images_are_refused(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / "a", FIELD), write_run(tmp_path / "b", FIELD, digest="e" * 64, images=20)]
    says = (
        r"b was evaluated on other images \(20 images of digits, digest eeeeeeee\) than .*a \(40 .* digest dddddddd\)"
    )
    with pytest.raises(InputError, match=says):
        read_runs(runs)
    with pytest.raises(InputError, match="name runs of the same images"):
        read_runs(runs[::-1])


def test_other_bytes_under_the_same_names_are_refused(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / name, FIELD, state=name * 4) for name in "ab"]
    with pytest.raises(InputError, match=r"image number 1 of .*b is not that of .*a, under the same name"):
        read_runs(runs)


def test_runs_of_other_code_are_told(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / name, FIELD) for name in "ab"]
    for run in runs:
        with Store.open(run, CONFIG) as store:
            store.put("made", {"code": run.name, "weights": run.name})
    _, remarks = read_runs(runs)
    assert remarks == [f"{runs[1]} was measured with another code than {runs[0]} (code a -> b)"]


def test_a_run_without_images_goes_with_one_that_has_some(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / "a", FIELD), write_run(tmp_path / "b", {("kmeans", 4): ()}, images=None, rounds=0)]
    found, _ = read_runs(runs)
    ((comparison),) = comparisons(found)
    assert [line.name for line in comparison.lines] == ["tome", "kmeans", "greedy"]
    assert [line.points[0].right is None for line in comparison.lines] == [False, True, False]


def reads(run: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """Number of queries that a comparison of a run makes."""
    count = 0
    select = Store._select

    def counted(*arguments: object) -> object:
        nonlocal count
        count += 1
        return select(*arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(Store, "_select", counted)
        measured, _ = read_runs([run])
    answers(comparisons(measured))  # reads nothing
    return count


def test_the_store_is_read_as_often_for_400_cells_as_for_20(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few, many = (
        {("tome", 0): (), **{(f"m{method}", r): () for method in range(methods) for r in range(1, 21)}}
        for methods in (1, 20)
    )
    short, long = (write_run(tmp_path / str(len(wrong)), wrong, images=8) for wrong in (few, many))
    assert reads(short, monkeypatch) == reads(long, monkeypatch) < 100
