"""Small made-up cells, rounds and chunks for the tests of the store and of the rows derived from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tomebench.errors import TomebenchError
from tomebench.runs.store import Store
from tomebench.schema import SENTINEL, UNWRAPPED, Burst, Cell, CellPredictions, Chunk, ImageList, Resolved, Round

CONFIG: dict[str, Any] = {"model": "tiny", "r": "0..24:8", "budget": "quick", "seed": 0, "data": "/a"}
BATCH = 4
TESTBED = {
    "device": "cpu", "device_name": "Some CPU", "driver": "unavailable", "cuda": "unavailable", "cpu": "Some CPU",
    "usable_cpus": 2.0, "threads": 2, "platform": "Linux x86_64", "python": "3.11.2", "torch": "2.14.1",
    "torchvision": "0.29.1", "timm": "1.0.31", "numpy": "2.4.0", "git": "unavailable",
}  # fmt: skip


def make_cell(r: int = 0, **changes: Any) -> Cell:
    """A cell of a tiny model."""
    fields: dict[str, Any] = {
        "model": "tiny.tag", "weights": "random:0", "img_size": 32, "method": "tome",
        "options": (), "schedule": "constant", "r": r, "batch_size": BATCH, "dtype": "fp32",
        "device": "cpu",
    }  # fmt: skip
    return Cell(**{**fields, **changes})


def make_resolved(r: int = 0, **changes: Any) -> Resolved:
    """What :func:`make_cell` comes to: two blocks, 65 tokens, 1 GMAC and 0.02 less for each r."""
    removed = (min(r, 32), min(r, (65 - min(r, 32)) // 2))
    fields: dict[str, Any] = {
        "timm_id": "tiny.tag", "r_layers": removed, "tokens": (65 - removed[0], 65 - sum(removed)), "tokens_in": 65,
        "clamped": removed != (r, r), "gmacs": 1.0 - 0.02 * min(r, 32), "gmacs_unwrapped": 1.0, "gmacs_matching": 0.01,
        "params_m": 0.5, "attn_kernel": "sdpa", "crop_pct": 0.9, "interpolation": "bicubic", "mean": (0.5, 0.5, 0.5),
        "std": (0.25, 0.25, 0.25),
    }  # fmt: skip
    return Resolved(**{**fields, **changes})


def make_cells(*r: int) -> list[tuple[Cell, Resolved]]:
    return [(make_cell(x), make_resolved(x)) for x in r]


def make_round(times: Mapping[str, float], seed: int = 0, session: int = 1) -> Round:
    """A round with the given seconds per step, two steps a burst."""
    return Round(session, seed, tuple(Burst(name, 2, 2 * seconds) for name, seconds in times.items()))


def times_of(cells: Sequence[tuple[Cell, Resolved]], *step: float, unwrapped: float = 1.0) -> dict[str, float]:
    """Seconds per step of each cell in turn, the sentinel as fast as the first and the unwrapped model."""
    return {cell.key: t for (cell, _), t in zip(cells, step, strict=True)} | {SENTINEL: step[0], UNWRAPPED: unwrapped}


def add_rounds(store: Store, n: int, *step: float, unwrapped: float = 1.0, jitter: float = 0.0) -> None:
    """n rounds; every second one is slower by ``jitter`` for all variants but the baseline and its sentinel."""
    for i in range(n):
        factor = 1 + jitter * (i % 2)
        times = times_of(CELLS, step[0], *(t * factor for t in step[1:]), unwrapped=unwrapped * factor)
        store.add_round(make_round(times, seed=i))


def make_images(n: int, digest: str = "d" * 64, note: str | None = None) -> ImageList:
    """n images of ten classes; image i has class i % 10."""
    return ImageList("digits", digest, np.arange(n, dtype=np.int64) % 10, 10, note)


def make_chunks(images: ImageList, wrong: Mapping[str, set[int]], miss5: Mapping[str, set[int]] = {}) -> list[Chunk]:
    """Chunks over all images: by cell key, the images predicted as another class and those outside the top five."""
    chunks = []
    for index, start in enumerate(range(0, len(images.labels), BATCH)):
        part = np.arange(start, min(start + BATCH, len(images.labels)))
        predictions = {}
        for key, indices in wrong.items():
            top1 = (images.labels[part] + np.isin(part, list(indices))) % 10
            in_top5 = ~np.isin(part, list(miss5.get(key, ())))
            predictions[key] = CellPredictions(top1.astype(np.uint16), in_top5)
        chunks.append(Chunk(index, predictions))
    return chunks


CELLS = make_cells(0, 8, 16)
KEYS = [cell.key for cell, _ in CELLS]


def names(folder: Path) -> list[str]:
    """What lies in a folder."""
    return sorted(entry.name for entry in folder.iterdir())


def contents(store: Store) -> dict[str, Any]:
    """Everything a store gives back, as plain values that compare with ``==``."""
    images = store.images()
    return {
        "config": store.config,
        "cells": store.cells(),
        "rounds": store.rounds(),
        "sessions": store.sessions(),
        "statuses": store.statuses(),
        "memory": store.peak_memory(),
        "fact": store.get("batch_size"),
        "images": images and (images.name, images.digest, images.labels.tolist(), images.num_classes, images.note),
        "chunks": store.done_chunks(),
        "seen": store.seen().tolist(),
        "predictions": {
            key: (p.top1.tolist(), p.in_top5.tolist(), p.ties, p.nonfinite) for key, p in store.predictions().items()
        },
    }


def read_contents(folder: Path) -> dict[str, Any]:
    with Store.read(folder) as store:
        return contents(store)


def fill(store: Store) -> None:
    """Some of everything."""
    store.put_cells(CELLS)
    store.put("batch_size", BATCH)
    session = store.begin_session(TESTBED)
    for seed in range(8):
        store.add_round(make_round(times_of(CELLS, 1.0, 0.1 + seed / 7, 0.5), seed, session))
    images = make_images(10, note="partial")
    store.put_images(images)
    for chunk in make_chunks(images, {KEYS[0]: {9}, KEYS[1]: {0, 5}, KEYS[2]: {1}}, {KEYS[2]: {1, 7}}):
        store.add_chunk(chunk)
    store.set_status(KEYS[2], "failed", "it broke")
    store.set_peak_memory(KEYS[0], 123456789)


def message(error: pytest.ExceptionInfo[TomebenchError]) -> str:
    """The text of an error, which must be one line."""
    text = str(error.value)
    assert "\n" not in text
    return text
