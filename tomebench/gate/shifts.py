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

Logs = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Series:
    """A logarithm for each round of one run, and the process of each where it was measured in several."""

    logs: Logs
    processes: tuple[int, ...] = ()

    @property
    def medians(self) -> Logs:
        """Of each process that counts; fewer than two where it was a single one."""
        return stats.process_medians(self.logs, self.processes) if self.processes else np.empty(0)

    @property
    def value(self) -> float:
        """Mean over processes, or median over rounds."""
        return float(np.mean(self.medians) if len(self.medians) > 1 else np.median(self.logs))


def speedups(speed: Speed) -> Series:
    """Logarithms of the speed-up over the reference."""
    return Series(stats.log_ratios(speed.reference, speed.seconds), speed.processes or ())


def rates(speed: Speed) -> Series:
    """Logarithms of images per second."""
    return Series(-np.log(np.array(speed.seconds)), speed.processes or ())


def shift(new: Series, old: Series) -> stats.Shift:
    """How far ``new`` lies above ``old``, by the coarsest unit that either has.

    A single process beside several is judged by how those scatter, as one more of them.

    Raises:
        ValueError: fewer rounds than an interval needs.
    """
    sides = (new.medians, old.medians)
    if max(map(len, sides)) < 2:
        return stats.median_shift(new.logs, old.logs)
    known = [each if len(each) > 1 else np.array([side.value]) for each, side in zip(sides, (new, old), strict=True)]
    return stats.mean_shift(known[0], known[1])


def together(speeds: Sequence[Speed]) -> Series | None:
    """Mean of the logarithms of several speed-ups in each round; None where they were not timed in the same rounds.

    Noise of a single cell averages out in it, and that of what all are compared with stays.
    """
    first = speeds[0]
    if any(speed.reference != first.reference or speed.processes != first.processes for speed in speeds):
        return None
    return Series(np.mean([speedups(speed).logs for speed in speeds], axis=0), first.processes or ())


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
