"""The streams of the program, as it needs them whatever they are connected to."""

from __future__ import annotations

import io
import os
import sys
from contextlib import suppress


class _Forgiving(io.FileIO):
    """A file that takes what it cannot write for written."""

    def write(self, data: bytes) -> int:  # type: ignore[override]
        try:
            return super().write(data) or len(data)  # None where it would have to wait for a reader
        except OSError:
            return len(data)


def prepare_streams() -> None:
    """Let no character end the program, nor a stderr that nobody reads or whose disk is full.

    Results go to stdout and to files, which say it when they cannot be written; stderr only tells how far they are.
    """
    for descriptor in range(3):  # of one that the caller has closed a file would take the place
        with suppress(OSError):
            os.fstat(descriptor)
            continue
        os.open(os.devnull, os.O_RDWR)  # which gets the lowest number that is free
    if sys.stderr is None:  # else print takes stdout for it
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115, PTH123 (for as long as the program runs)
    elif isinstance(sys.stderr, io.TextIOWrapper):
        kept = _Forgiving(sys.stderr.fileno(), "wb", closefd=False)
        sys.stderr = io.TextIOWrapper(io.BufferedWriter(kept), encoding=sys.stderr.encoding, line_buffering=True)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # an ASCII terminal must not turn a × into a crash
