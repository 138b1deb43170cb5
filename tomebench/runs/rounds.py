"""Read timed rounds: bursts that count, seconds per step, variants paired within rounds. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tomebench import stats
from tomebench.schema import Burst, Round

THROTTLED_UNDER = 0.90
"""Fraction of a GPU's highest clock under which it was throttled, where the driver does not give the reason."""
BADLY_UNDER = 0.75
"""Fraction of the highest clock under which a throttled burst must not be used."""
SLOWED_OVER = 0.10
"""Share of the time in which heat or the hardware held the clock down above which a burst was throttled."""


def counted_bursts(rounds: Sequence[Round], name: str) -> list[Burst]:
    """The burst of a variant that counts, from every round that has it."""
    return [round_.counted[name] for round_ in rounds if name in round_.counted]


def step_seconds(rounds: Sequence[Round], name: str) -> list[float]:
    """Seconds per step of a variant in every round that has it."""
    return [burst.step_seconds for burst in counted_bursts(rounds, name)]


def sessions(rounds: Sequence[Round], name: str) -> list[int]:
    """Session number of every round that has a variant."""
    return [round_.session for round_ in rounds if name in round_.counted]


class Pairs(NamedTuple):
    """Two variants in the rounds that have both; each list of length n."""

    base: list[float]  # seconds per step
    other: list[float]  # likewise
    sessions: list[int]  # session numbers


def pairs(rounds: Sequence[Round], base: str, other: str) -> Pairs:
    """Seconds per step of two variants in the rounds that have both, with the session of each round."""
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
        base: name of the variant in the numerator, mostly r = 0.
        other: name of the variant whose speed-up it is.
        between: each session was a fresh process, and the interval is over processes.
    """
    found = pairs(rounds, base, other)
    return stats.speedup(found.base, found.other, found.sessions if between else ()) if found.base else None


def throttled(burst: Burst, max_mhz: int | None) -> bool:
    """Whether heat or the hardware held the GPU's clock down during a burst.

    A clock held down by the power limit does not count: the GPU runs such work like that for hours. Nor does a clock
    that its owner has set. Where the driver gives no reasons, a clock under 90 % of the highest counts. False where
    nothing is known.

    Args:
        burst: with what the driver reported of it.
        max_mhz: the GPU's highest clock; None where it is not known.
    """
    if burst.slowed is None:
        return _under(THROTTLED_UNDER, burst, max_mhz) is True
    return burst.slowed > SLOWED_OVER


def throttled_badly(burst: Burst, max_mhz: int | None) -> bool:
    """Whether it did so under 75 % of the highest clock; where clocks are not known, for most of the time."""
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
