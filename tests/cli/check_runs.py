"""Runs and baselines for the tests of ``tomebench check``."""

from __future__ import annotations

from pathlib import Path

from tomebench.gate.baseline_file import read_baseline, write_baseline
from tomebench.gate.records import Snapshot

HERE = "feedfeedfeed"
"""The code that runs and baselines are of."""


def edit(path: Path, **cell_changes: object) -> None:
    """Change the last cell of a baseline."""
    snapshot = read_baseline(path)
    *first, last = snapshot.cells
    write_baseline(path, snapshot.model_copy(update={"cells": (*first, last.model_copy(update=cell_changes))}))


def slowed(snapshot: Snapshot, factor: float, name: str = "r=8") -> Snapshot:
    """The same measurement, even and with twelve rounds, the cell of that name slower by a factor."""
    cells = []
    for cell in snapshot.cells:
        reference = tuple(0.01 * (1 + 0.001 * k) for k in range(12))
        ratio = factor if cell.name == name else 1.0
        speed = cell.speed.model_copy(
            update={"reference": reference, "seconds": tuple(ratio * t for t in reference), "invalid": ()}
        )
        cells.append(cell.model_copy(update={"speed": speed}))
    return snapshot.model_copy(update={"cells": tuple(cells)})
