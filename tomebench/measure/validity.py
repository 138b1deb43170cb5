"""What makes a measured row doubtful, as pure functions over the stored rounds. Each code is a field of the row."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from tomebench import stats
from tomebench.measure.speed import paired_seconds, step_seconds
from tomebench.schema import SENTINEL, Round

AA_FAILED = "AA_FAILED"
"""The two bursts of r = 0 differ: the harness itself is biased and the run invalid."""
NOISY = "NOISY"
"""The interquartile range of the step times is over a tenth of their median."""

RECOMPILED = "RECOMPILED"
"""A graph was compiled inside a timed burst: what was timed is the compiler, and the row has no speed."""

NOISY_OVER = 0.10
"""IQR / median above which a variant is noisy."""


def aa_failed(rounds: Sequence[Round], baseline: str) -> bool:
    """The interval of ln(t[baseline] / t[sentinel]) excludes 0. False under six rounds, when there is no interval.

    Args:
        rounds: all rounds.
        baseline: key of the r = 0 cell.
    """
    base, sentinel = paired_seconds(rounds, baseline, SENTINEL)
    if not base:
        return False
    interval = stats.median_interval(stats.log_ratios(base, sentinel))
    return interval is not None and 0.0 not in interval


def noisy(rounds: Sequence[Round], name: str) -> bool:
    """The step times of a variant have IQR / median over 10 %."""
    seconds = step_seconds(rounds, name)
    if not seconds:
        return False
    q1, median, q3 = np.quantile(seconds, [0.25, 0.5, 0.75])
    return bool(q3 - q1 > NOISY_OVER * median)


def recompiled(rounds: Sequence[Round], names: Collection[str]) -> bool:
    """Some burst of the named variants has a compilation in it."""
    return any(burst.compiled and burst.variant in names for round_ in rounds for burst in round_.bursts)
