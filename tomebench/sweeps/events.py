"""Events that a sweep yields: phases, progress, notes, the end. The command line draws them; nothing here prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tomebench.runs.row import Row
from tomebench.schema import MAX_DROP

Facts = Sequence[tuple[str, Any]]
"""Names and values that a caller has a run store."""
PhaseName = Literal["load", "compile", "warm-up", "timing", "selector", "energy", "end-to-end", "accuracy", "features"]


@dataclass(frozen=True)
class Planned:
    """The cells are known, and so is what earlier sessions in the same folder measured."""

    cells: int
    model: str  # timm id with tag, or the name of a preset
    resumed_rounds: int
    resumed_chunks: int


@dataclass(frozen=True)
class Note:
    """A message of one line: which weights were loaded, which batch size was chosen."""

    text: str


@dataclass(frozen=True)
class Estimate(Note):
    """Message with the expected duration of a sweep."""


@dataclass(frozen=True)
class TooFew(Note):
    """Message that there are too few images for the question."""


@dataclass(frozen=True)
class Phase:
    """A phase begins, such as warm-up, timing or accuracy."""

    name: PhaseName
    total: float | None  # in the unit of its Progress events; None where unknown


@dataclass(frozen=True)
class Progress:
    """Progress within a phase. ``total`` may change meanwhile: a noisy machine needs more rounds."""

    phase: PhaseName
    done: float  # including what earlier sessions did
    total: float | None
    unit: str  # rounds, images, ...
    detail: str


@dataclass(frozen=True)
class Finished:
    """The last event: every row of the table, and the run folder."""

    rows: tuple[Row, ...]
    directory: Path
    # Of the run folder, whose table may hold cells of other sweeps.
    settings: Mapping[str, Any] = field(default_factory=dict)
    max_drop: float = MAX_DROP  # loss of top-1 in points up to which a row may be recommended
    processes_left: int = 0  # further processes that have to time the cells; there are no rows before that


Event = Planned | Note | Phase | Progress | Finished
