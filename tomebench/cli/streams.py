"""Prepare stdin, stdout and stderr: no encoding error, closed stream or full disk behind stderr ends the program."""

from __future__ import annotations

import io
import os
import sys
from contextlib import suppress


class _Forgiving(io.FileIO):
    """A file whose write errors are ignored."""

    def write(self, data: bytes) -> int:  # type: ignore[override]
        try:
            return super().write(data) or len(data)  # None if a non-blocking write would block
        except OSError:
            return len(data)


def leave_unwritten() -> None:
    """Give up what stdout still holds, if it cannot be written: the interpreter would try again at exit, and say so."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def prepare_streams() -> None:
    """Make the streams robust: escape characters that cannot be encoded, ignore write errors on stderr, open all three.

    Errors on stdout and in files are still raised: they hold the results, stderr only the progress.
    """
    for descriptor in range(3):  # the next file opened would take the number of a closed one
        with suppress(OSError):
            os.fstat(descriptor)
            continue
        os.open(os.devnull, os.O_RDWR)  # gets the lowest free number, this one
    if sys.stderr is None:  # print(file=None) would write to stdout
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115, PTH123 (for as long as the program runs)
    elif isinstance(sys.stderr, io.TextIOWrapper):
        kept = _Forgiving(sys.stderr.fileno(), "wb", closefd=False)
        sys.stderr = io.TextIOWrapper(io.BufferedWriter(kept), encoding=sys.stderr.encoding, line_buffering=True)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # an ASCII terminal must not turn a × into a crash
