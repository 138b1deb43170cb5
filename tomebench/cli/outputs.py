"""Files that flags name, known to be writable before anything is measured for them."""

from __future__ import annotations

import errno
from pathlib import Path

from tomebench.errors import InputError, StorageError
from tomebench.whole import check_writable

_STORAGE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT)


def writable(flag: str, path: Path) -> None:
    """See that a file can be written that a flag names, before anything is measured for it.

    Raises:
        InputError: it is no file.
        StorageError: it may not be written, or there is no room.
    """
    try:
        check_writable(path)
    except OSError as error:
        kind = StorageError if error.errno in _STORAGE else InputError
        raise kind(f"{flag} {path}: {error.strerror}; give a file that can be written") from error
