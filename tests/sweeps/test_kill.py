"""kill -9 in the middle of a real sweep: the same command goes on, and the result is that of an undisturbed run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from noisy_images import write_data

from tomebench.errors import InputError
from tomebench.report.frames import read_csv
from tomebench.sweeps.store import Store

PROGRAM = Path(__file__).with_name("sweep_program.py")
IMAGES = 160
ACCURACY = ["r", "n_seen", "top1_correct", "top5_correct", "top1", "delta_top1", "delta_top1_lo", "delta_top1_hi"]


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], list[str]]:
    root = tmp_path_factory.mktemp("kill")
    data = write_data(root, (i % 50 for i in range(IMAGES)))
    flags = "--model test_vit --r 0,8 --device cpu --batch-size 2 --budget quick --workers 0 --threads 1 --quiet"
    return lambda out: [sys.executable, str(PROGRAM), "sweep", *flags.split(), *data, "--out", str(out)]


def start(command: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def finish(command: list[str]) -> None:
    """Run to the end, which must be quiet and successful."""
    done = subprocess.run(command, capture_output=True, timeout=2400, check=False)
    assert (done.stderr.decode(), done.returncode) == ("", 0)


def kill_when(process: subprocess.Popen[bytes], out: Path, reached: Callable[[Store], bool]) -> None:
    """kill -9 as soon as the store says so; fails if the process ends by itself or takes far too long."""
    deadline = time.monotonic() + 1200
    while process.poll() is None and time.monotonic() < deadline:
        try:
            with Store.read(out) as store:
                if reached(store):
                    os.kill(process.pid, signal.SIGKILL)
                    process.communicate()
                    return
        except InputError:
            pass  # the store is not there yet
        time.sleep(0.01)
    process.kill()
    pytest.fail(f"never got there: {process.communicate()[1].decode()}")


def test_kill_when_notices_a_process_that_ends_by_itself(tmp_path):
    with pytest.raises(pytest.fail.Exception, match="never got there"):
        kill_when(start([sys.executable, "-c", "pass"]), tmp_path, lambda store: True)


def test_a_killed_sweep_resumes_to_the_result_of_an_undisturbed_one(tmp_path, command):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    finish(command(whole))
    for reached in (
        lambda store: len(store.rounds()) >= 2,
        lambda store: len(store.done_chunks()) >= 40,
    ):
        kill_when(start(command(killed)), killed, reached)
        with Store.read(killed) as store:
            rounds, chunks, seen = store.rounds(), store.done_chunks(), store.predictions()
    assert 40 <= len(chunks) < IMAGES // 2

    finish(command(killed))
    with Store.read(killed) as store, Store.read(whole) as other:
        assert store.rounds()[: len(rounds)] == rounds
        assert store.done_chunks() == other.done_chunks()
        for key, kept in seen.items():
            np.testing.assert_array_equal(store.predictions()[key].top1[: len(kept.top1)], kept.top1)
            np.testing.assert_array_equal(store.predictions()[key].top1, other.predictions()[key].top1)
    resumed, expected = (read_csv(folder / "table.csv") for folder in (killed, whole))
    assert resumed[ACCURACY].equals(expected[ACCURACY])
    assert resumed["n_seen"].tolist() == [IMAGES, IMAGES]
