"""From a stored run to what the gate compares, worked out by hand: which way round, per image, and what is left out."""

from __future__ import annotations

import dataclasses

import pytest
from runs.store_samples import BATCH, CELLS, KEYS, TESTBED, add_rounds, make_chunks, make_images, make_round, times_of

from tomebench.errors import ModelError
from tomebench.gate.compare import Limits, compare
from tomebench.gate.records import CellRecord, Snapshot
from tomebench.gate.snapshot import run_snapshot, with_static
from tomebench.runs.store import Store
from tomebench.runs.testbed import fingerprint
from tomebench.schema import SENTINEL, Burst


def of(snapshot: Snapshot, r: int) -> CellRecord:
    return next(cell for cell in snapshot.cells if cell.asked.r == r)


def test_speeds_are_per_image_and_beside_what_they_are_compared_with(store: Store) -> None:
    add_rounds(store, 7, 1.0, 0.8, 0.5, unwrapped=0.9)
    snapshot = run_snapshot(store)
    base, fast = of(snapshot, 0).speed, of(snapshot, 16).speed
    assert base is not None
    assert fast is not None
    assert (base.seconds, base.reference) == ((1.0 / BATCH,) * 7, (0.9 / BATCH,) * 7)  # beside the unwrapped model
    assert (fast.seconds, fast.reference) == ((0.5 / BATCH,) * 7, (1.0 / BATCH,) * 7)  # beside r = 0
    assert {cell.speed.testbed for cell in snapshot.cells if cell.speed} == {fingerprint(TESTBED)}


def test_slower_is_worse_and_faster_is_better(store: Store) -> None:
    add_rounds(store, 7, 1.0, 0.8, 0.5)
    before = run_snapshot(store)
    for i in range(7, 50):  # the median is theirs now
        store.add_round(make_round(times_of(CELLS, 1.0, 0.96, 0.4), seed=i))
    found = {f.cell: f.verdict for f in compare(before, run_snapshot(store), ["speed"], Limits())}
    assert found == {"all r": "same", "r=0": "same", "r=8": "worse", "r=16": "better"}


def test_answers_are_those_of_each_image(store: Store) -> None:
    images = make_images(10)
    store.put_images(images)
    for chunk in make_chunks(images, {KEYS[0]: {9}, KEYS[1]: {0, 5}, KEYS[2]: set()}):
        store.add_chunk(chunk)
    found = of(run_snapshot(store), 8).accuracy
    assert found is not None
    assert found.values().tolist() == [i not in (0, 5) for i in range(10)]
    assert (found.n_seen, found.complete, found.digest) == (10, True, images.digest)


def test_a_part_of_the_images_is_not_all_of_them(store: Store) -> None:
    images = make_images(10)
    store.put_images(images)
    store.add_chunk(make_chunks(images, {key: set() for key in KEYS})[0])
    found = of(run_snapshot(store), 8).accuracy
    assert found is not None
    assert (found.n_seen, found.complete) == (BATCH, False)


def test_logits_that_are_not_finite_are_no_answers(store: Store) -> None:
    images = make_images(BATCH)
    store.put_images(images)
    (chunk,) = make_chunks(images, {key: set() for key in KEYS})
    bad = dataclasses.replace(chunk.predictions[KEYS[1]], nonfinite=1)
    store.add_chunk(dataclasses.replace(chunk, predictions={**chunk.predictions, KEYS[1]: bad}))
    cell = of(run_snapshot(store), 8)
    assert (cell.accuracy, cell.nonfinite) == (None, True)


def test_a_cell_that_failed_says_why(store: Store) -> None:
    add_rounds(store, 6, 1.0, 0.8, 0.5)
    store.set_status(KEYS[2], "oom", "out of memory at batch size 4")
    assert [cell.problem for cell in run_snapshot(store).cells] == [None, None, "out of memory at batch size 4"]


def test_what_forbids_using_a_speed_comes_along(store: Store) -> None:
    for i in range(8):
        store.add_round(make_round({**times_of(CELLS, 1.0, 0.8, 0.5), SENTINEL: 1.1}, seed=i))
    assert {cell.speed.invalid for cell in run_snapshot(store).cells if cell.speed} == {("AA_FAILED",)}


def test_a_recompiled_cell_has_no_speed_to_use_and_its_accuracy(store: Store) -> None:
    images = make_images(BATCH)
    store.put_images(images)
    store.add_chunk(make_chunks(images, {key: set() for key in KEYS})[0])
    for i in range(6):
        done = make_round(times_of(CELLS, 1.0, 0.8, 0.5), seed=i)
        bursts = tuple(Burst(b.variant, b.steps, b.seconds, int(b.variant == KEYS[1])) for b in done.bursts)
        store.add_round(dataclasses.replace(done, bursts=bursts))
    cell = of(run_snapshot(store), 8)
    assert cell.problem is None
    assert cell.accuracy is not None
    assert cell.speed is not None
    assert cell.speed.invalid == ("RECOMPILED",)


def test_a_static_tier_of_something_else_is_refused(store: Store) -> None:
    add_rounds(store, 6, 1.0, 0.8, 0.5)
    snapshot = run_snapshot(store)
    assert with_static(snapshot, snapshot) == snapshot
    fewer = snapshot.model_copy(update={"cells": snapshot.cells[:2]})
    with pytest.raises(ModelError, match="r=16 is not among"):
        with_static(snapshot, fewer)
    cell = snapshot.cells[0]
    other = cell.model_copy(update={"asked": cell.asked.model_copy(update={"weights": "random:9"})})
    with pytest.raises(ModelError, match="weights random:0 -> random:9"):
        with_static(snapshot, snapshot.model_copy(update={"cells": (other, *snapshot.cells[1:])}))
