"""The real program, one of whose ranks dies or freezes on the way if the environment says so.

``FAULT=1:SIGKILL:3`` lets rank 1 send itself that signal when it is to evaluate its fourth batch, ``1:hang:3`` lets it
never go on; ``OTHER_RANK`` runs other code, or sees ``OTHER_DATA``; ``PIDS`` names a folder in which every process
leaves its number; ``ONCE`` a file by which the fault is known to have been; ``SLOW`` is how many seconds a batch takes
longer.
"""

from __future__ import annotations

import itertools
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import torch

from tomebench import identity
from tomebench.cli.app import main
from tomebench.sweeps import accuracy, made

if __name__ == "__main__":
    rank, predict, turns = os.environ.get("RANK", "0"), accuracy.predict, itertools.count()
    who, what, when = os.environ.get("FAULT", "-:SIGTERM:0").split(":")
    (Path(os.environ["PIDS"]) / str(os.getpid())).touch()
    torch.set_num_threads(1)  # as torchrun gives each of several

    def first() -> bool:
        """It has not happened yet, where it is to happen once."""
        if not (once := os.environ.get("ONCE")):
            return True
        there = Path(once).exists()
        Path(once).touch()
        return not there

    def faulty(*arguments: Any) -> Any:
        if rank == who and next(turns) == int(when) and first():
            while what == "hang":
                time.sleep(1)
            os.kill(os.getpid(), getattr(signal, what))
        time.sleep(float(os.environ.get("SLOW", "0")))
        return predict(*arguments)

    if rank == os.environ.get("OTHER_RANK"):  # which sees another folder under the same name, or runs other code
        if data := os.environ.get("OTHER_DATA"):
            sys.argv[sys.argv.index("--data") + 1] = data
        else:
            identity.code_digest = made.code_digest = lambda: "0123456789abcdef"
    accuracy.predict = faulty
    main()
