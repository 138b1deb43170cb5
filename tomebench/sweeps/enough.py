"""Check that there are enough images to show a top-1 loss within ``max_drop``, before a sweep starts."""

from __future__ import annotations

from collections.abc import Iterable

from tomebench import stats
from tomebench.schema import Cell, Resolved
from tomebench.words import counted


def too_few(cells: Iterable[tuple[Cell, Resolved]], images: int, max_drop: float, *, labels: bool) -> str | None:
    """Warning that so few images could not show the loss to be within the limit even if no prediction changed.

    Args:
        cells: of the table; those besides r = 0 that differ share the error (Bonferroni), as in
            :mod:`tomebench.report.advice`.
        images: number of images to evaluate.
        max_drop: largest acceptable loss of top-1, in points.
        labels: whether the images have labels; if not, agreement with r = 0 is counted.

    Returns:
        None where there are enough images.
    """
    rows = len(
        {(cell.method, resolved.r_layers, cell.written_options) for cell, resolved in cells if not cell.is_baseline}
    )
    if not rows:
        return None
    needed = stats.fewest_images(max_drop / 100, level=1 - (1 - stats.LEVEL) / rows, labels=labels)
    if needed is None:
        return f"no number of images can show that nothing at all is lost; --max-drop {max_drop:g} is too strict"
    if images >= needed:
        return None
    limit, seen = counted(max_drop, "point"), counted(images, "image")
    return f"{seen}, each answered as at r = 0, would not show a loss to be within {limit}: that takes {needed}"
