"""Large runs: a store of a million bursts opens quickly, and memory does not grow with the images or the rounds."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from store_samples import CELLS, CONFIG, KEYS, TESTBED
from sweeps.forked import Forked

from tomebench.runs import checksums, database
from tomebench.runs.store import Store
from tomebench.schema import SENTINEL, UNWRAPPED, canonical_json

SIMULATION = Path(__file__).with_name("long_program.py")


@pytest.mark.bench
def test_a_million_bursts_open_in_under_ten_seconds(tmp_path: Path) -> None:
    names = [SENTINEL, UNWRAPPED, *(f"{KEYS[0][:-2]}{i:02}" for i in range(23))]  # a sweep of 23 values of r
    bursts = canonical_json([[name, 3, 0.1234567890123 + i] for i, name in enumerate(names)])
    rounds = 1_000_000 // len(names)
    with Store.open(tmp_path / "run", CONFIG) as store:
        store.put_cells(CELLS)
        store.begin_session(TESTBED)
        with database.transaction(store._connection):
            for number in range(1, rounds + 1):
                checksums.insert(store._connection, "rounds", number, 1, number, bursts)
    began = time.monotonic()
    with Store.open(tmp_path / "run", CONFIG) as store:
        opened = time.monotonic() - began
        read = store.rounds()
    print(f"\n{rounds * len(names)} bursts: opened and checked in {opened:.1f} s")
    assert (len(read), len(read[0].bursts)) == (rounds, len(names))
    assert opened < 10


@pytest.mark.parametrize("rounds", [100, pytest.param(1500, marks=pytest.mark.slow)])
def test_memory_is_flat_over_a_long_sweep(rounds: int, tmp_path: Path) -> None:
    """1 500 rounds and 3 000 batches are those of a real hour; the model takes no time. And a part of that."""
    program = Forked([str(SIMULATION), str(rounds), str(tmp_path / "sizes")], tmp_path / "errors")
    assert program.wait(3000) == 0, program.said()
    phases = {}
    for line in (tmp_path / "sizes").read_text().splitlines():
        name, *sizes = line.split()
        phases[name] = [int(size) for size in sizes]
    assert set(phases) == {"timing", "accuracy"}
    for name, sizes in phases.items():
        settled, last = sizes[len(sizes) // 5], max(sizes[-len(sizes) // 5 :])
        print(f"{name}: {settled / 2**20:.0f} MiB after a fifth, {last / 2**20:.0f} MiB at the end")
        assert len(sizes) >= rounds
        assert last < 1.05 * settled
