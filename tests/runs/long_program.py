"""A sweep with as many rounds and twice as many batches, on made-up images; notes the resident bytes at each step.

``long_program.py ROUNDS FILE``
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

import numpy as np
from PIL import Image

from tomebench.datasets.images import ImageSet
from tomebench.measure import clock, speed
from tomebench.runs import budget
from tomebench.schema import ImageList
from tomebench.sweeps import run
from tomebench.sweeps.config_files import load_config
from tomebench.sweeps.events import Progress

ROUNDS = int(sys.argv[1])
BATCHES, BATCH = 2 * ROUNDS, 2


def resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def picture(index: int) -> Image.Image:
    return Image.fromarray(np.full((8, 8, 3), index % 256, np.uint8))


def main() -> None:
    labels = np.arange(BATCHES * BATCH, dtype=np.int64) % 1000
    images = ImageSet(ImageList("made up", "0" * 64, labels, 1000), picture)
    run.list_images = lambda config, head: images
    load = run.load_model
    run.load_model = lambda name, **settings: load(name, **{**settings, "pretrained": False})
    run.resolve_sweep = lambda config, listed, built: []
    budget.BUDGETS["quick"] = budget.Budget("quick", ROUNDS, 1e9, 0.0)  # type: ignore[index]
    speed.WINDOW = 1
    clock.CpuClock.min_burst = 1e-6
    settings = {"model": "test_vit", "img_size": 32, "r": "0,1", "device": "cpu", "batch_size": BATCH, "workers": 0}
    config = load_config([], {**settings, "budget": "quick", "data": "made-up", "threads": 1})
    sizes = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        for event in run.run_sweep(config, Path(folder) / "run", lambda: False):
            if isinstance(event, Progress) and event.phase in ("timing", "accuracy"):
                sizes[event.phase].append(resident())
    Path(sys.argv[2]).write_text("".join(f"{phase} {' '.join(map(str, found))}\n" for phase, found in sizes.items()))


if __name__ == "__main__":
    main()
