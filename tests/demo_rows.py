"""The demo model at eight values of r, as stored: which of 599 images are right, and the rows of any part of them."""

import functools
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from report_rows import accuracy, make_row, speed

from tomebench.gate.baseline_file import read_baseline
from tomebench.runs.row import Row
from tomebench.stats import paired_delta

IMAGES = 599
SPEEDS = {
    4: (0.96, 0.90, 1.00), 8: (1.08, 1.03, 1.16), 12: (1.35, 1.32, 1.39), 16: (1.60, 1.51, 1.65),
    20: (1.99, 1.90, 2.09), 22: (2.25, 2.10, 2.36), 24: (2.48, 2.34, 2.65),
}  # fmt: skip
"""Speed-ups with their intervals, as one run measured them."""

Images = npt.NDArray[np.int64]


@functools.cache
def stored() -> dict[int, tuple[float, npt.NDArray[np.bool_]]]:
    """By r: MAC ratio, and for every image whether it is right, [599]."""
    cells = read_baseline(Path(__file__).with_name("eight_r.json")).cells
    found = {}
    for cell in cells:
        assert cells[0].static is not None
        assert cell.static is not None
        assert cell.accuracy is not None
        found[cell.asked.r] = (cells[0].static.gmacs / cell.static.gmacs, cell.accuracy.values())
    assert list(found) == [0, *SPEEDS]
    assert len(found[0][1]) == IMAGES
    return found


_delta = functools.cache(paired_delta)


def demo(images: Images | None = None, *, timed: bool = True, **r4: Any) -> list[Row]:
    """The rows that a sweep of some images has.

    Args:
        images: their indices; None for all.
        timed: with the speed-ups of that run; otherwise only MACs are known.
        r4: fields of the row of r = 4 to change.
    """
    images = np.arange(IMAGES) if images is None else images
    n, base = len(images), stored()[0][1][images]
    rows = [make_row(**(speed(1.0, None) if timed else {}), **accuracy(int(base.sum()), n, int(base.sum()), 0.0))]
    for r, (value, low, high) in SPEEDS.items():
        mac_ratio, right = stored()[r][0], stored()[r][1][images]
        lost, gained = int((base & ~right).sum()), int((~base & right).sum())
        delta = _delta(lost, gained, n)
        fields = {"mac_ratio": mac_ratio} | accuracy(int(right.sum()), n, int(base.sum()))
        fields |= {"top1_lost": lost, "top1_gained": gained}
        fields |= {"delta_top1_lo": 100 * delta.interval.lo, "delta_top1_hi": 100 * delta.interval.hi}
        if timed:
            fields |= {"rounds": 38, "status": "unconverged"}
            fields |= {"speedup_vs_r0": value, "speedup_vs_r0_lo": low, "speedup_vs_r0_hi": high}
        rows.append(make_row(r, **fields | (r4 if r == 4 else {})))
    return rows


def some(n: int, seed: int) -> Images:
    """``n`` of the images, drawn at random without replacement, in order."""
    return np.sort(np.random.default_rng([n, seed]).choice(IMAGES, n, replace=False))
