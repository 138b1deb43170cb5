"""Ctrl-C and SIGTERM. While a sweep runs the first asks it to stop where nothing is lost, the second ends the program.

At any other time there is nothing to lose and the first ends it, without an exception: one that is raised in the middle
of an import comes out as some other error of the module being imported.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from tomebench.errors import Interrupted

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def leave_on_signal(last_words: str | None) -> None:
    """From now on a signal ends the program at once, after a line on stderr; without one if that is None."""

    def handle(number: int, frame: FrameType | None) -> None:
        _write(f"{last_words}\n" if last_words else "")
        os._exit(Interrupted.exit_code)

    for number in _SIGNALS:
        signal.signal(number, handle)


@contextmanager
def stop_on_signal(*, quiet: bool = False) -> Iterator[Callable[[], bool]]:
    """Within the context, signals only set a flag, and say so unless ``quiet``.

    Yields:
        A function that says whether to stop.
    """
    process = os.getpid()
    stopping = False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal stopping
        if os.getpid() != process:
            return  # a worker inherits this handler; its parent decides
        if stopping:
            _write("\x1b[?25h" if sys.stderr.isatty() else "")  # the progress bar hid the cursor
            os._exit(Interrupted.exit_code)
        stopping = True
        _write("" if quiet else "\ntomebench: stopping after the current burst or batch; once more to stop at once\n")

    previous = {number: signal.signal(number, handle) for number in _SIGNALS}
    try:
        yield lambda: stopping
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _write(text: str) -> None:
    """Straight to the descriptor: a handler may run in the middle of a write to sys.stderr."""
    with suppress(OSError):
        os.write(2, text.encode())
