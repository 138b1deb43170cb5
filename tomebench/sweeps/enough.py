"""Whether there are enough images for the loss that a sweep is asked about: said before it takes its time."""

from __future__ import annotations

from bisect import bisect_left

from tomebench import stats
from tomebench.stats import LEVEL
from tomebench.sweeps.config import SweepConfig
from tomebench.words import counted

_MOST = 10**8


def images_to_show(max_drop: float, rows: int, *, labels: bool = True) -> int | None:
    """The fewest images that can show a loss of top-1 to be within a limit: if none of them is lost.

    Args:
        max_drop: the limit in points.
        rows: how many share the error of it, see :mod:`tomebench.report.advice`.
        labels: the images have them; else they are those that keep their class.

    Returns:
        None where no number of them can, as for a limit of 0.
    """
    level = 1 - (1 - LEVEL) / max(rows, 1)

    def shown(n: int) -> bool:
        if labels:
            return stats.paired_interval(0, 0, n, level=level).lo >= -max_drop / 100
        return stats.wilson(n, n, level=level).lo >= 1 - max_drop / 100

    found = 1 + bisect_left(range(1, _MOST), True, key=shown)
    return None if found >= _MOST else found


def too_few(config: SweepConfig, rows: int, images: int) -> str | None:
    """That so few images cannot show what is asked, however they come out; None where they may.

    Args:
        config: of the sweep.
        rows: cells besides r = 0.
        images: to evaluate.
    """
    needed = images_to_show(config.max_drop, rows, labels=config.labels)
    if not rows or (needed is not None and images >= needed):
        return None
    limit = counted(config.max_drop, "point")
    if needed is None:
        return f"no number of images can show that nothing at all is lost; --max-drop {config.max_drop:g} is too strict"
    lost = "all keep their class" if not config.labels else "none is lost"
    return f"{counted(images, 'image')} cannot show a loss to be within {limit}, even if {lost}: that takes {needed}"
