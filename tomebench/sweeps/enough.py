"""Whether there are enough images for the loss that a sweep is asked about: said before it takes its time."""

from __future__ import annotations

from collections.abc import Iterable

from tomebench import stats
from tomebench.schema import Cell, Resolved
from tomebench.words import counted


def too_few(cells: Iterable[tuple[Cell, Resolved]], images: int, max_drop: float, *, labels: bool) -> str | None:
    """That so few images would not show what is asked, if each were answered as at r = 0; None where they would.

    Args:
        cells: of the table; those besides r = 0 that differ share the error, as in :mod:`tomebench.report.advice`.
        images: to evaluate.
        max_drop: loss in points that is to be shown.
        labels: the images have them.
    """
    rows = len({(resolved.r_layers, cell.written_options) for cell, resolved in cells if not cell.is_baseline})
    if not rows:
        return None
    needed = stats.fewest_images(max_drop / 100, level=1 - (1 - stats.LEVEL) / rows, labels=labels)
    if needed is None:
        return f"no number of images can show that nothing at all is lost; --max-drop {max_drop:g} is too strict"
    if images >= needed:
        return None
    limit, seen = counted(max_drop, "point"), counted(images, "image")
    return f"{seen}, each answered as at r = 0, would not show a loss to be within {limit}: that takes {needed}"
