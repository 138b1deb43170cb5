"""Processes that read images: where they come from, what they need, and how they end."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import sys
import threading
from multiprocessing import resource_tracker
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any

MAX_WORKERS = 16
"""More than this compete for memory bandwidth and shared memory rather than help."""
_WORTH_A_WORKER = 1000
"""Images below which starting workers (they import torch) takes longer than decoding."""

_TRACKER: Any = resource_tracker._resource_tracker


def default_workers(n_images: int, cpus: float) -> int:
    """How many worker processes suit a data set.

    Args:
        n_images: images to decode; none are started for so few that starting takes longer.
        cpus: CPUs that this process may use, quotas included.
    """
    return 0 if n_images < _WORTH_A_WORKER else max(1, min(int(cpus), MAX_WORKERS))


def lack_of_room(workers: int, batch_bytes: int, shared: Path = Path("/dev/shm")) -> str | None:
    """Why batches cannot come from workers; None if they can, or nobody knows.

    Args:
        workers: processes, each of which holds two batches ahead.
        batch_bytes: of one batch.
        shared: folder of what processes share, in memory.
    """
    try:
        free = shutil.disk_usage(shared).free
    except OSError:  # no Linux
        return None
    if not os.access(shared, os.W_OK):
        return f"{shared}, through which processes share memory, is read-only"
    if (needed := 2 * workers * batch_bytes) > free:
        return f"{shared}, through which processes share memory, has {free >> 20} MiB and {needed >> 20} are needed"
    return None


def script() -> str | None:
    """The script that this process runs, which its workers read once more; None where there is none."""
    main = sys.modules["__main__"]
    file = getattr(main, "__file__", None)
    return None if file is None or getattr(main, "__spec__", None) is not None else Path(file).name


def worker_context() -> BaseContext:
    """Where workers come from: a server process that has imported the heavy modules once and forks from there."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context: Any = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tomebench.datasets.loader", "timm.data"])
    return context


def tracker() -> int | None:
    """Process number of Python's resource tracker, which gives back what processes share if all of them are killed.

    None where a parent has started it.
    """
    resource_tracker.ensure_running()
    found: int | None = _TRACKER._pid
    return found


def outlive_tracker(pid: int | None) -> None:
    """Go on in silence where the tracker is gone: a new one prints a traceback for each name that it was never told of.

    Args:
        pid: of the tracker that was told of the first names, as :func:`tracker` gave it.
    """
    if _TRACKER._pid == pid and _TRACKER._check_alive():
        return
    if _TRACKER._check_alive():
        os.kill(_TRACKER._pid, signal.SIGKILL)
    os.close(_TRACKER._fd)
    _TRACKER._fd = os.open(os.devnull, os.O_WRONLY)


def start_worker(_worker_id: int) -> None:
    """Leave Ctrl-C to the parent, and end with it."""
    # Ctrl-C reaches the whole process group; the parent decides what happens and the batch in progress is still wanted.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # The parent of a forked-from-server worker is the server, so torch's own watch would not notice a killed sweep.
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
