"""A folder of runs stands for its runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tomebench.errors import RunError
from tomebench.runs.database import FILE
from tomebench.runs.members import all_runs, member_runs
from tomebench.runs.store import Store


def run(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / FILE).touch()
    return folder


def test_a_parent_stands_for_the_runs_below_it_and_a_run_for_itself(tmp_path: Path) -> None:
    names = ("vit-96px", "vit-128px", "vit-128px-b8", "vit-128px-b16", "vit2-64px")
    runs = [run(tmp_path / "parent" / name) for name in reversed(names)][::-1]
    (tmp_path / "parent" / "table.csv").touch()
    (tmp_path / "parent" / "other").mkdir()
    assert member_runs(tmp_path / "parent") == runs
    alone = run(tmp_path / "alone")
    run(alone / "below")
    assert member_runs(alone) == [alone]
    assert all_runs([alone, tmp_path / "parent"]) == [alone, *runs]


def test_a_command_of_one_run_names_those_below(tmp_path: Path) -> None:
    first = run(tmp_path / "parent" / "a-96px")
    with pytest.raises(RunError, match="holds runs below it and none itself; name one of them, such as") as error:
        Store.read(tmp_path / "parent")
    assert str(error.value).endswith(str(first))


def test_what_holds_no_run_is_left_to_whoever_opens_it(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing"):
        assert member_runs(path) == [path]
