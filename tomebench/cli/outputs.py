"""Check that an output file named by a flag can be written, before anything is measured for it."""

from __future__ import annotations

import errno
from pathlib import Path

from tomebench.errors import InputError, StorageError
from tomebench.whole import check_writable

_STORAGE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT)


def writable(flag: str, path: Path) -> None:
    """Raise unless an output file can be written.

    Args:
        flag: that names the file, for the message.
        path: of the file.

    Raises:
        InputError: the path is that of a folder.
        StorageError: it cannot be written, or the disk is full.
    """
    try:
        check_writable(path)
    except OSError as error:
        kind = StorageError if error.errno in _STORAGE else InputError
        raise kind(f"{flag} {path}: {error.strerror}; give a file that can be written") from error
