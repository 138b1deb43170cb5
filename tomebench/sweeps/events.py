"""What a running sweep says about itself. The command line draws these; the library never prints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tomebench.runs.row import Row
from tomebench.schema import MAX_DROP

PhaseName = Literal["load", "compile", "warm-up", "timing", "energy", "end-to-end", "accuracy"]


@dataclass(frozen=True)
class Planned:
    """The cells are known, and so is what an earlier run of the same folder already did."""

    cells: int
    model: str  # timm id with tag, or the name of a preset
    resumed_rounds: int
    resumed_chunks: int


@dataclass(frozen=True)
class Note:
    """Something worth a line: which weights were loaded, which batch size was chosen."""

    text: str


@dataclass(frozen=True)
class Estimate(Note):
    """About how long a sweep takes."""


@dataclass(frozen=True)
class Phase:
    """A phase begins."""

    name: PhaseName
    total: float | None  # in the unit of its Progress events; None is unknown


@dataclass(frozen=True)
class Progress:
    """How far a phase is. ``total`` may change on the way: a noisy machine needs more rounds."""

    phase: PhaseName
    done: float  # including what an earlier run did
    total: float | None
    unit: str  # rounds, images, ...
    detail: str


@dataclass(frozen=True)
class Finished:
    """The last event: every row of the table, and where the store is."""

    rows: tuple[Row, ...]
    directory: Path
    settings: Mapping[str, Any] = field(default_factory=dict)  # of the folder: of all that its table holds
    max_drop: float = MAX_DROP  # loss of top-1 in points up to which a row may be recommended
    processes_left: int = 0  # more processes in which cells are to be timed; until then there are no rows


Event = Planned | Note | Phase | Progress | Finished
