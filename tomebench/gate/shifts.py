"""How much a speed moved from one run to another, and how sure that is: one cell, or all of them together.

The unit is what varies. Where a side was measured in several processes, that is the process: what is fixed in one, as
where its memory lies and which kernels it took, is in none of its rounds. Where both sides are a single process it can
only be the round, and what differs between processes is in no interval.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from tomebench import stats
from tomebench.gate.records import Speed
from tomebench.words import counted

Logs = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Series:
    """A logarithm for each round of one run, and the process of each where it was measured in several."""

    logs: Logs
    processes: tuple[int, ...] = ()
    alike: bool = False  # neighbours are, so that batches of them are the unit of a single process

    def units(self, processes: bool) -> Logs:
        """What a run is a sample of: processes, of which a single one is one; else batches, or none but rounds."""
        if processes:
            medians = stats.process_medians(self.logs, self.processes) if self.processes else ()
            return np.asarray(medians) if len(medians) > 1 else np.array([np.median(self.logs)])
        return stats.batch_medians(self.logs) if self.alike else np.empty(0)

    @property
    def value(self) -> float:
        """Mean over processes, or median over rounds."""
        return float(np.mean(self.units(processes=bool(self.processes))) if self.processes else np.median(self.logs))


def speedups(speed: Speed) -> Series:
    """Logarithms of the speed-up over the reference."""
    return Series(stats.log_ratios(speed.reference, speed.seconds), speed.processes or ())


def rates(speed: Speed) -> Series:
    """Logarithms of images per second, which the rounds of a single process have alike."""
    return Series(-np.log(np.array(speed.seconds)), speed.processes or (), alike=True)


def unknown_rate(*sides: Speed) -> str | None:
    """Why images per second cannot be compared: too few rounds for batches of them, which processes do not need."""
    if any(speed.processes for speed in sides):
        return None
    few = min(len(speed.seconds) for speed in sides)
    if few >= stats.MIN_BATCHED:
        return None
    return f"{counted(few, 'round')} on a side, {stats.MIN_BATCHED} are needed; use a larger --budget"


def shift(new: Series, old: Series) -> stats.Shift:
    """How far ``new`` lies above ``old``, by the coarsest unit that either has.

    A single process beside several is judged by how those scatter, as one more of them.

    Raises:
        ValueError: fewer rounds than an interval needs.
    """
    several = bool(new.processes or old.processes)
    units = [side.units(processes=several) for side in (new, old)]
    if max(map(len, units)) < 2:
        return stats.median_shift(new.logs, old.logs)
    return stats.mean_shift(*units)


@dataclass(frozen=True)
class Scatter:
    """How processes differ."""

    value: float  # standard deviation of the logarithm
    processes: int  # of the side that has fewer


def scatter(new: Series, old: Series) -> Scatter | None:
    """What the processes of both sides scatter by, taken together; None where neither has several."""
    units = [side.units(processes=True) for side in (new, old)]
    degrees = sum(len(each) - 1 for each in units)
    if not degrees:
        return None
    squares = sum(float(np.sum((each - np.mean(each)) ** 2)) for each in units)
    return Scatter(math.sqrt(squares / degrees), min(map(len, units)))


def rounds_of(speed: Speed) -> tuple[object, ...]:
    """Equal for two cells that were timed in the same rounds: those of what they are compared with."""
    return (speed.reference, speed.processes)


def together(speeds: Sequence[Speed]) -> Series:
    """Mean of the logarithms of speed-ups that were timed in the same rounds, in each of them.

    Noise of a single cell averages out in it, and that of what all are compared with stays.
    """
    return Series(np.mean([speedups(speed).logs for speed in speeds], axis=0), speeds[0].processes or ())


def chance_to_pass(shifts: Sequence[stats.Shift], tolerance: float) -> float:
    """How likely two runs that are alike are found the same in every cell, known as well as these shifts are.

    A cell is the same where its interval ends above minus the tolerance; where it lies is chance. Cells are taken as
    independent, and the error of a median shift as the sum that it is, of which chance makes less.

    Args:
        shifts: of the cells.
        tolerance: as a logarithm.
    """
    chance = 1.0
    for found in shifts:
        reach = (found.interval.hi - found.interval.lo) / 2
        scatter = found.error / (math.sqrt(2) if math.isinf(found.degrees) else 1.0)
        room = tolerance - reach
        chance *= NormalDist(0.0, scatter).cdf(room) if scatter else float(room > 0)
    return chance
