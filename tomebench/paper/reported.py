"""The numbers that were reported for ToMe, one per row of ``reported.csv`` beside this file.

``reported`` rows are the authors' own; ``remeasured`` ones are other people's, for context and never a target. A row is
``exact`` where it was read in the authors' own repository, and ``secondhand`` where somebody quotes it.
"""

from __future__ import annotations

import csv
import functools
from dataclasses import dataclass
from importlib import resources
from typing import Literal

FILE = "reported.csv"


@dataclass(frozen=True)
class Reported:
    """One reported row. None: not stated."""

    table: str
    model: str
    image_size: str  # pixels; of videos frames x pixels; or spectrogram
    training: str
    method: str
    r: int | None
    schedule: str
    metric: str  # what ``acc`` and ``im_s`` are
    acc: float | None  # top-1 in %, or what ``metric`` says
    im_s: float | None  # images per second, or clips or samples
    gflops: float | None  # of one image; multiply-accumulates of the matmuls
    hardware: str
    source: str
    confidence: Literal["exact", "secondhand"]
    kind: Literal["reported", "remeasured"]

    @property
    def is_baseline(self) -> bool:
        """The model without token reduction."""
        return self.r == 0


@functools.cache
def reported_rows() -> tuple[Reported, ...]:
    """All rows, in the order of the file."""
    text = resources.files(__package__).joinpath(FILE).read_text(encoding="utf-8")
    return tuple(_row(fields) for fields in csv.DictReader(text.splitlines()))


def reported_tables() -> dict[str, tuple[Reported, ...]]:
    """Rows by table, in the order of the file."""
    found: dict[str, list[Reported]] = {}
    for row in reported_rows():
        found.setdefault(row.table, []).append(row)
    return {table: tuple(rows) for table, rows in found.items()}


def _row(fields: dict[str, str]) -> Reported:
    numbers = {name: float(fields[name]) if fields[name] else None for name in ("r", "acc", "im_s", "gflops")}
    r = numbers.pop("r")
    texts = {name: fields[name] for name in ("table", "model", "image_size", "training", "method", "schedule")}
    texts |= {name: fields[name] for name in ("hardware", "source", "confidence", "kind")}
    return Reported(**texts, r=None if r is None else int(r), metric=fields["metric_name"], **numbers)  # type: ignore[arg-type]
