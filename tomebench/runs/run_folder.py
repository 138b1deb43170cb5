"""Prepare the folder of a new run: create it, refuse foreign files and a disk that is nearly full."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

from tomebench.errors import RunError, StorageError
from tomebench.runs import database, lock

MIN_FREE_MIB = 64
"""Free space that a run folder needs before anything is measured, in MiB."""


def prepare(directory: Path) -> None:
    """Create the folder; refuse one that holds other files but no run, and a nearly full disk.

    Raises:
        RunError: it is no folder, or holds other files.
        StorageError: it cannot be used, or there is no room.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        names = {entry.name for entry in directory.iterdir()}
        free = shutil.disk_usage(directory).free
    except (FileExistsError, NotADirectoryError) as error:
        raise RunError(f"{directory} is not a folder, or lies under a file; use --out another folder") from error
    except OSError as error:
        message = f"{directory} cannot be used: {error.strerror}; use --out another folder"
        raise (RunError if error.errno == errno.ENAMETOOLONG else StorageError)(message) from error
    if database.FILE not in names and (foreign := sorted(names - database.OWN_FILES - lock.FILES)):
        raise RunError(
            f"{directory} holds no run but other files ({foreign[0]!r}{', ...' if len(foreign) > 1 else ''}); "
            "use --out an empty or a new folder"
        )
    if free < MIN_FREE_MIB * 2**20:
        raise StorageError(f"the disk of {directory} has {free / 2**20:.0f} MiB left; free at least {MIN_FREE_MIB} MiB")
