"""The store: what goes in comes out, the same settings go on, and everything else is refused with its reason."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from store_samples import (
    BATCH,
    CELLS,
    CONFIG,
    KEYS,
    TESTBED,
    contents,
    fill,
    make_cell,
    make_chunks,
    make_images,
    make_resolved,
    make_round,
    message,
    names,
    read_contents,
    times_of,
)

from tomebench.errors import RunError, StorageError
from tomebench.runs.store import Store
from tomebench.schema import SENTINEL, UNWRAPPED, Burst, CellPredictions, Chunk, Round


def test_message_and_contents_can_fail(folder: Path) -> None:
    with pytest.raises(RunError) as error:
        raise RunError("two\nlines")
    with pytest.raises(AssertionError):
        message(error)
    before = read_contents(folder)
    with Store.open(folder, CONFIG) as store:
        store.set_peak_memory(KEYS[0], 1)
    assert read_contents(folder) != before


def test_everything_comes_back(folder: Path) -> None:
    found = read_contents(folder)
    assert found["config"] == CONFIG
    assert found["cells"] == CELLS
    assert found["rounds"][3] == make_round(times_of(CELLS, 1.0, 0.1 + 3 / 7, 0.5), 3)
    assert len(found["rounds"]) == 8
    assert found["sessions"] == [(1, TESTBED)]
    assert found["statuses"] == {KEYS[2]: ("failed", "it broke")}
    assert found["memory"] == {KEYS[0]: 123456789}
    assert found["fact"] == BATCH
    assert found["images"] == ("digits", "d" * 64, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9], 10, "partial")
    assert found["chunks"] == {0, 1, 2}
    assert found["seen"] == list(range(10))
    assert found["predictions"][KEYS[1]] == ([1, 1, 2, 3, 4, 6, 6, 7, 8, 9], [True] * 10, 0, 0)
    assert found["predictions"][KEYS[2]][1] == [i not in (1, 7) for i in range(10)]
    assert names(folder) == ["run.sqlite"]


def test_a_new_store_is_empty(opened: Store) -> None:
    assert contents(opened) == {
        "config": CONFIG, "cells": [], "rounds": [], "sessions": [], "statuses": {}, "memory": {}, "fact": None,
        "images": None, "chunks": set(), "seen": [], "predictions": {},
    }  # fmt: skip
    assert opened.schema_version == 2


@settings(max_examples=15)
@given(
    seconds=st.lists(st.floats(min_value=1e-6, max_value=1e6), min_size=1, max_size=6),
    seed=st.integers(0, 2**63 - 1),
    top1=st.lists(st.integers(0, 65535), min_size=1, max_size=20),
    bits=st.integers(0, 2**20 - 1),
    text=st.text(max_size=200),
)
def test_any_value_comes_back(
    tmp_path_factory: pytest.TempPathFactory, seconds: list[float], seed: int, top1: list[int], bits: int, text: str
) -> None:
    folder = tmp_path_factory.mktemp("any") / "run"
    bursts = tuple(
        Burst(name, 3, value) for name, value in zip((SENTINEL, UNWRAPPED, *KEYS, text), seconds, strict=False)
    )
    in_top5 = np.array([bits >> i & 1 for i in range(len(top1))], dtype=np.bool_)
    with Store.open(folder, {"text": text}) as store:
        store.put_cells(CELLS)
        store.add_round(Round(7, seed, bursts))
        store.put_images(make_images(40))
        store.add_chunk(Chunk(5, {KEYS[0]: CellPredictions(np.array(top1, np.uint16), in_top5, 1, 2)}))
        store.put(text, [text, None, 0.1])
    with Store.read(folder) as store:
        assert store.config == {"text": text}
        assert store.rounds() == [Round(7, seed, bursts)]
        found = store.predictions()[KEYS[0]]
        assert (found.top1.dtype, found.in_top5.dtype, found.ties, found.nonfinite) == (np.uint16, np.bool_, 1, 2)
        assert found.top1.tolist() == top1
        assert found.in_top5.tolist() == in_top5.tolist()
        assert store.seen().tolist() == [5 * BATCH + i for i in range(len(top1))]
        assert store.get(text) == [text, None, 0.1]


def test_no_not_a_number_is_ever_stored(opened: Store) -> None:
    for value in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="JSON"):
            opened.add_round(make_round({SENTINEL: value}))
    assert opened.rounds() == []


def test_a_chunk_counts_once_and_for_whole(opened: Store) -> None:
    opened.put_cells(CELLS)
    first, second, _ = make_chunks(make_images(10), {key: set() for key in KEYS})
    opened.add_chunk(first)
    with pytest.raises(ValueError, match="chunk 0 is already stored"):
        opened.add_chunk(first)
    short = CellPredictions(np.zeros(3, np.uint16), np.ones(3, np.bool_))
    for predictions in ({**second.predictions, KEYS[0]: short}, {}):
        with pytest.raises(ValueError, match="same images for every cell"):
            opened.add_chunk(Chunk(1, predictions))
    assert opened.done_chunks() == {0}
    assert opened.seen().tolist() == [0, 1, 2, 3]


def test_chunks_in_any_order_and_cells_that_stop(opened: Store) -> None:
    opened.put_cells(CELLS)
    chunks = make_chunks(make_images(10), {KEYS[0]: {0}, KEYS[1]: {8}})
    for index in (2, 0):
        opened.add_chunk(chunks[index])
    assert opened.seen().tolist() == [0, 1, 2, 3, 8, 9]
    assert opened.predictions()[KEYS[1]].top1.tolist() == [0, 1, 2, 3, 9, 9]
    opened.add_chunk(Chunk(1, {KEYS[0]: chunks[1].predictions[KEYS[0]]}))
    assert opened.predictions().keys() == {KEYS[0]}


def test_nothing_of_a_chunk_is_shared_with_the_caller(opened: Store) -> None:
    opened.put_cells(CELLS)
    opened.add_chunk(make_chunks(make_images(4), {KEYS[0]: set()})[0])
    opened.predictions()[KEYS[0]].top1[:] = 9
    assert opened.predictions()[KEYS[0]].top1.tolist() == [0, 1, 2, 3]
    assert dataclasses.is_dataclass(opened.predictions()[KEYS[0]])


# --- resuming


def test_the_same_settings_go_on(folder: Path) -> None:
    before = read_contents(folder)
    with Store.open(folder, dict(reversed(CONFIG.items()))) as store:
        fresh = make_images(10, note="partial")
        store.put_cells(CELLS)
        store.put_images(fresh)
        assert contents(store) == before
        assert store.begin_session(TESTBED) == 2
        store.add_round(make_round({SENTINEL: 1.0}, 8, session=2))
        assert [round_.session for round_ in store.rounds()] == [1] * 8 + [2]


def test_other_settings_are_refused_and_listed(folder: Path) -> None:
    before = (folder / "run.sqlite").read_bytes()
    asked = {"model": "tiny", "r": "0..8", "budget": "quick", "data": None, "limit": 10, "seed": 0}
    with pytest.raises(RunError) as error:
        Store.open(folder, asked)
    assert message(error) == (
        f'{folder} holds a run with other settings (data: "/a" -> null, r: "0..24:8" -> "0..8", limit: not set -> 10); '
        "use --out another folder, or the same settings to go on with it"
    )
    assert (folder / "run.sqlite").read_bytes() == before
    assert names(folder) == ["run.sqlite"]


def test_true_is_not_one(tmp_path: Path) -> None:
    with Store.open(tmp_path / "run", {"x": 1}) as store:
        store.put_cells(CELLS)
        store.begin_session(TESTBED)
        store.add_round(make_round({SENTINEL: 1.0}, 1))
    with pytest.raises(RunError, match="x: 1 -> true"):
        Store.open(tmp_path / "run", {"x": True})


@pytest.mark.parametrize(
    ("cells", "says"),
    [
        ([(make_cell(r, device="cuda"), make_resolved(r)) for r in (0, 8, 16)], 'device: "cpu" -> "cuda"'),
        ([(make_cell(r), make_resolved(r, crop_pct=1.0)) for r in (0, 8, 16)], "crop_pct: 0.9 -> 1.0"),
        ([*CELLS, (make_cell(4, weights="pretrained"), make_resolved(4))], 'weights: "random:0" -> "pretrained"'),
        ([(make_cell(4), make_resolved(4, params_m=0.6))], "params_m: 0.5 -> 0.6"),
    ],
)
def test_settings_that_came_to_something_else(folder: Path, cells: Any, says: str) -> None:
    with Store.open(folder, CONFIG) as store, pytest.raises(RunError) as error:
        store.put_cells(cells)
    assert f"({says})" in message(error)


def test_other_values_of_r_join_those_that_are_there(folder: Path) -> None:
    more = [(make_cell(r), make_resolved(r)) for r in (0, 4, 24)]
    with Store.open(folder, CONFIG) as store:
        store.put_cells(more, {**CONFIG, "r": "0,4,8,16,24"})
        assert [cell.r for cell, _ in store.cells()] == [0, 4, 8, 16, 24]
        assert store.config["r"] == "0,4,8,16,24"
    after = read_contents(folder)
    assert after["config"] == {**CONFIG, "r": "0,4,8,16,24"}
    assert after["cells"][0] == CELLS[0]
    assert len(after["rounds"]) == 8


def test_a_cell_that_comes_later_is_added_to_the_chunks_that_are_there(opened: Store) -> None:
    opened.put_cells(CELLS)
    chunks = make_chunks(make_images(10), {key: set() for key in KEYS})
    for chunk in chunks:
        opened.add_chunk(Chunk(chunk.index, {KEYS[0]: chunk.predictions[KEYS[0]]}, 1, 2.0, 0.5))
    pace = opened.paces()
    for chunk in chunks[:2]:
        opened.add_chunk(Chunk(chunk.index, {KEYS[1]: chunk.predictions[KEYS[1]]}, 2, 9.0, 0.5))
    assert opened.predictions().keys() == {KEYS[0]}  # the other one lacks a chunk
    assert opened.evaluated() == {0: {*KEYS[:2]}, 1: {*KEYS[:2]}, 2: {KEYS[0]}}
    opened.add_chunk(Chunk(2, {KEYS[1]: chunks[2].predictions[KEYS[1]]}, 3, 9.0, 0.5))
    assert opened.predictions()[KEYS[1]].top1.tolist() == list(range(10))
    assert opened.paces() == pace
    assert opened.late() == {KEYS[1]: [2, 3]}
    with pytest.raises(ValueError, match="chunk 2 is already stored"):
        opened.add_chunk(Chunk(2, {KEYS[1]: chunks[2].predictions[KEYS[1]]}))
    with pytest.raises(ValueError, match="chunk 2 has 2 images, not 4"):
        opened.add_chunk(Chunk(2, {KEYS[2]: chunks[0].predictions[KEYS[2]]}))


def test_other_images_are_refused(folder: Path) -> None:
    with Store.open(folder, CONFIG) as store:
        with pytest.raises(RunError) as error:
            store.put_images(make_images(9, digest="e" * 64))
        images = store.images()
    assert "10 with digest dddddddddddd -> 9 with eeeeeeeeeeee" in message(error)
    assert images is not None
    assert len(images.labels) == 10


# --- folders


def test_an_empty_folder_and_missing_parents_are_fine(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for place in (tmp_path / "empty", tmp_path / "a" / "b" / "c"):
        Store.open(place, CONFIG).close()
        assert read_contents(place)["config"] == CONFIG


@pytest.mark.parametrize("name", ["run[r=8]", "a?b#c%20d", "sp ace\nline", os.fsdecode(b"not-utf8-\xff"), "x" * 200])
def test_any_folder_name(tmp_path: Path, name: str) -> None:
    with Store.open(tmp_path / name, CONFIG) as store:
        fill(store)
    assert len(read_contents(tmp_path / name)["rounds"]) == 8
    assert names(tmp_path) == [name]
    assert names(tmp_path / name) == ["run.sqlite"]


def test_a_folder_of_other_things_is_refused_untouched(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(RunError) as error:
        Store.open(tmp_path, CONFIG)
    assert f"{tmp_path} holds no run but other files ('thesis.tex')" in message(error)
    assert names(tmp_path) == ["thesis.tex"]


@pytest.mark.parametrize("below", [False, True])
def test_a_file_is_no_folder(tmp_path: Path, below: bool) -> None:
    file = tmp_path / "file"
    file.write_text("x")
    with pytest.raises(RunError) as error:
        Store.open(file / "run" if below else file, CONFIG)
    assert "is not a folder" in message(error)


def test_a_kill_during_creation_is_no_obstacle(tmp_path: Path) -> None:
    for name in ("run.lock", "run.sqlite.new", "run.sqlite.new-journal", "run.sqlite.new-wal"):
        (tmp_path / name).write_bytes(b"half")
    with Store.open(tmp_path, CONFIG) as store:
        assert store.rounds() == []
    assert names(tmp_path) == ["run.sqlite"]


def test_reading_where_there_is_no_run(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "missing"):
        with pytest.raises(RunError) as error:
            Store.read(place)
        assert f"there is no run in {place}" in message(error)
    assert names(tmp_path) == []


def test_folder_that_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(StorageError) as error:
        Store.open(tmp_path / "run", CONFIG)
    assert "Permission denied" in message(error)


def test_a_run_of_the_first_version_goes_on(tmp_path):
    """Its cells know nothing of CUDA graphs, and its kernels had shorter names."""
    folder = tmp_path / "run"
    cells = []
    for cell, resolved in CELLS:
        fields = cell.to_json()
        del fields["cuda_graphs"]
        cells.append({"cell": fields, "resolved": {**resolved.to_json(), "attn_kernel": "sdpa"}})
    with Store.open(folder, CONFIG) as store:
        store._put_fact("cells", "", cells)
        store.add_round(make_round(times_of(CELLS, 1.0, 0.8, 0.5)))
    with Store.open(folder, CONFIG) as store:
        new = [(cell, dataclasses.replace(resolved, attn_kernel="sdpa-flash")) for cell, resolved in CELLS]
        store.put_cells(new)
        assert {cell.key for cell, _ in store.cells()} == set(KEYS)
        assert len(store.rounds()) == 1
        other = [(dataclasses.replace(cell, cuda_graphs=True), resolved) for cell, resolved in CELLS]
        with pytest.raises(RunError, match="cuda_graphs: false -> true"):
            store.put_cells(other)
