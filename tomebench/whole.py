"""Files written whole or not at all, and never through a link that somebody has laid in the way."""

from __future__ import annotations

import secrets
from contextlib import suppress
from pathlib import Path


def beside(path: Path) -> Path:
    """A name in the folder of a file for what is to take its place: hidden, and one that nobody can foresee."""
    return path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")


def write_new(path: Path, text: str) -> None:
    """Write a file that is not there.

    Raises:
        OSError: it is there, also as a link, or cannot be written.
    """
    with path.open("x", encoding="utf-8", newline="") as file:
        file.write(text)


def write_whole(path: Path, text: str) -> None:
    """Write a file beside its place and move it there: whatever fails, an earlier one stays as it was.

    Raises:
        OSError: it cannot be written; its name is that of ``path``.
    """
    if path.exists() and not path.is_file():  # such as /dev/stdout
        path.write_text(text, encoding="utf-8")
        return
    temporary = beside(path)
    try:
        write_new(temporary, text)
        temporary.replace(path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error  # the file that the user knows
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
