"""The real program, one of whose ranks dies or freezes on the way if the environment says so.

``FAULT=1:SIGKILL:3`` lets rank 1 send itself that signal when it is to evaluate its fourth batch, ``1:hang:3`` lets it
never go on; ``PIDS`` names a folder in which every process leaves its number; ``SLOW`` is how many seconds a batch
takes longer.
"""

from __future__ import annotations

import itertools
import os
import signal
import time
from pathlib import Path
from typing import Any

from tomebench.cli.app import main
from tomebench.sweeps import accuracy

if __name__ == "__main__":
    rank, predict, turns = os.environ.get("RANK", "0"), accuracy.predict, itertools.count()
    who, what, when = os.environ.get("FAULT", "-:SIGTERM:0").split(":")
    (Path(os.environ["PIDS"]) / str(os.getpid())).touch()

    def faulty(*arguments: Any) -> Any:
        if rank == who and next(turns) == int(when):
            while what == "hang":
                time.sleep(1)
            os.kill(os.getpid(), getattr(signal, what))
        time.sleep(float(os.environ.get("SLOW", "0")))
        return predict(*arguments)

    accuracy.predict = faulty
    main()
