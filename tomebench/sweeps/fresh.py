"""Entry point of one fresh process of a sweep, which :mod:`tomebench.sweeps.processes` starts.

``python -m tomebench.sweeps.fresh FOLDER first|next PARENT`` reads a configuration from stdin and writes events to
stdout, one JSON pair of kind and fields per line. A signal stops it after the burst or batch in progress; a second
Ctrl-C, or the end of its parent process (id PARENT), stops it at once. What was committed stays whole in both cases.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from tomebench.errors import Interrupted, TomebenchError

_POLL = 1.0
"""Seconds between two checks that the parent is alive."""


def main() -> int:
    """Run the sweep, write its events to stdout, and return the exit code."""
    asked: list[int] = []
    threading.Thread(target=_end_with, args=(int(sys.argv[3]),), daemon=True).start()

    def stop(number: int, frame: object) -> None:
        asked.append(number)
        if asked.count(signal.SIGINT) > 1:
            os._exit(Interrupted.exit_code)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    # Libraries may print; stdout is for events only.
    out = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def say(kind: str, fields: dict[str, Any]) -> None:
        out.write(json.dumps([kind, fields], allow_nan=False) + "\n")
        out.flush()

    # Imported after the handlers are set: it takes seconds, in which a signal may come.
    from tomebench.sweeps.config import SweepConfig
    from tomebench.sweeps.events import Finished
    from tomebench.sweeps.processes import FINISHED
    from tomebench.sweeps.run import run_sweep

    directory, first = Path(sys.argv[1]), sys.argv[2] == "first"
    try:
        settings, facts = json.loads(sys.stdin.read())
        config = SweepConfig.model_validate(settings)
        for event in run_sweep(config, directory, lambda: bool(asked), fresh=True, first=first, facts=facts):
            if isinstance(event, Finished):
                say(FINISHED, {"left": event.processes_left})
            else:
                say(type(event).__name__, dataclasses.asdict(event))
    except TomebenchError as error:
        say(type(error).__name__, {"text": str(error)})
        return error.exit_code
    except OSError as error:
        known = [error.errno, error.strerror, os.fsdecode(error.filename or "") or None]
        say("OSError", {"args": known if error.strerror else [str(error)]})
        return 1
    return 0


def _end_with(parent: int) -> None:
    """End this process as soon as its parent is gone, even in the middle of a long step."""
    while os.getppid() == parent:
        time.sleep(_POLL)
    os._exit(Interrupted.exit_code)


if __name__ == "__main__":
    sys.exit(main())
