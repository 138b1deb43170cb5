"""kill -9 in the middle of a real sweep: the same command goes on, and the result is that of an undisturbed run."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from forked import Forked
from noisy_images import write_data

from tomebench.errors import InputError
from tomebench.report.frames import read_csv
from tomebench.runs.store import Store

PROGRAM = Path(__file__).with_name("sweep_program.py")
IMAGES = 160
ACCURACY = ["r", "n_seen", "top1_correct", "top5_correct", "top1", "delta_top1", "delta_top1_lo", "delta_top1_hi"]


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path, str], list[str]]:
    root = tmp_path_factory.mktemp("kill")
    data = write_data(root, (i % 50 for i in range(IMAGES)))
    flags = "--model test_vit --img-size 64 --device cpu --batch-size 2 --budget quick --workers 0 --threads 1 --quiet"
    return lambda out, r: [str(PROGRAM), "sweep", *flags.split(), *data, "--r", r, "--out", str(out)]


def start(command: list[str], errors: Path) -> Forked:
    return Forked(command, errors)


def finish(command: list[str], errors: Path) -> None:
    """Run to the end, which must be quiet and successful."""
    process = start(command, errors)
    assert (process.wait(2400), process.said()) == (0, "")


def kill_when(process: Forked, out: Path, reached: Callable[[Store], bool]) -> None:
    """kill -9 as soon as the store says so; fails if the process ends by itself or takes far too long."""
    deadline = time.monotonic() + 1200
    while process.code is None and time.monotonic() < deadline:
        try:
            with Store.read(out) as store:
                if reached(store):
                    process.kill()
                    return
        except InputError:
            pass  # the store is not there yet
        time.sleep(0.02)
    process.kill()
    pytest.fail(f"never got there: {process.said()}")


def test_kill_when_notices_a_process_that_ends_by_itself(tmp_path):
    with pytest.raises(pytest.fail.Exception, match="never got there"):
        kill_when(start([os.devnull], tmp_path / "errors"), tmp_path, lambda store: True)


def test_a_killed_sweep_resumes_to_the_result_of_an_undisturbed_one(tmp_path, command):
    """Also where the cells come one after the other, each in a sweep of its own, and every one of them is killed."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    finish(command(whole, "0,4,8"), tmp_path / "errors")
    for r, reached in (
        ("0,8", lambda store: len(store.rounds()) >= 2),
        ("0,8", lambda store: len(store.done_chunks()) >= 40),
        ("0,4", lambda store: len(store.rounds()) >= 8),
        ("0,4,8", lambda store: len(store.done_chunks()) >= 50),
    ):
        kill_when(start(command(killed, r), tmp_path / "errors"), killed, reached)
        with Store.read(killed) as store:
            rounds, chunks, seen = store.rounds(), store.done_chunks(), store.predictions()
    assert 50 <= len(chunks) < IMAGES // 2

    finish(command(killed, "0,4,8"), tmp_path / "errors")
    with Store.read(killed) as store, Store.read(whole) as other:
        assert store.rounds()[: len(rounds)] == rounds
        assert store.done_chunks() == other.done_chunks()
        for key, kept in seen.items():
            np.testing.assert_array_equal(store.predictions()[key].top1[: len(kept.top1)], kept.top1)
        for key, found in other.predictions().items():
            np.testing.assert_array_equal(store.predictions()[key].top1, found.top1)
            np.testing.assert_array_equal(store.predictions()[key].in_top5, found.in_top5)
    resumed, expected = (read_csv(folder / "table.csv") for folder in (killed, whole))
    assert resumed[ACCURACY].equals(expected[ACCURACY])
    assert resumed["n_seen"].tolist() == [IMAGES, IMAGES, IMAGES]
