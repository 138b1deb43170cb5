"""Handlers of Ctrl-C and SIGTERM: in a sweep the first stops it after the current step, the second ends the program.

At any other time the first ends the program at once and without an exception, because an exception raised in the middle
of an import surfaces as another error of the module being imported.
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
    """Let a signal end the program at once from now on, after printing ``last_words`` on stderr unless None."""

    def handle(number: int, frame: FrameType | None) -> None:
        _write(f"{last_words}\n" if last_words else "")
        os._exit(Interrupted.exit_code)

    for number in _SIGNALS:
        signal.signal(number, handle)


@contextmanager
def stop_on_signal(*, quiet: bool = False) -> Iterator[Callable[[], bool]]:
    """Context in which the first signal only sets a flag, with a line on stderr unless ``quiet``.

    Yields:
        A function that says whether to stop.
    """
    process = os.getpid()
    stopping = False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal stopping
        if os.getpid() != process:
            return  # a worker process that inherited this handler; its parent decides
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
    """Write to the file descriptor of stderr: a handler may run in the middle of a write to sys.stderr."""
    with suppress(OSError):
        os.write(2, text.encode())
