"""Baselines on disk: back as they were, and never read where anything about them is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_records import accuracy, cell, snapshot, speed, static

from tomebench.errors import BaselineError, StorageError
from tomebench.gate import baseline_file as file
from tomebench.gate.baseline_file import read_baseline, write_baseline
from tomebench.gate.records import Snapshot


@pytest.fixture
def stored(tmp_path: Path) -> tuple[Path, Snapshot]:
    one = snapshot(
        cell(0, static=static(), accuracy=accuracy(np.arange(13) % 3 > 0), speed=speed(1.0)),
        cell(8, static=static(), accuracy=accuracy(np.arange(13) % 2 > 0), speed=speed(1.3)),
        noise_floor=0.01,
    )
    path = tmp_path / "new folder" / "base.json"
    write_baseline(path, one)
    return path, one


def test_a_baseline_comes_back_as_it_was(stored: tuple[Path, Snapshot]) -> None:
    path, one = stored
    assert read_baseline(path) == one
    assert [p.name for p in path.parent.iterdir()] == ["base.json"]  # nothing is left of the writing


def test_the_packed_arrays_come_back(stored: tuple[Path, Snapshot]) -> None:
    found = read_baseline(stored[0]).cells[1]
    assert found.static is not None
    assert found.accuracy is not None
    np.testing.assert_allclose(found.static.values(), [[1, 2, -3], [0.5, 0.25, 0]])
    np.testing.assert_array_equal(found.accuracy.values(), np.arange(13) % 2 > 0)


def refused(path: Path) -> str:
    with pytest.raises(BaselineError) as caught:
        read_baseline(path)
    assert caught.value.exit_code == 4
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_files_that_are_no_baseline(tmp_path: Path) -> None:
    assert "No such file" in refused(tmp_path / "none.json")
    assert "directory" in refused(tmp_path)
    for name, content, says in (
        ("empty", b"", "empty"),
        ("blank", b" \n", "empty"),
        ("binary", bytes(range(256)), "not complete JSON"),
        ("list", b"[]", "no baseline of tomebench"),
        ("other", b'{"format": "something else"}', "no baseline of tomebench"),
        ("newer", b'{"format": "tomebench baseline", "version": 5}', "version 5"),
        ("bare", b'{"format": "tomebench baseline", "version": 1}', "Field required"),
        ("deep", b"[" * 100_000 + b"]" * 100_000, "nested too deeply"),
        ("deeper", b'{"format":' * 50 + b"1" + b"}" * 50, "nested too deeply"),
        ("nan", b'{"a": NaN}', "NaN is no number"),
    ):
        path = tmp_path / name
        path.write_bytes(content)
        assert says in refused(path), name


def test_a_file_cut_short_anywhere_is_refused(stored: tuple[Path, Snapshot]) -> None:
    path, _ = stored
    whole = path.read_bytes()
    for size in range(0, len(whole) - 2, max(1, len(whole) // 40)):
        path.write_bytes(whole[:size])
        refused(path)


def test_a_file_over_the_cap_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file, "MAX_BYTES", 2**20)
    path = tmp_path / "huge.json"
    with path.open("wb") as huge:
        huge.truncate(200 * 2**20)  # sparse: no disk
    assert "larger than 1 MiB" in refused(path)


def edits() -> list[tuple[str, Any]]:
    return [
        ("cells.0.speed.seconds.0", 0.0),
        ("cells.0.speed.seconds.0", -1.0),
        ("cells.0.speed.seconds.0", 1e999),
        ("cells.0.speed.seconds.0", None),
        ("cells.0.speed.seconds.0", "1"),
        ("cells.0.speed.seconds.0", 1e-300),
        ("cells.0.speed.seconds.0", 1e300),
        ("cells.0.speed.reference", []),
        ("cells.0.accuracy.n_seen", 12345),
        ("cells.0.accuracy.right", "????"),
        ("cells.0.static.shape", [2, 4]),
        ("cells.0.static.logits", "AAAA"),
        ("cells.0.static.gmacs", -1),
        ("cells.0.asked.r", -1),
        ("cells.0.asked.device", "tpu"),
        ("cells.1.asked.r", 0),  # two cells of one name
        ("cells.0.asked.model", "m" * 501),
        ("cells.0.static.preprocessing", "x" * 10_000),
        ("cells.0.surprise", 1),
        ("cells", []),
        ("noise_floor", -0.1),
    ]


@pytest.mark.parametrize(("where", "value"), edits(), ids=str)
def test_values_that_cannot_be_are_refused(stored: tuple[Path, Snapshot], where: str, value: Any) -> None:
    path, _ = stored
    data = json.loads(path.read_text())
    *parents, last = where.split(".")
    target: Any = data
    for key in parents:
        target = target[int(key)] if isinstance(target, list) else target[key]
    target[int(last) if isinstance(target, list) else last] = value
    path.write_text(json.dumps(data).replace("Infinity", "1e999"))
    refused(path)


def test_nan_logits_are_refused(stored: tuple[Path, Snapshot]) -> None:
    from tomebench.gate.records import packed_logits

    path, _ = stored
    data = json.loads(path.read_text())
    data["cells"][0]["static"]["logits"] = packed_logits(np.full((2, 3), np.nan))
    path.write_text(json.dumps(data))
    assert "not finite" in refused(path)


def test_a_baseline_that_cannot_be_written_leaves_the_old_one(
    stored: tuple[Path, Snapshot], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, one = stored
    before = path.read_bytes()

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tomebench.whole.write_new", full)
    with pytest.raises(StorageError, match="No space left"):
        write_baseline(path, one)
    assert path.read_bytes() == before
