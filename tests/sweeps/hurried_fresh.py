"""A fresh process of a sweep with a shorter budget, as ``sweep_program.py`` has it; or, as it is told, an odd one.

``ODD`` in the environment: ``killed`` is ended by a signal after a note, ``broken`` raises what no code should,
``refused`` raises for a user, ``full`` finds no space on the disk, ``silent`` ends without its last word.
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
    return 2 if how == "refused" else 0


def hurried() -> int:
    """The real one, in a moment."""
    import dataclasses

    from tomebench.measure import budget, clock, speed
    from tomebench.sweeps.fresh import main

    budget.BUDGETS["quick"] = dataclasses.replace(budget.BUDGETS["quick"], half_width=100.0)  # type: ignore[index]
    speed.WINDOW = 1
    clock.CpuClock.min_burst = 0.002
    return main()


if __name__ == "__main__":
    sys.exit(odd(os.environ["ODD"]) if "ODD" in os.environ else hurried())
