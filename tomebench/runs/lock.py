"""One writer per run folder: an advisory file lock that the kernel releases when its process ends, however it ends.

The lock is ``flock`` on a small file that names its holder. The file by itself locks nothing, so one left behind by a
killed process is no obstacle.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType

from tomebench.errors import RunError, StorageError

FILE = "run.lock"
"""Name of the lock file in a run folder."""
PROCESSES = "processes.lock"
"""Name of the lock file of a whole sweep, which may be several processes that hold the other lock in turn."""
FILES = frozenset({FILE, PROCESSES})


class RunLock:
    """A held lock; released by :meth:`release`, at the end of a ``with`` block, or when the process ends."""

    def __init__(self, path: Path, fd: int) -> None:
        self._path = path
        self._fd: int | None = fd
        # flock belongs to the open file, which forked data workers share: without this, workers that outlive a killed
        # parent by some seconds would keep its lock.
        held = weakref.WeakMethod(self._close)
        os.register_at_fork(after_in_child=lambda: (close := held()) and close())

    @classmethod
    def acquire(cls, directory: Path, name: str = FILE) -> RunLock:
        """Lock an existing run folder.

        Args:
            directory: the folder.
            name: name of the lock file, one of FILES.

        Raises:
            RunError: another process holds it; the message names that process.
            StorageError: the folder cannot be written, or its file system knows no locks.
        """
        path = directory / name
        try:
            while True:
                # Do not follow a link: its target would be emptied.
                fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    if _is_at(fd, path):
                        holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": _now()}
                        os.ftruncate(fd, 0)
                        os.pwrite(fd, json.dumps(holder, allow_nan=False).encode(), 0)
                        return cls(path, fd)
                except BlockingIOError as error:
                    message = f"{directory} is in use by {_holder(fd)}; wait for it to end, or use --out another folder"
                    os.close(fd)
                    raise RunError(message) from error
                except BaseException:
                    os.close(fd)
                    raise
                os.close(fd)  # the holder removed this file between open and flock: try the next one
        except OSError as error:
            reason = error.strerror or str(error)
            raise StorageError(f"{path} cannot be locked ({reason}); use --out another folder") from error

    def release(self) -> None:
        """Release the lock and remove its file. Safe to call twice."""
        if self._fd is not None:
            # Removed while still held; a process that opened it before sees that it is gone and tries again.
            self._path.unlink(missing_ok=True)
            self._close()

    def _close(self) -> None:
        if self._fd is not None:
            fd, self._fd = self._fd, None
            os.close(fd)

    def __enter__(self) -> RunLock:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


@contextmanager
def held(directory: Path, inside: bool = False) -> Iterator[None]:
    """Hold the lock of a whole sweep, also between the several processes that measure it.

    Args:
        directory: the folder.
        inside: this process is one of several whose parent holds the lock.

    Raises:
        RunError, StorageError: as :meth:`RunLock.acquire`.
    """
    with nullcontext() if inside else RunLock.acquire(directory, PROCESSES):
        yield


def _is_at(fd: int, path: Path) -> bool:
    """Whether the open file is still the one at ``path``."""
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except FileNotFoundError:
        return False


def _holder(fd: int) -> str:
    """Process named in a lock file, in words."""
    try:
        holder = json.loads(os.pread(fd, 4096, 0))
        return f"process {int(holder['pid'])} on {holder['host']} since {holder['since']}"
    except (ValueError, KeyError, TypeError):
        return "another process"


def _now() -> str:
    return datetime.now(UTC).isoformat(sep=" ", timespec="seconds")
