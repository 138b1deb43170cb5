"""Read files that a user or data set names: only regular files of limited size, never pipes or devices that block."""

from __future__ import annotations

import errno
import os
import stat

_MOST = 2**30
"""Most bytes of a file that is read into memory, unless the caller sets another limit; enough for any image."""


def read_bytes(path: str, offset: int = 0, size: int | None = None, *, most: int = _MOST) -> bytes:
    """Read a file, an image or a text, or a part of it, into memory.

    Args:
        path: of a regular file.
        offset: byte at which to begin, where the file holds more than is wanted.
        size: bytes that are wanted; None is the whole file.
        most: most bytes to read.

    Raises:
        OSError: there is no such regular file, it cannot be read, has more bytes, or ends before ``size`` of them.
    """
    file, whole = open_regular(path)
    try:
        wanted = whole if size is None else size
        if wanted > most:
            limit = f"{most >> 20} MiB" if most >= 2**20 else f"{most >> 10} KiB"
            raise OSError(errno.EFBIG, f"larger than {limit}, which no such file is")
        data = os.pread(file, wanted, offset)
        while len(data) < wanted and (more := os.pread(file, wanted - len(data), offset + len(data))):
            data += more  # a network file system may give less than it is asked for
    finally:
        os.close(file)
    if len(data) < wanted:
        raise OSError(errno.EIO, "cut off")
    return data


def open_regular(path: str) -> tuple[int, int]:
    """Open a regular file: (descriptor, size in bytes); OSError for anything else, such as a pipe."""
    file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    found = os.fstat(file)
    if not stat.S_ISREG(found.st_mode):
        os.close(file)
        if stat.S_ISDIR(found.st_mode):
            raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
        raise OSError(errno.EINVAL, "not a regular file")
    return file, found.st_size
