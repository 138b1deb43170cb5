"""Kept memory, in processes of their own: it cannot be taken back."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import ctypes, resource, sys
import torch
from tomebench.measure.allocator import describe_memory, keep_memory

ctypes.CDLL(None).prctl(41, 1, 0, 0, 0)  # PR_SET_THP_DISABLE: a fault for every 4 KiB, wherever this runs
if sys.argv[1] == "keep":
    assert keep_memory() and keep_memory()
def work():  # what a pass does: two blocks that live at the same time, freed again
    first = torch.ones(9 * 2**20)  # 36 MiB: beyond what the C library would ever keep by itself
    return (first + first).sum()
for _ in range(8):  # until its heap is as large as it gets, which was seen to take one to four of them
    work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    work()
print(describe_memory(), resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(kept: bool) -> tuple[str, int]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, "keep" if kept else "default"], capture_output=True, text=True, check=True
    )
    word, count = done.stdout.split()
    return word, int(count)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_kept_memory_is_not_fetched_again() -> None:
    (kept, few), (default, many) = faults(True), faults(False)
    assert (kept, default) == ("kept", "default")
    assert few < 100
    assert many > 1000  # or the test shows nothing


def test_on_another_system_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    from tomebench.measure import allocator

    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    monkeypatch.setattr(allocator, "_kept", False)
    assert not allocator.keep_memory()
    assert allocator.describe_memory() == "default"


def test_another_allocator_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    from tomebench.measure import allocator

    monkeypatch.setenv("LD_PRELOAD", "/usr/lib/libjemalloc.so.2")
    monkeypatch.setattr(allocator, "_kept", False)
    assert not allocator.keep_memory()
