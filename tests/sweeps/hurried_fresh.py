"""A fresh process of a sweep with a shorter budget, as ``sweep_program.py`` has it; or, as it is told, an odd one.

``ODD`` in the environment: ``killed`` is ended by a signal after a note, ``broken`` raises what no code should,
``refused`` raises for a user, ``full`` finds no space on the
disk, ``odd`` is an error of it in words only, ``silent`` ends without its last word; ``two`` is
either of two that do as they should.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import sys


def odd(how: str) -> int:
    """Say a note, and end in another way than a process should."""
    sys.stdin.read()
    if how == "two":
        return two()
    print(json.dumps(["Note", {"text": "a note"}]), flush=True)
    print("a library talks", file=sys.stderr)
    if how == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "broken":
        raise ZeroDivisionError("a bug")
    if how == "refused":
        print(json.dumps(["DataError", {"text": "no such images"}]), flush=True)
    if how == "full":
        print(json.dumps(["OSError", {"args": [errno.ENOSPC, "No space left on device", "x"]}]), flush=True)
    if how == "odd":
        print(json.dumps(["OSError", {"args": ["the disk is odd"]}]), flush=True)
    return 2 if how == "refused" else 0


def two() -> int:
    """Say what each of two processes says that ends as it should."""
    progress = {"phase": "timing", "done": 1.0, "total": 6.0, "unit": "rounds", "detail": ""}
    for event in (
        ["Phase", {"name": "load", "total": None}],
        ["Planned", {"cells": 2, "model": "m", "resumed_rounds": 6 * (sys.argv[2] == "next"), "resumed_chunks": 0}],
        ["Note", {"text": "the same"}],
        ["Note", {"text": sys.argv[2]}],
        ["Progress", progress],
        ["Progress", {**progress, "detail": "narrow"}],
        ["finished", {"left": int(sys.argv[2] == "first")}],
    ):
        print(json.dumps(event), flush=True)
    return 0


def hurried() -> int:
    """The real one, in a moment."""
    import dataclasses

    from tomebench.measure import clock, speed
    from tomebench.runs import budget
    from tomebench.sweeps.fresh import main

    budget.BUDGETS["quick"] = dataclasses.replace(budget.BUDGETS["quick"], half_width=100.0)  # type: ignore[index]
    speed.WINDOW = 1
    clock.CpuClock.min_burst = 0.002
    return main()


if __name__ == "__main__":
    sys.exit(odd(os.environ["ODD"]) if "ODD" in os.environ else hurried())
