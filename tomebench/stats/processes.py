"""The process as the unit of analysis: medians per process, Student's interval over them, processes still needed.

Memory layout, page placement and the choice of kernels are fixed once per process, so no interval over the rounds of
one process covers them: more rounds make it narrower around the speed of that process. The medians of several processes
differ by all of this, and Student's interval of their mean covers it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from tomebench.stats.counts import student_t
from tomebench.stats.interval import LEVEL, MIN_VALUES

MOST_PROCESSES = 1000
"""Largest number of processes that is ever proposed."""


def process_medians(
    values: Sequence[float] | npt.NDArray[np.float64], processes: Sequence[int]
) -> npt.NDArray[np.float64]:
    """Median of each process, in order of their numbers; a process of under six values was cut short and is left out.

    Args:
        values: one per round; [n].
        processes: number of the process in which each was measured; [n].
    """
    measured, numbers = np.asarray(values, dtype=np.float64), np.asarray(processes)
    groups = [measured[numbers == number] for number in np.unique(numbers)]
    return np.array([np.median(group) for group in groups if len(group) >= MIN_VALUES])


def mean_half_width(medians: Sequence[float] | npt.NDArray[np.float64], *, level: float = LEVEL) -> float | None:
    """Half-width of Student's interval of the mean over processes; None under two of them."""
    n = len(medians)
    return None if n < 2 else student_t(n - 1, level=level) * float(np.std(medians, ddof=1)) / math.sqrt(n)


def processes_needed(half_width: float, done: int, target: float) -> int:
    """Number of processes at which :func:`mean_half_width` is ``target``, if they scatter as the measured ones do.

    Args:
        half_width: of the measured processes.
        done: number of measured processes, >= 2.
        target: half-width to reach.

    Returns:
        At least ``done``, at most ``MOST_PROCESSES``.
    """
    scatter = half_width * math.sqrt(done) / student_t(done - 1)
    enough = (n for n in range(done, MOST_PROCESSES) if student_t(n - 1) * scatter <= target * math.sqrt(n))
    return next(enough, MOST_PROCESSES)
