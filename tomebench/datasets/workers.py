"""Worker processes of the data loader: how many, shared memory they need, how they are started and ended."""

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
"""Most worker processes by default: more compete for memory bandwidth and shared memory."""
_WORTH_A_WORKER = 1000
"""Number of images below which starting workers, which import torch, takes longer than decoding."""

_TRACKER: Any = resource_tracker._resource_tracker


def default_workers(n_images: int, cpus: float) -> int:
    """How many worker processes suit a data set.

    Args:
        n_images: images to decode; 0 workers where starting them would take longer than decoding.
        cpus: CPUs that this process may use, quotas included.
    """
    return 0 if n_images < _WORTH_A_WORKER else max(1, min(int(cpus), MAX_WORKERS))


def lack_of_room(workers: int, batch_bytes: int, shared: Path = Path("/dev/shm")) -> str | None:
    """Why shared memory is too small for batches from workers; None if it is not, or that is unknown.

    Args:
        workers: processes, each of which holds two batches ahead.
        batch_bytes: of one batch.
        shared: folder of the system's shared memory.
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
    """Name of the script that this process runs, which its workers import again; None where there is none."""
    main = sys.modules["__main__"]
    file = getattr(main, "__file__", None)
    return None if file is None or getattr(main, "__spec__", None) is not None else Path(file).name


def worker_context() -> BaseContext:
    """Start method of workers: forked from a server process that has imported the heavy modules once."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context: Any = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tomebench.datasets.loader", "timm.data"])
    return context


def tracker() -> int | None:
    """Process id of Python's resource tracker, which frees shared memory if all processes are killed.

    None where a parent process has started it.
    """
    resource_tracker.ensure_running()
    found: int | None = _TRACKER._pid
    return found


def outlive_tracker(pid: int | None) -> None:
    """Do without a resource tracker that has died: a new one would print a traceback for each name it does not know.

    Args:
        pid: of the tracker that the workers were started with, as :func:`tracker` gave it.
    """
    if _TRACKER._pid == pid and _TRACKER._check_alive():
        return
    if _TRACKER._check_alive():
        os.kill(_TRACKER._pid, signal.SIGKILL)
    os.close(_TRACKER._fd)
    _TRACKER._fd = os.open(os.devnull, os.O_WRONLY)


def start_worker(_worker_id: int) -> None:
    """Set up a worker process: it ignores Ctrl-C, and ends when its parent does."""
    # Ctrl-C reaches the whole process group; the parent decides what happens and the batch in progress is still wanted.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # The parent of a worker is the fork server, so torch's own check would not notice that the sweep was killed.
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
