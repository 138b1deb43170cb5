"""Whether there are enough images for the loss that a sweep is asked about: said before it takes its time."""

from __future__ import annotations

from tomebench import stats
from tomebench.sweeps.config import SweepConfig
from tomebench.words import counted


def too_few(config: SweepConfig, rows: int, images: int) -> str | None:
    """That so few images cannot show what is asked, however they come out; None where they may.

    Args:
        config: of the sweep.
        rows: cells besides r = 0.
        images: to evaluate.
    """
    level = 1 - (1 - stats.LEVEL) / max(rows, 1)  # the rows share the error, as in tomebench.report.advice
    needed = stats.fewest_images(config.max_drop / 100, level=level, labels=config.labels)
    if not rows or (needed is not None and images >= needed):
        return None
    limit = counted(config.max_drop, "point")
    if needed is None:
        return f"no number of images can show that nothing at all is lost; --max-drop {config.max_drop:g} is too strict"
    best = "none is lost" if config.labels else "all keep their class"
    seen = counted(images, "image")
    return f"{seen} cannot show a loss to be within {limit}, even if {best}: that takes {needed} at least"
