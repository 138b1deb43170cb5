"""What is compared: points, lines of them, and the lines of one setting."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tomebench.runs.row import Row
from tomebench.schema import OFF_THE_SHELF
from tomebench.stats import ShareDelta, Shares, share_delta


class Speed(NamedTuple):
    """A speed-up with its 95 % interval."""

    value: float
    lo: float | None
    hi: float | None


@dataclass(frozen=True)
class Point:
    """One point of a line: a row, or the rows of several seeds, whose mean it is."""

    label: str  # within its line: ``r=8``, ``192 px``, the name of a model
    rows: tuple[Row, ...]
    speed: Speed | None  # None where it was not timed, is invalid, or has no common reference
    right: Shares | None  # of the common images; None where top-1 is not known
    drop: ShareDelta | None  # top-1 against the base; None for the base itself
    seen: npt.NDArray[np.int64] | None = None  # indices of the images of ``right``, ascending
    stopped: bool = False  # its images were counted until something was known

    @property
    def row(self) -> Row:
        """The row, or that of the first seed."""
        return self.rows[0]

    @property
    def top1(self) -> float | None:
        """Top-1 in per cent."""
        return None if self.right is None else 100 * self.right.accuracy

    @property
    def lost(self) -> float | None:
        """Loss of top-1 against the base, in points; negative where top-1 is higher."""
        return None if self.drop is None else 100 * (self.drop.lost - self.drop.gained) / self.drop.n

    @property
    def spread(self) -> tuple[float, float, float] | None:
        """Standard deviation, least and largest top-1 over seeds, in per cent, each seed on its own images."""
        tops = [row.top1 for row in self.rows if row.top1 is not None]
        return (float(np.std(tops, ddof=1)), min(tops), max(tops)) if len(tops) > 1 else None


def between(base: Point | None, other: Point | None) -> ShareDelta | None:
    """Top-1 of a point minus that of another, on the images that both have; None where there are none."""
    if base is None or other is None or base.right is None or other.right is None:
        return None
    first, second = base.right, other.right
    stopped = base.stopped or other.stopped
    if stopped and base.seen is not None and other.seen is not None:
        both = np.intersect1d(base.seen, other.seen)
        first, second = (
            Shares(shares.right[np.isin(seen, both)], shares.seeds)
            for shares, seen in ((first, base.seen), (second, other.seen))
        )
    return share_delta(first, second, stopped=stopped) if len(first.right) else None


@dataclass(frozen=True)
class Line:
    """The grid of one method with its options, or of a plain rival."""

    name: str
    points: tuple[Point, ...]  # in order of falling MACs
    plain: bool = False  # nothing is reduced: a smaller input or a smaller model
    training: str = OFF_THE_SHELF
    method: str = ""


@dataclass(frozen=True)
class Comparison:
    """Lines that were measured in the same setting, and what they are compared with."""

    setting: str  # ``cpu, fp32, batch 64``
    base: Point
    base_name: str
    lines: tuple[Line, ...]
    images: int  # common to all rows with top-1
    over: str | None  # what speed-ups are over; None where they cannot be compared
    remarks: tuple[str, ...] = ()

    @property
    def evaluated(self) -> bool:
        """Whether drops are known."""
        return any(point.drop is not None for line in self.lines for point in line.points)
