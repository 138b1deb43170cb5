"""Runs of the program in several processes, under torchrun or forked, and what is left of them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweeps.forked import Forked
from sweeps.noisy_images import write_data
from torch.distributed import TCPStore

from tomebench.datasets.imagenet import wnids
from tomebench.report.frames import read_csv
from tomebench.runs.store import Store

PROGRAM = Path(__file__).with_name("ranks_program.py")
IMAGES, BATCH = 47, 4  # 12 batches, the last one short: neither divides by 2 or 3 evenly in images


@dataclass(frozen=True)
class Ended:
    """How a program ended."""

    code: int
    err: str
    seconds: float


class Runner:
    """Runs sweeps of one data set with any number of processes."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.data = [*write_data(root, (i % 10 for i in range(IMAGES + 1))), "--allow-missing", "1"]
        (root / "images" / wnids()[4] / "00004.JPEG").write_bytes(b"damaged")  # every rank leaves out the same one

    def command(
        self, processes: int, out: Path, *, launched: bool = False, r: str = "0,2,4", restarts: int = 0
    ) -> list[str]:
        """The command line; ``launched`` by the program itself, which suffers no faults then."""
        flags = f"sweep --model test_vit --img-size 64 --r {r} --device cpu --batch-size {BATCH} --budget none \
            --workers 0 --quiet --out {out}".split()
        # torchrun takes --r for a short form of its own --role and others; after -- it does not look.
        count = ["--nproc-per-node", str(processes)]
        if launched:
            return [sys.executable, "-m", "tomebench", *flags, *self.data, *count]
        torchrun = ["-m", "torch.distributed.run", "--standalone", "--max-restarts", str(restarts), *count]
        return [sys.executable, *([*torchrun, "--"] if processes > 1 else []), str(PROGRAM), *flags, *self.data]

    def environment(self, **faults: str) -> dict[str, str]:
        pids = self.root / f"pids{time.monotonic_ns()}"
        pids.mkdir()
        kept = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
        return {**kept, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PIDS": str(pids), **faults}

    def run(
        self, processes: int, out: Path, *, launched: bool = False, r: str = "0,2,4", restarts: int = 0, **faults: str
    ) -> Ended:
        """Run to the end, whatever it is; afterwards no process may be left.

        A single process is forked from one that has imported what it needs; torchrun starts fresh ones.
        """
        environment, began = self.environment(**faults), time.monotonic()
        command = self.command(processes, out, launched=launched, r=r, restarts=restarts)
        if processes == 1:
            forked = Forked(command[1:], self.root / "errors", {"PIDS": environment["PIDS"], **faults})
            code, err = forked.wait(1000), forked.said()
            assert code is not None, err
        else:
            done = subprocess.run(command, capture_output=True, text=True, timeout=1000, check=False, env=environment)
            code, err = done.returncode, done.stderr
        assert_gone(environment["PIDS"], 0 if launched else processes * (1 + restarts))
        return Ended(code, err, time.monotonic() - began)

    def run_two(self, out: Path, **faults: str) -> Ended:
        """Run two ranks without torchrun, forked, which meet in a store of this process; the code is that of rank 0."""
        meeting = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        environment, began = self.environment(**faults), time.monotonic()
        place = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "PIDS": environment["PIDS"]}
        place |= {"MASTER_PORT": str(meeting.port), "TORCHELASTIC_USE_AGENT_STORE": "True", **faults}
        ranks = [
            Forked(self.command(1, out)[1:], self.root / f"errors{rank}", {**place, "RANK": rank, "LOCAL_RANK": rank})
            for rank in "01"
        ]
        codes = [rank.wait(1000) for rank in ranks]
        assert codes[0] is not None, ranks[0].said()
        assert_gone(environment["PIDS"], 2)
        return Ended(codes[0], "".join(rank.said() for rank in ranks), time.monotonic() - began)


def assert_gone(folder: str, count: int) -> None:
    """So many processes have left their number in a folder, and none of them is left."""
    pids = [int(path.name) for path in Path(folder).iterdir()]
    assert len(pids) == count
    assert [pid for pid in pids if alive(pid)] == []
    assert with_variable("PIDS", folder) == []


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"


def with_variable(name: str, value: str) -> list[int]:
    """The processes of this user that have this in their environment."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"{name}={value}".encode() in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
        except OSError:  # another user's, or gone
            continue
    return found


def said(ended: Ended) -> list[str]:
    """The lines that tomebench itself wrote."""
    return [line for line in ended.err.splitlines() if line.startswith("tomebench: ")]


def results(out: Path) -> tuple[Any, ...]:
    """Everything that must not depend on the number of processes; every image is there once."""
    with Store.read(out) as store:
        assert store.seen().tolist() == list(range(IMAGES))
        images = store.images()
        assert images is not None
        assert "without 1 unreadable file" in (images.note or "")
        predictions = {
            key: (p.top1.tobytes(), p.in_top5.tobytes(), p.ties, p.nonfinite) for key, p in store.predictions().items()
        }
    table = read_csv(out / "table.csv").drop(columns=["img_per_s_accuracy", "input_share"])
    return predictions, table.to_csv()
