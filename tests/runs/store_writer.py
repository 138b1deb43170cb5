"""A process that fills a store until it is killed: ``python store_writer.py FOLDER``.

It goes on where the store ends, adds rounds and chunks in turn, and prints a line after each commit.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from store_samples import BATCH, CELLS, CONFIG, TESTBED, make_images, make_round, times_of

from tomebench.runs.store import Store
from tomebench.schema import CellPredictions, Chunk, Round

CHUNKS = 5000
IMAGES = make_images(CHUNKS * BATCH)


def nth_round(n: int, session: int) -> Round:
    """The n-th round that any process writes."""
    random = np.random.default_rng((1, n))
    return make_round(times_of(CELLS, *random.random(3)), seed=n, session=session)


def nth_chunk(n: int) -> Chunk:
    """The n-th chunk that any process writes."""
    random = np.random.default_rng((2, n))
    return Chunk(
        n,
        {
            cell.key: CellPredictions(random.integers(0, 10, BATCH, np.uint16), random.random(BATCH) < 0.5, ties=n % 3)
            for cell, _ in CELLS
        },
    )


def main(folder: Path) -> None:
    with Store.open(folder, CONFIG) as store:
        store.put_cells(CELLS)
        store.put_images(IMAGES)
        session = store.begin_session(TESTBED)
        rounds, chunks = len(store.rounds()), len(store.done_chunks())
        while True:
            store.add_round(nth_round(rounds, session))
            rounds += 1
            print("round", rounds, flush=True)
            store.add_chunk(nth_chunk(chunks))
            chunks += 1
            print("chunk", chunks, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
