"""Between processes: the process as the unit of analysis, where something was measured in several fresh ones.

Memory layout, page placement and the choice of kernels are fixed once per process, so they are in no interval over the
rounds of one: more rounds make such an interval narrower around what that process happens to be. The medians of several
processes differ by all of it, and Student's interval of their mean covers it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from tomebench.stats.counts import student_t
from tomebench.stats.interval import LEVEL, MIN_VALUES

MOST_PROCESSES = 1000
"""No more than this many are ever asked for."""


def process_medians(
    values: Sequence[float] | npt.NDArray[np.float64], processes: Sequence[int]
) -> npt.NDArray[np.float64]:
    """The median of each process, in order of their numbers; one of under six values was cut short and is left out.

    Args:
        values: one for each round; [n].
        processes: number of the process in which each was measured; [n].
    """
    measured, numbers = np.asarray(values, dtype=np.float64), np.asarray(processes)
    groups = [measured[numbers == number] for number in np.unique(numbers)]
    return np.array([np.median(group) for group in groups if len(group) >= MIN_VALUES])


def mean_half_width(medians: Sequence[float] | npt.NDArray[np.float64], *, level: float = LEVEL) -> float | None:
    """Half-width of Student's interval of the mean of several processes, 95 % unless told; None under two of them."""
    n = len(medians)
    return None if n < 2 else student_t(n - 1, level=level) * float(np.std(medians, ddof=1)) / math.sqrt(n)


def processes_needed(half_width: float, done: int, target: float) -> int:
    """Processes, in all, of which :func:`mean_half_width` is ``target``, if they scatter as those that are done.

    Args:
        half_width: of those that are done.
        done: how many that is, >= 2.
        target: half-width to reach.

    Returns:
        At least ``done``, at most ``MOST_PROCESSES``.
    """
    scatter = half_width * math.sqrt(done) / student_t(done - 1)
    enough = (n for n in range(done, MOST_PROCESSES) if student_t(n - 1) * scatter <= target * math.sqrt(n))
    return next(enough, MOST_PROCESSES)
