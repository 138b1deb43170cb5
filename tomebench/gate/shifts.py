"""Shift of a speed from one run to another with its uncertainty, for one cell or for the mean of all cells.

The unit of analysis is the process where a side was measured in several: what is fixed once per process, such as memory
layout and kernels, is not seen in its rounds. Where both sides are a single process it is the round, and differences
between processes are in no interval.
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
    """Log values of one run, one per round, with the process of each round where there are several."""

    logs: Logs
    processes: tuple[int, ...] = ()
    alike: bool = False  # neighbours correlate, so that within a single process the unit is a batch of rounds

    def units(self, processes: bool) -> Logs:
        """One value per unit of analysis: process, or batch of rounds within one; empty where it is the round."""
        if processes:
            medians = stats.process_medians(self.logs, self.processes) if self.processes else ()
            return np.asarray(medians) if len(medians) > 1 else np.array([np.median(self.logs)])
        return stats.batch_medians(self.logs) if self.alike else np.empty(0)

    @property
    def value(self) -> float:
        """Mean over processes, or median over rounds."""
        return float(np.mean(self.units(processes=bool(self.processes))) if self.processes else np.median(self.logs))


def speedups(speed: Speed) -> Series:
    """Log speed-ups of a cell over its reference, per round."""
    return Series(stats.log_ratios(speed.reference, speed.seconds), speed.processes or ())


def rates(speed: Speed) -> Series:
    """Log images per second, per round; within a single process, neighbouring rounds correlate."""
    return Series(-np.log(np.array(speed.seconds)), speed.processes or (), alike=True)


def unknown_rate(*sides: Speed) -> str | None:
    """Why images per second cannot be compared: a single process has too few rounds for batches; None if they can."""
    if any(speed.processes for speed in sides):
        return None
    few = min(len(speed.seconds) for speed in sides)
    if few >= stats.MIN_BATCHED:
        return None
    return f"{counted(few, 'round')} on a side, {stats.MIN_BATCHED} are needed; use a larger --budget"


def shift(new: Series, old: Series) -> stats.Shift:
    """Shift of ``new`` over ``old``, by the coarsest unit of analysis that either has.

    A single process beside several counts as one more of them, with their scatter.

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
    """Scatter of a quantity over processes."""

    value: float  # standard deviation of the logarithm
    processes: int  # number on the side that has fewer


def scatter(new: Series, old: Series) -> Scatter | None:
    """Pooled standard deviation over the processes of both sides; None where neither side has several."""
    units = [side.units(processes=True) for side in (new, old)]
    degrees = sum(len(each) - 1 for each in units)
    if not degrees:
        return None
    squares = sum(float(np.sum((each - np.mean(each)) ** 2)) for each in units)
    return Scatter(math.sqrt(squares / degrees), min(map(len, units)))


def rounds_of(speed: Speed) -> tuple[object, ...]:
    """Key that is equal for two cells timed in the same rounds: the times of their reference."""
    return (speed.reference, speed.processes)


def together(speeds: Sequence[Speed]) -> Series:
    """Mean, in each round, of the log speed-ups of cells that were timed in the same rounds.

    It averages out the noise of single cells, but not that of their common reference.
    """
    return Series(np.mean([speedups(speed).logs for speed in speeds], axis=0), speeds[0].processes or ())


def chance_to_pass(shifts: Sequence[stats.Shift], tolerance: float) -> float:
    """Probability that two equal runs are found the same in every cell, given the uncertainty of these shifts.

    A cell is found the same where the interval of its shift ends above minus the tolerance; the place of the interval
    is random. Cells are taken as independent. The error of a median shift is a sum of two errors rather than their root
    sum of squares, so only 1 / sqrt(2) of it is random.

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
