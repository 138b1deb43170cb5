"""What every screen must be: no line wider than the screen, no row of a table in two, nothing cut."""

from __future__ import annotations

import os
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import TextIOWrapper

import pytest
from rich.cells import cell_len

_CODES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def assert_fits(shown: str, width: int) -> None:
    """Fails for a line that is wider than the screen, unless it is a single word (a path), and for what is cut."""
    for line in map(plain, shown.splitlines()):
        assert cell_len(line) <= width or " " not in line.strip(), f"{cell_len(line)} columns of {width}: {line!r}"
        assert "…" not in line, f"cut: {line!r}"


def assert_whole_rows(shown: str, wide: str) -> None:
    """Fails for a table that has more lines, or fewer, than the same table on a wide screen has rows."""
    there = tables(wide)
    for rows in tables(shown):
        assert rows in there, f"{rows} rows instead of one of {there}"


def tables(shown: str) -> list[int]:
    """The number of rows, table by table: what follows a rule, up to an empty line."""
    found = []
    lines = [plain(line) for line in shown.splitlines()]
    for place, line in enumerate(lines):
        if line and set(line) == {"─"}:
            end = next((end for end in range(place, len(lines)) if not lines[end]), len(lines))
            found.append(end - place - 1)
    return found


def plain(line: str) -> str:
    """A line without colours."""
    return _CODES.sub("", line)


@contextmanager
def pseudo_terminal() -> Iterator[list[str]]:
    """Within the context stdout is a terminal; after it the list holds what was shown."""
    parent, child = os.openpty()
    got, shown = [], []

    def read() -> None:
        with suppress(OSError):  # how Linux ends a terminal that nobody writes to
            while data := os.read(parent, 65536):
                got.append(data)

    reader = threading.Thread(target=read)
    reader.start()
    stream = TextIOWrapper(os.fdopen(child, "wb", buffering=0), encoding="utf-8", write_through=True)
    with stream, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", stream)
        patch.setenv("TERM", "xterm-256color")
        yield shown
    reader.join()
    os.close(parent)
    shown.append(b"".join(got).decode().replace("\r\n", "\n"))
