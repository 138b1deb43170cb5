"""Atomic writes: a file is written completely or not at all, and never through a symbolic link."""

from __future__ import annotations

import errno
import os
import secrets
from contextlib import suppress
from pathlib import Path


def beside(path: Path) -> Path:
    """A hidden, random temporary name in the folder of a file, for the content that will replace it."""
    return path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")


def write_new(path: Path, content: str | bytes) -> None:
    """Create a file.

    Raises:
        OSError: it exists, if only as a link, or cannot be written.
    """
    with path.open("xb") as file:
        file.write(_bytes(content))


def check_writable(path: Path) -> None:
    """Check that a file can be written, before the work for it begins; creates its folder.

    Raises:
        OSError: it cannot be written; names the file.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if path.exists() and not path.is_file():  # such as /dev/stdout
            return
        probe = beside(path)
        probe.touch(exist_ok=False)
        probe.unlink()
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def append(path: Path, text: str) -> None:
    """Append text to a file; create it if it is not there.

    Raises:
        OSError: it cannot be written.
    """
    with path.open("a", encoding="utf-8") as file:
        file.write(text)


def _bytes(content: str | bytes) -> bytes:
    return content.encode() if isinstance(content, str) else content


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file under a temporary name and rename it: if anything fails, an existing file stays as it was.

    Raises:
        OSError: it cannot be written; names ``path``.
    """
    if path.exists() and not path.is_file():  # such as /dev/stdout
        path.write_bytes(_bytes(content))
        return
    temporary = beside(path)
    try:
        write_new(temporary, content)
        temporary.replace(path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error  # the file that the user knows
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
