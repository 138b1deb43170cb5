"""Stored runs for comparisons: cells of made-up methods, with the images that each is wrong on."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from runs.store_samples import CONFIG, TESTBED, make_cell, make_chunks, make_images, make_resolved, make_round

from tomebench.runs.store import Store
from tomebench.schema import SENTINEL, UNWRAPPED, Chunk, ImageState

Wrong = Mapping[tuple[str, int], Collection[int]]


def write_run(
    folder: Path,
    wrong: Wrong,
    *,
    images: int | None = 40,
    rounds: int = 8,
    digest: str = "d" * 64,
    state: str = "",
    **changes: Any,
) -> Path:
    """Write a run folder.

    Args:
        folder: to write.
        wrong: by method and r, the images that the cell is wrong on; r = 0 takes 1 s, each r 0.02 s less.
        images: number of images; None: none are evaluated.
        rounds: of timing.
        digest: of the list of images.
        state: digest of the bytes of every image.
        changes: fields of all cells.
    """
    cells = [(make_cell(r, method=method, **changes), make_resolved(r)) for method, r in wrong]
    with Store.open(folder, CONFIG) as store:
        store.put_cells(cells)
        session = store.begin_session(TESTBED)
        for seed in range(rounds):
            times = {cell.key: 1 - 0.02 * cell.r for cell, _ in cells}
            store.add_round(make_round(times | {SENTINEL: 1.0, UNWRAPPED: 1.0}, seed, session))
        if images is not None:
            listed = make_images(images, digest)
            store.put_images(listed)
            by_key = {cell.key: {*wrong[cell.method, cell.r]} for cell, _ in cells}
            for chunk in make_chunks(listed, by_key):
                size = len(next(iter(chunk.predictions.values())).top1)
                read = tuple(ImageState("", state) for _ in range(size)) if state else ()
                store.add_chunk(Chunk(chunk.index, chunk.predictions, session, 1.0, 0.1, read))
    return folder


FIELD: Wrong = {
    ("tome", 0): (),
    ("tome", 4): (0,),
    ("tome", 8): (0, 1),
    ("greedy", 4): (),
    ("greedy", 8): (2, 3, 4),
}
"""Two methods on 40 images, of which r = 0 is right on all."""
