"""Read the reported numbers: ``reported.csv`` has one row per result of the ToMe paper, ``digits.csv`` the miniature's.

``reported`` rows are the authors' own; ``remeasured`` ones are other people's, for context and never a target. A row is
``exact`` where it was read in the authors' own repository, and ``secondhand`` where it is quoted by others. The
miniature's rows are from an earlier run of this program.
"""

from __future__ import annotations

import csv
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Literal

FILES = ("reported.csv", "digits.csv")

_COARSER = {("readme_deit_trained", 0): 0.1}
"""Last printed digit of top-1 in some rows of a table that are rounded more than its others, by table and r."""
_SAME_SHAPE = {
    "DeiT-Ti": "ViT-Ti/16",
    "DeiT-T": "ViT-Ti/16",
    "DeiT-S": "ViT-S/16",
    "DeiT-B": "ViT-B/16",
    "ViT-L": "ViT-L/16",
}
"""Models with the shapes of another one, by the start of their name."""


@dataclass(frozen=True)
class Reported:
    """One reported row. None: not stated."""

    table: str
    model: str
    image_size: str  # pixels; for videos frames x pixels; or spectrogram
    training: str
    method: str
    r: int | None
    schedule: str
    metric: str  # what ``acc`` and ``im_s`` count
    acc: float | None  # top-1 in %, or what ``metric`` says
    im_s: float | None  # images per second, or clips or samples
    gflops: float | None  # of one image; multiply-accumulates of the matmuls
    hardware: str
    source: str
    confidence: Literal["exact", "secondhand"]
    kind: Literal["reported", "remeasured"]
    acc_step: float = 1.0  # one unit of the last printed digit of ``acc``
    gflops_step: float = 1.0

    @property
    def is_baseline(self) -> bool:
        """Whether it is the model without token reduction."""
        return self.r == 0

    @property
    def architecture(self) -> str:
        """Architecture that its costs depend on: a DeiT is a ViT of the same size."""
        name = self.model.partition(" (")[0]
        return _SAME_SHAPE.get(name.partition("/")[0], name)


@functools.cache
def reported_rows() -> tuple[Reported, ...]:
    """All rows, in the order of the files."""
    fields: list[dict[str, str]] = []
    for file in FILES:
        text = resources.files(__package__).joinpath(file).read_text(encoding="utf-8")
        fields += csv.DictReader(text.splitlines())
    steps = {
        (column, table): _step([row[column] for row in fields if row["table"] == table])
        for column in ("acc", "gflops")
        for table in {row["table"] for row in fields}
    }
    return tuple(_row(row, steps) for row in fields)


def reported_tables() -> dict[str, tuple[Reported, ...]]:
    """Rows by table, in the order of the files."""
    found: dict[str, list[Reported]] = {}
    for row in reported_rows():
        found.setdefault(row.table, []).append(row)
    return {table: tuple(rows) for table, rows in found.items()}


def _step(texts: Sequence[str]) -> float:
    """One unit of the last digit that a column prints in any row: files leave out zeros at the end of a number."""
    return float(10.0 ** -max((len(text.partition(".")[2]) for text in texts), default=0))


def _row(fields: dict[str, str], steps: Mapping[tuple[str, str], float]) -> Reported:
    numbers = {name: float(fields[name]) if fields[name] else None for name in ("acc", "im_s", "gflops")}
    texts = {name: fields[name] for name in ("table", "model", "image_size", "training", "method", "schedule")}
    texts |= {name: fields[name] for name in ("hardware", "source", "confidence", "kind")}
    exact: dict[str, float] = {name: steps[name, fields["table"]] for name in ("acc", "gflops")}
    r = int(float(fields["r"])) if fields["r"] else None
    return Reported(
        **texts,  # type: ignore[arg-type]
        **numbers,  # type: ignore[arg-type]
        r=r,
        metric=fields["metric_name"],
        acc_step=_COARSER.get((fields["table"], r or 0), exact["acc"]),
        gflops_step=exact["gflops"],
    )
