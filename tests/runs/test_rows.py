"""Rows derived from stored measurements: golden values worked out by hand, and what happens to what is missing."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from store_samples import (
    BATCH,
    CELLS,
    CONFIG,
    KEYS,
    TESTBED,
    add_rounds,
    make_cell,
    make_cells,
    make_chunks,
    make_images,
    make_resolved,
    make_round,
    times_of,
)

from tomebench.runs.row import Row
from tomebench.runs.rows import build_rows
from tomebench.runs.store import Store
from tomebench.schema import CellPredictions, Chunk


def test_without_measurements_there_are_rows_and_no_numbers(store: Store) -> None:
    rows = build_rows(store)
    assert [row.r for row in rows] == [0, 8, 16]
    for row in rows:
        assert (row.status, row.error, row.warnings, row.rounds) == ("ok", None, (), 0)
        measured = [field.name for field in dataclasses.fields(Row) if field.default is None]
        assert len(measured) > 20
        assert all(getattr(row, name) is None for name in measured)
    exact = rows[1]
    assert (exact.tokens, exact.tokens_out, exact.r_layers) == ((57, 49), 49, (8, 8))
    assert exact.gmacs == pytest.approx(0.84)
    assert exact.mac_ratio == pytest.approx(1 / 0.84)
    assert exact.options == "prop_attn=true"
    assert exact.testbed == "Some CPU, 2 threads on 2 CPUs, torch 2.14.1, timm 1.0.31, Python 3.11.2"


def test_accuracy_by_hand(store: Store) -> None:
    images = make_images(10, note="partial: 10 of 1797 images")
    store.put_images(images)
    # Right at r = 0: 9 (all but image 9). r = 8: also wrong at 0 and 5, right at 9, so b = 2 and c = 1.
    wrong = {KEYS[0]: {9}, KEYS[1]: {0, 5}, KEYS[2]: set(range(10))}
    miss5 = {KEYS[1]: {5}, KEYS[2]: {0, 1, 2}}
    for chunk in make_chunks(images, wrong, miss5):
        store.add_chunk(chunk)
    base, mid, bad = build_rows(store)
    assert [row.n_seen for row in (base, mid, bad)] == [10, 10, 10]
    assert [row.top1_correct for row in (base, mid, bad)] == [9, 8, 0]
    assert [row.top5_correct for row in (base, mid, bad)] == [10, 9, 7]
    assert [row.top1 for row in (base, mid, bad)] == [90.0, 80.0, 0.0]
    assert [row.ties for row in (base, mid, bad)] == [0, 0, 0]
    assert (base.delta_top1, base.delta_top1_lo, base.delta_top1_hi, base.mcnemar_p) == (0.0, 0.0, 0.0, 1.0)
    assert mid.delta_top1 == pytest.approx(-10.0)
    assert mid.mcnemar_p == pytest.approx(1.0)  # P(X <= 1 of 3) = 1/2, twice
    # Solutions of the score equation.
    assert (mid.delta_top1_lo, mid.delta_top1_hi) == pytest.approx((-45.35, 28.01), abs=0.01)
    assert bad.delta_top1 == pytest.approx(-90.0)
    assert bad.mcnemar_p == pytest.approx(2 / 2**9)
    assert (bad.top1_lo, bad.top1_hi) == pytest.approx((0.0, 27.75), abs=0.01)  # Wilson: z2 / (n + z2)
    assert base.dataset == "digits (partial: 10 of 1797 images)"
    assert base.dataset_digest == "d" * 64
    assert base.warnings == ()


def test_stopped_evaluation_covers_the_chunks_done(store: Store) -> None:
    images = make_images(10)
    store.put_images(images)
    assert all(row.warnings == ("PARTIAL_EVAL",) and row.n_seen is None for row in build_rows(store))
    chunks = make_chunks(images, {KEYS[0]: {0, 9}, KEYS[1]: {1, 5, 8}, KEYS[2]: {8, 9}})
    store.add_chunk(chunks[2])  # images 8 and 9
    store.add_chunk(chunks[0])  # images 0 to 3
    rows = build_rows(store)
    assert [row.warnings for row in rows] == [("PARTIAL_EVAL",)] * 3
    assert [row.n_seen for row in rows] == [6, 6, 6]
    assert [row.top1_correct for row in rows] == [4, 4, 4]
    store.add_chunk(chunks[1])
    assert [row.top1_correct for row in build_rows(store)] == [8, 7, 8]
    assert [row.warnings for row in build_rows(store)] == [()] * 3


@pytest.mark.parametrize(("processes", "seconds"), [(1, 6.0), (2, 4.0), (3, 2.0), (4, 2.0), (8, 2.0)])
def test_the_pace_is_that_of_the_process_with_most_batches(store: Store, processes: int, seconds: float) -> None:
    """Three batches of two seconds, on as many processes or on fewer or more."""
    images = make_images(10)
    store.put_images(images)
    session = store.begin_session({**TESTBED, "processes": processes})
    for chunk in make_chunks(images, {key: set() for key in KEYS}):
        store.add_chunk(dataclasses.replace(chunk, session=session, seconds=2.0, waited=0.5))
    for row in build_rows(store):
        assert row.img_per_s_accuracy == pytest.approx(10 / seconds)
        assert row.input_share == pytest.approx(25.0)


def test_nonfinite_logits_give_no_accuracy(store: Store) -> None:
    images = make_images(4)
    store.put_images(images)
    (chunk,) = make_chunks(images, {key: set() for key in KEYS})
    bad = dataclasses.replace(chunk.predictions[KEYS[1]], nonfinite=3)
    store.add_chunk(Chunk(0, {**chunk.predictions, KEYS[1]: bad}))
    base, broken, other = build_rows(store)
    assert (broken.status, broken.error) == ("nonfinite", "NaN or infinite logits on 3 of 4 images")
    assert broken.top1 is broken.top1_correct is broken.top5_correct is broken.delta_top1 is broken.mcnemar_p is None
    assert (base.status, base.top1, other.top1, other.delta_top1) == ("ok", 100.0, 100.0, 0.0)


def test_nonfinite_baseline_leaves_no_difference(store: Store) -> None:
    images = make_images(4)
    store.put_images(images)
    (chunk,) = make_chunks(images, {key: set() for key in KEYS})
    bad = dataclasses.replace(chunk.predictions[KEYS[0]], nonfinite=1)
    store.add_chunk(Chunk(0, {**chunk.predictions, KEYS[0]: bad}))
    other = build_rows(store)[1]
    assert (other.top1, other.delta_top1, other.delta_top1_lo, other.mcnemar_p) == (100.0, None, None, None)


def test_cell_that_failed_during_the_evaluation_has_no_accuracy(store: Store) -> None:
    images = make_images(8)
    store.put_images(images)
    first, second = make_chunks(images, {key: set() for key in KEYS})
    store.add_chunk(first)
    store.set_status(KEYS[1], "oom", "out of memory at batch size 4")
    store.add_chunk(Chunk(1, {key: p for key, p in second.predictions.items() if key != KEYS[1]}))
    base, failed, other = build_rows(store)
    assert (failed.status, failed.n_seen, failed.top1) == ("oom", None, None)
    assert (base.n_seen, other.n_seen, other.top1) == (8, 8, 100.0)


def test_clamped_rows_say_so_and_name_the_row_they_repeat(tmp_path: Path) -> None:
    with Store.open(tmp_path / "run", CONFIG) as store:
        store.put_cells(make_cells(0, 16, 24, 40, 48))
        rows = build_rows(store)
    assert [row.warnings for row in rows] == [(), (), ("R_CLAMPED",), ("R_CLAMPED",), ("R_CLAMPED", "SAME_AS_R40")]


def test_same_layers_under_other_options_are_no_duplicate(tmp_path: Path) -> None:
    plain = make_cell(16, prop_attn=False)
    with Store.open(tmp_path / "run", CONFIG) as store:
        store.put_cells([*make_cells(0, 16), (plain, make_resolved(16))])
        assert [row.warnings for row in build_rows(store)] == [(), (), ()]


def test_a_column_that_no_row_has_is_an_error(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tomebench.runs.rows.speed_columns", lambda *_, **__: {"img_per_sec": 1.0})
    with pytest.raises(TypeError, match="img_per_sec"):
        build_rows(store)


def test_rows_come_in_order_of_r(tmp_path: Path) -> None:
    with Store.open(tmp_path / "run", CONFIG) as store:
        store.put_cells(make_cells(8, 0, 24, 16))
        assert [row.r for row in build_rows(store)] == [0, 8, 16, 24]


def test_a_list_schedule_without_baseline_has_no_speedup_over_it(tmp_path: Path) -> None:
    cell = make_cell(0, schedule="list:0,0")
    with Store.open(tmp_path / "run", CONFIG) as store:
        store.put_cells([(cell, make_resolved(0))])
        for seed in range(6):
            store.add_round(make_round(times_of(store.cells(), 0.5, unwrapped=1.0), seed))
        (row,) = build_rows(store)
    assert row.speedup_vs_r0 is None
    assert row.speedup_vs_unwrapped == pytest.approx(2.0)


def test_memory_in_mib(store: Store) -> None:
    store.set_peak_memory(KEYS[1], 3 * 2**19)
    assert [row.peak_mem_mib for row in build_rows(store)] == [None, 1.5, None]


def test_sessions_on_two_machines(store: Store) -> None:
    add_rounds(store, 3, 1.0, 0.8, 0.5)
    same = store.begin_session({**TESTBED, "git": "abc"})
    store.add_round(make_round(times_of(CELLS, 1.0, 0.8, 0.5), session=same))
    assert "TESTBED_CHANGED" not in build_rows(store)[0].warnings
    idle = store.begin_session({**TESTBED, "device_name": "Idle CPU"})
    assert "Idle" not in build_rows(store)[0].testbed
    store.add_round(make_round(times_of(CELLS, 1.0, 0.8, 0.5), session=idle))
    row = build_rows(store)[0]
    assert "TESTBED_CHANGED" in row.warnings
    assert row.testbed.startswith("Some CPU, ")
    assert "; Idle CPU, " in row.testbed


def protocols(
    folder: Path, config: dict[str, Any] = CONFIG, cell: dict[str, Any] | None = None, **resolved: Any
) -> list[str]:
    """Protocol hashes of the rows of a run over r = 0, 8."""
    cells = [(make_cell(r, **cell or {}), make_resolved(r, **resolved)) for r in (0, 8)]
    with Store.open(folder, config) as store:
        store.put_cells(cells)
        return [row.protocol for row in build_rows(store)]


def test_protocol_is_what_was_asked_and_came_of_it(tmp_path: Path) -> None:
    same: list[Callable[[Path], list[str]]] = [
        lambda path: protocols(path, {**CONFIG, "data": "/b", "r": "0,8", "batch_size": "auto"}),
        lambda path: protocols(path, gmacs=0.5, gmacs_unwrapped=0.7),
        lambda path: protocols(path, attn_kernel="sdpa-math"),  # which kernel it is, is the library's choice
    ]
    other: list[Callable[[Path], list[str]]] = [
        lambda path: protocols(path, {**CONFIG, "seed": 1}),
        lambda path: protocols(path, {**CONFIG, "threads": 1}),
        lambda path: protocols(path, cell={"batch_size": 8}),
        lambda path: protocols(path, crop_pct=0.875),
        lambda path: protocols(path, attn_kernel="unfused"),
        lambda path: protocols(path, cell={"cuda_graphs": True}),
    ]
    expected = protocols(tmp_path / "run")
    assert len(set(expected)) == 2
    for i, make in enumerate(same):
        assert make(tmp_path / f"same{i}") == expected
    for i, make in enumerate(other):
        assert not set(make(tmp_path / f"other{i}")) & set(expected)


def test_protocol_covers_the_images(store: Store) -> None:
    before = build_rows(store)[0].protocol
    store.put_images(make_images(4))
    assert build_rows(store)[0].protocol != before


def test_reading_a_store_gives_the_same_rows(store: Store, tmp_path: Path) -> None:
    add_rounds(store, 7, 1.0, 0.8, 0.5, jitter=0.1)
    with Store.read(tmp_path / "run") as reader:
        assert build_rows(reader) == build_rows(store)


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_counts_are_those_of_a_loop_over_the_images(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    n = data.draw(st.integers(1, 3 * BATCH))
    images = make_images(n)
    top1 = data.draw(st.lists(st.lists(st.integers(0, 9), min_size=n, max_size=n), min_size=2, max_size=2))
    in5 = data.draw(st.lists(st.booleans(), min_size=n, max_size=n))
    with Store.open(tmp_path_factory.mktemp("rows") / "run", CONFIG) as store:
        store.put_cells(CELLS[:2])
        store.put_images(images)
        for index in data.draw(st.permutations(range(-(-n // BATCH)))):
            part = slice(index * BATCH, (index + 1) * BATCH)
            bits = np.array(in5[part], dtype=np.bool_)
            store.add_chunk(
                Chunk(index, {key: CellPredictions(np.array(t[part], np.uint16), bits) for key, t in zip(KEYS, top1)})  # noqa: B905
            )
        rows = build_rows(store)
    right = [sum(guess == i % 10 for i, guess in enumerate(guesses)) for guesses in top1]
    assert [row.top1_correct for row in rows] == right
    assert [row.top5_correct for row in rows] == [sum(in5)] * 2
    assert [row.n_seen for row in rows] == [n, n]
    delta = rows[1].delta_top1
    assert delta == pytest.approx(100 * (right[1] - right[0]) / n)
    assert ordered(rows[1])


def ordered(row: Row) -> bool:
    """The difference and top-1 of a row lie inside their intervals."""
    ends = ((row.delta_top1_lo, row.delta_top1, row.delta_top1_hi), (row.top1_lo, row.top1, row.top1_hi))
    return all(None not in e and e[0] - 1e-9 <= e[1] <= e[2] + 1e-9 for e in ends)  # type: ignore[operator]


def test_ordered_can_fail(store: Store) -> None:
    row = build_rows(store)[0]
    assert not ordered(row)
    inside = {
        "top1": 1.0,
        "top1_lo": 0.0,
        "top1_hi": 2.0,
        "delta_top1": 0.0,
        "delta_top1_lo": 0.0,
        "delta_top1_hi": 0.0,
    }
    assert ordered(dataclasses.replace(row, **inside))  # type: ignore[arg-type]
    assert not ordered(dataclasses.replace(row, **{**inside, "top1": 2.1}))  # type: ignore[arg-type]
