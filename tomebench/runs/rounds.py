"""Reading timed rounds: which burst counts, what a step took, what was timed beside what. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tomebench import stats
from tomebench.schema import Burst, Round

THROTTLED_UNDER = 0.90
"""A GPU under this fraction of its highest clock was throttled, where its driver does not give the reason."""
BADLY_UNDER = 0.75
"""A throttled burst under this fraction of the highest clock is of no use."""
SLOWED_OVER = 0.10
"""Share of the time in which heat or the hardware held the clock down, above which a burst was throttled."""


def counted_bursts(rounds: Sequence[Round], name: str) -> list[Burst]:
    """The burst of one variant that counts, of every round that has it."""
    return [round_.counted[name] for round_ in rounds if name in round_.counted]


def step_seconds(rounds: Sequence[Round], name: str) -> list[float]:
    """Seconds per step of one variant in every round that has it."""
    return [burst.step_seconds for burst in counted_bursts(rounds, name)]


def sessions(rounds: Sequence[Round], name: str) -> list[int]:
    """Number of the session of every round that has a variant."""
    return [round_.session for round_ in rounds if name in round_.counted]


class Pairs(NamedTuple):
    """Two variants in the rounds that have both; each of length n."""

    base: list[float]  # seconds per step
    other: list[float]  # likewise
    sessions: list[int]  # number of the session


def pairs(rounds: Sequence[Round], base: str, other: str) -> Pairs:
    """Seconds per step of two variants in the rounds that have both, and in which session they were timed."""
    found = [
        (counted[base].step_seconds, counted[other].step_seconds, round_.session)
        for round_, counted in ((round_, round_.counted) for round_ in rounds)
        if base in counted and other in counted
    ]
    return Pairs(*([each[column] for each in found] for column in range(3)))  # type: ignore[arg-type]


def paired_seconds(rounds: Sequence[Round], base: str, other: str) -> tuple[list[float], list[float]]:
    """Seconds per step of two variants in the rounds that have both."""
    found = pairs(rounds, base, other)
    return found.base, found.other


def compare(rounds: Sequence[Round], base: str, other: str, *, between: bool = False) -> stats.Estimate | None:
    """Paired speed-up of one variant over another; None where no round has both.

    Args:
        rounds: of any sessions.
        base: what is compared with.
        other: what is compared.
        between: each session was a fresh process, and the interval is to be one between processes.
    """
    found = pairs(rounds, base, other)
    return stats.speedup(found.base, found.other, found.sessions if between else ()) if found.base else None


def throttled(burst: Burst, max_mhz: int | None) -> bool:
    """Heat or the hardware held the GPU's clock down.

    A clock held down by the power limit is none of it: that is how this GPU runs such work, for hours. Nor is one that
    was set by its owner. Where the driver gives no reasons, a clock under 90 % of the highest is reason enough. False
    where nothing is known.

    Args:
        burst: with what the driver said of it.
        max_mhz: the GPU's highest clock; None where it is not known.
    """
    if burst.slowed is None:
        return _under(THROTTLED_UNDER, burst, max_mhz) is True
    return burst.slowed > SLOWED_OVER


def throttled_badly(burst: Burst, max_mhz: int | None) -> bool:
    """It did, under 75 % of the highest clock; or, where clocks are not known, for most of the time."""
    if not throttled(burst, max_mhz):
        return False
    low = _under(BADLY_UNDER, burst, max_mhz)
    return (burst.slowed or 0) > 0.5 if low is None else low


def _under(fraction: float, burst: Burst, max_mhz: int | None) -> bool | None:
    return None if burst.mhz is None or max_mhz is None else burst.mhz < fraction * max_mhz


def median_clock(bursts: Sequence[Burst]) -> float | None:
    """Median GPU clock in MHz; None where none is known."""
    clocks = [burst.mhz for burst in bursts if burst.mhz is not None]
    return float(np.median(clocks)) if clocks else None
