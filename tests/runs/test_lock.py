"""One writer per folder: the second is refused by name, the dead are no obstacle, and nobody slips in between."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from store_samples import CONFIG, names

from tomebench.errors import RunError, StorageError
from tomebench.runs.lock import RunLock
from tomebench.runs.store import Store

HOLD = """
import os, sys, time
from pathlib import Path
from tomebench.runs.lock import RunLock
lock = RunLock.acquire(Path(sys.argv[1]))
worker = os.fork()
if worker == 0:
    time.sleep(60)
    os._exit(0)
print(worker, flush=True)
time.sleep(60)
"""
RACE = """
import os, sys
from pathlib import Path
from tomebench.errors import RunError
from tomebench.runs.lock import RunLock
folder, inside = Path(sys.argv[1]), Path(sys.argv[1]) / "inside"
held = 0
while held < 60:
    try:
        with RunLock.acquire(folder):
            os.close(os.open(inside, os.O_CREAT | os.O_EXCL))  # fails if anybody else is inside
            held += 1
            inside.unlink()
    except RunError as error:
        assert "is in use by" in str(error)
"""


def python(program: str, *arguments: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.Popen(
        [sys.executable, "-c", program, *arguments], stdout=subprocess.PIPE, text=True, env=environment
    )


@pytest.fixture
def first(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the lock of ``tmp_path``, and has forked a worker that outlives it."""
    with python(HOLD, str(tmp_path)) as process:
        assert process.stdout is not None
        worker = int(process.stdout.readline())
        yield process
        process.kill()
        os.kill(worker, signal.SIGKILL)


def test_the_second_process_names_the_first(tmp_path: Path, first: subprocess.Popen[str]) -> None:
    for _ in range(2):
        with pytest.raises(RunError) as error:
            Store.open(tmp_path, CONFIG)
        assert f"in use by process {first.pid} on {socket.gethostname()} since 2" in str(error.value)
        assert "\n" not in str(error.value)
    assert names(tmp_path) == ["run.lock"]


def test_the_lock_of_a_dead_process_is_no_obstacle(tmp_path: Path, first: subprocess.Popen[str]) -> None:
    first.kill()
    first.wait()
    assert names(tmp_path) == ["run.lock"]
    # Although the worker that the process forked is still there. It lets go of the lock as the first thing it does,
    # which on a busy machine may not have been its turn yet.
    deadline = time.monotonic() + 300
    while True:
        try:
            Store.open(tmp_path, CONFIG).close()
            break
        except RunError:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    assert names(tmp_path) == ["run.sqlite"]


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_cannot_release_its_parents_lock(tmp_path: Path) -> None:
    with RunLock.acquire(tmp_path) as lock:
        pid = os.fork()
        if pid == 0:
            lock.release()
            os._exit(0)
        os.waitpid(pid, 0)
        with pytest.raises(RunError):
            RunLock.acquire(tmp_path)


def test_a_second_store_in_the_same_process_is_refused(tmp_path: Path) -> None:
    with Store.open(tmp_path, CONFIG):
        with pytest.raises(RunError, match=f"in use by process {os.getpid()} "):
            Store.open(tmp_path, CONFIG)
        with Store.read(tmp_path) as reader:
            assert reader.config == CONFIG
    Store.open(tmp_path, CONFIG).close()


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"[1]", b'{"pid": "x"}', b"{" * 5000])
def test_any_lock_file_can_be_taken_over(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "run.lock").write_bytes(content)
    with RunLock.acquire(tmp_path):
        with pytest.raises(RunError, match=f"process {os.getpid()} "):
            RunLock.acquire(tmp_path)
        (tmp_path / "run.lock").write_bytes(content)
        with pytest.raises(RunError, match="in use by another process"):
            RunLock.acquire(tmp_path)
    assert names(tmp_path) == []


def test_release_twice(tmp_path: Path) -> None:
    lock = RunLock.acquire(tmp_path)
    lock.release()
    with RunLock.acquire(tmp_path):
        lock.release()  # must not remove the other's file
        with pytest.raises(RunError):
            RunLock.acquire(tmp_path)


def test_a_folder_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(StorageError) as error:
        RunLock.acquire(tmp_path / "gone")
    assert "cannot be locked (No such file or directory)" in str(error.value)


def test_never_two_at_once(tmp_path: Path) -> None:
    processes = [python(RACE, str(tmp_path)) for _ in range(3)]
    assert [process.wait(timeout=600) for process in processes] == [0, 0, 0]
    for process in processes:
        assert process.stdout is not None
        process.stdout.close()
    assert names(tmp_path) == []
