"""Batches: fixed order and membership, padding, skipping, and the same bits and errors with and without workers."""

import dataclasses
import gc
import os
import pickle
import shutil
import signal
import subprocess
import sys
from multiprocessing import resource_tracker
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from painter import Painter, image_set, read, to_tensor

from tomebench.datasets import loader
from tomebench.datasets.loader import batch_count, batches
from tomebench.datasets.workers import MAX_WORKERS, default_workers, lack_of_room
from tomebench.errors import DataError


def indices(batch):
    """Which images a batch holds, padding included."""
    return (batch.images[:, 0, 0, 0].long() + 256 * batch.images[:, 1, 0, 0].long()).tolist()


@given(st.integers(0, 40), st.integers(1, 12), st.data())
def test_every_image_once_in_order(n, batch_size, data):
    found = read(n, batch_size)
    assert [b.index for b in found] == list(range(batch_count(n, batch_size)))
    assert [i for b in found for i in indices(b)[: b.n_valid]] == list(range(n))
    for batch in found:
        assert batch.images.shape == (batch_size, 3, 2, 4)
        assert batch.labels.tolist() == [3 * i for i in indices(batch)]
        assert 1 <= batch.n_valid <= batch_size
        assert set(indices(batch)[batch.n_valid :]) <= {n - 1}
    skip = data.draw(st.sets(st.integers(0, 40)))
    rest = read(n, batch_size, skip=skip)
    assert [b.index for b in rest] == [b.index for b in found if b.index not in skip]
    for batch in rest:
        assert torch.equal(batch.images, found[batch.index].images)
        assert batch.n_valid == found[batch.index].n_valid


def test_skipped_images_are_not_opened():
    assert [b.index for b in read(9, 3, skip={1}, painter=Painter(broken=4))] == [0, 2]
    with pytest.raises(DataError):
        read(9, 3, skip={2}, painter=Painter(broken=4))


def test_workers_change_nothing():
    torch.randn(300, 300) @ torch.randn(300, 300)  # this process has used torch's threads
    here, there = read(23, 4, skip={2}), read(23, 4, workers=2, skip={2})
    assert [b.index for b in there] == [0, 1, 3, 4, 5]
    for a, b in zip(here, there, strict=True):
        assert torch.equal(a.images, b.images)
        assert torch.equal(a.labels, b.labels)
        assert (a.index, a.n_valid) == (b.index, b.n_valid)


def test_more_workers_than_batches_and_none_left():
    assert [b.index for b in read(5, 3, workers=40, skip={0})] == [1]
    assert read(5, 3, workers=2, skip={0, 1}) == []


@pytest.mark.parametrize("workers", [0, 2])
def test_unreadable_image_is_named_in_one_line(workers):
    stream = batches(image_set(12, Painter(broken=7)), to_tensor, 3, workers=workers)
    assert [next(stream).index, next(stream).index] == [0, 1]
    with pytest.raises(DataError) as caught:
        next(stream)
    assert str(caught.value) == "cannot read image n01440764/a.JPEG: empty file; replace it or take it out"


def test_bug_in_a_worker_stays_a_bug():
    with pytest.raises(RuntimeError, match="a bug"):
        read(4, 2, workers=1, painter=Painter(buggy=3))


@pytest.mark.parametrize(("way", "bad"), [("deadly", 0), ("deadly", 3), ("frozen", 3)])
def test_a_worker_that_dies_or_hangs_is_replaced_once(monkeypatch, way, bad):
    monkeypatch.setattr(loader, "SECONDS", 8.0)  # a worker has to start within it, too
    said = []
    found = read(8, 2, workers=2, painter=Painter(**{way: bad}), trouble=said.append)
    assert [indices(batch) for batch in found] == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert len(said) == 1
    assert "was lost" in said[0]
    assert "its images are read in this one" in said[0]
    assert "\n" not in said[0]


def test_the_tracker_of_what_processes_share_may_be_killed(capfd):
    """The kernel may choose it where memory is short; no image is in it."""
    stream = batches(image_set(8), to_tensor, 2, workers=2)
    found = [indices(next(stream))]
    tracker = resource_tracker._resource_tracker
    os.kill(tracker._pid, signal.SIGKILL)
    os.waitpid(tracker._pid, 0)
    found += map(indices, stream)
    found += map(indices, read(2, 2, workers=1))
    gc.collect()
    assert found == [[0, 1], [2, 3], [4, 5], [6, 7], [0, 1]]
    assert capfd.readouterr().err == ""


def test_a_worker_lost_long_after_another_counts_as_the_first(monkeypatch, tmp_path):
    monkeypatch.setattr(loader, "_RARE", 2)
    said = []
    found = read(
        20, 2, workers=1, painter=Painter(deadly=0, also=16, marker=str(tmp_path / "killed")), trouble=said.append
    )
    assert [batch.index for batch in found] == list(range(10))
    assert len(said) == 2


def test_workers_that_die_again_end_the_pass_in_one_line():
    with pytest.raises(DataError) as caught:
        read(8, 2, workers=1, painter=Painter(deadly=0, also=4))
    assert "processes that read images are lost again and again" in str(caught.value)
    assert "use fewer --workers, or 0" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_images_that_never_come_end_the_pass_within_its_limit(monkeypatch):
    monkeypatch.setattr(loader, "SECONDS", 0.2)
    monkeypatch.setattr(loader, "_POLL", 1)
    monkeypatch.setattr(loader, "SECONDS_PER_IMAGE", 0.0)
    with pytest.raises(DataError) as caught:
        read(4, 2, workers=1, painter=Painter(silent=0))
    assert "batch 0 was not read within 0 s, nor by a worker; check the disk" in str(caught.value)


def test_stopping_early_is_clean():
    stream = batches(image_set(40), to_tensor, 2, workers=2)
    assert next(stream).index == 0
    stream.close()


def test_error_survives_the_way_back_from_a_worker():
    error = pickle.loads(pickle.dumps(DataError("one line")))
    assert (type(error), str(error)) == (DataError, "one line")


def test_default_workers():
    assert default_workers(300, 8) == 0
    assert default_workers(50_000, 8) == 8
    assert default_workers(50_000, 1.5) == default_workers(50_000, 0.5) == 1
    assert default_workers(50_000, 200) == MAX_WORKERS


def test_without_room_for_batches_no_workers_are_started(tmp_path, monkeypatch):
    """A container has 64 MiB of shared memory unless it asks for more."""
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=10 * 2**20))
    told = []
    plain = read(9, 2)
    found = read(9, 2, workers=2, bytes_per_image=3 * 2**20, trouble=told.append)
    assert all(torch.equal(a.images, b.images) for a, b in zip(plain, found, strict=True))
    assert told == [
        "/dev/shm, through which processes share memory, has 10 MiB and 24 are needed; images are read in this process"
    ]
    assert lack_of_room(2, 2**20) is None
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert lack_of_room(2, 2**20) == "/dev/shm, through which processes share memory, is read-only"


def run_script(folder, text, **environment):
    """The last line on stderr of a script of that text, which imports what the tests here read."""
    (folder / "script.py").write_text(text)
    paths = os.pathsep.join([str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": paths, **environment}
    done = subprocess.run([sys.executable, "script.py"], cwd=folder, env=environment, capture_output=True, text=True)
    return done.stderr.splitlines()[-1]


def test_a_name_too_long_for_sockets_is_said(tmp_path):
    long = tmp_path / ("a" * 60) / ("b" * 60)
    long.mkdir(parents=True)
    guarded = "from painter import read\nif __name__ == '__main__':\n    read(4, 2, workers=1)\n"
    said = run_script(tmp_path, guarded, TMPDIR=str(long))
    assert f"has a name of {len(str(long))} characters: set TMPDIR=/tmp, or use --workers 0" in said


def test_a_script_without_its_guard_is_named(tmp_path):
    said = run_script(tmp_path, "from painter import read\nread(4, 2, workers=1)\n")
    assert "put what script.py does under if __name__ == '__main__':" in said


@pytest.mark.parametrize("workers", [0, 1])
def test_a_worker_of_other_code_gives_no_images(workers, monkeypatch):
    """It imports what is there when it starts, hours after the process that asks for it."""
    stream = loader._stream

    def of_other_code(reader, *arguments):
        return stream(dataclasses.replace(reader, code="0123456789abcdef"), *arguments)

    monkeypatch.setattr(loader, "_stream", of_other_code)
    with pytest.raises(DataError, match="the files of tomebench have changed since this process began"):
        read(4, 2, workers=workers)
