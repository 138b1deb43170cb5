"""Decide suspected defects of CUDA one by one, a line each: ``defect 3: confirmed, 1980 MHz after, 1410 in it``.

Usage: probes.py cuda|cpu [--dry-run] [--quick] [--after LOG] [--only 3,4]

Every probe runs in a process of its own and for so long at most, so that neither a hang nor an error that ends a CUDA
context spoils the next. They are forked from this one, which has imported everything and never touches the device.
Elsewhere than on CUDA everything runs as far as it can and nothing is decided. Exits with 0 whenever it ran.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import sys
import time
import traceback
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

# Before torch is imported: asking CUDA how many devices there are would spoil all forked processes.
os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"
sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from gpu import probes_kernels, probes_memory, probes_time  # noqa: F401 (they register themselves)
from gpu.probe import PROBES, Finding, Here, NoNvml, Probe

WORTH = (3, 4, 13, 16, 7, 2, 9, 8, 19, 20, 12, 11, 6, 10, 18, 24, 22, 14, 5, 17, 21, 15, 1, 23)
"""Defects in the order in which they are tried."""


def look(probe: Probe, here: Here) -> Finding:
    """What the probe finds; one that fails has decided nothing."""
    try:
        found = probe.run(here)
    except NoNvml as error:
        return Finding("undecided", str(error))
    except Exception as error:  # noqa: BLE001 (whatever a GPU may raise)
        traceback.print_exc()
        return Finding("undecided", f"{type(error).__name__}: {' '.join(str(error).split())[:160]}")
    if here.cuda or found.verdict == "undecided":
        return found
    return Finding("undecided", f"needs CUDA; here {found.figure}")


def _child(probe: Probe, here: Here, answer: Connection) -> None:
    os.setsid()  # so that what it starts ends with it
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    answer.send(look(probe, here))
    answer.close()
    os._exit(0)  # a dead context may hang on its way out


def decide(probe: Probe, here: Here) -> Finding:
    """Run a probe in a process of its own, for its seconds at most."""
    ours, theirs = get_context("fork").Pipe(duplex=False)
    process = get_context("fork").Process(target=_child, args=(probe, here, theirs))
    process.start()
    theirs.close()
    try:
        if not ours.poll(probe.seconds):
            return Finding("undecided", f"took over {probe.seconds:.0f} s")
        return ours.recv()
    except EOFError:
        process.join(1)
        return Finding("undecided", f"its process died with exit code {process.exitcode}")
    finally:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            process.kill()
        process.join(5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("device", choices=["cuda", "cpu"])
    parser.add_argument("--dry-run", action="store_true", help="small models, short bursts")
    parser.add_argument("--quick", action="store_true", help="not those that spend their time compiling")
    parser.add_argument("--after", type=Path, metavar="LOG", help="only those that an earlier output has not")
    parser.add_argument("--only", default="", metavar="N,N", help="only these defects")
    given = parser.parse_args()
    here = Here(torch.device(given.device), given.dry_run)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # and so ends the probe that runs
    only = {int(number) for number in given.only.split(",") if number}
    earlier = given.after.read_text(errors="replace") if given.after and given.after.exists() else ""
    done = {int(number) for number in re.findall(r"^defect (\d+):", earlier, re.MULTILINE)}
    if given.device == "cpu":
        torch.set_num_threads(1)
    for probe in sorted(PROBES, key=lambda probe: WORTH.index(probe.defect)):
        asked = probe.defect in only if only else not (given.quick and probe.compiled)
        if asked and probe.defect not in done:
            began = time.perf_counter()
            found = decide(probe, here)
            took = time.perf_counter() - began
            print(f"defect {probe.defect}: {found.verdict}, {probe.what}: {found.figure} [{took:.0f} s]", flush=True)


if __name__ == "__main__":
    main()
