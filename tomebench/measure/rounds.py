"""Reading timed rounds: which burst counts, what a step took, what was timed beside what. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tomebench.schema import Burst, Round

THROTTLED_UNDER = 0.90
"""A GPU under this fraction of its highest clock was throttled, where its driver does not give the reason."""
SLOWED_OVER = 0.10
"""Share of the time in which heat or the hardware held the clock down, above which a burst was throttled."""


def counted_bursts(rounds: Sequence[Round], name: str) -> list[Burst]:
    """The burst of one variant that counts, of every round that has it."""
    return [round_.counted[name] for round_ in rounds if name in round_.counted]


def step_seconds(rounds: Sequence[Round], name: str) -> list[float]:
    """Seconds per step of one variant in every round that has it."""
    return [burst.step_seconds for burst in counted_bursts(rounds, name)]


def paired_seconds(rounds: Sequence[Round], base: str, other: str) -> tuple[list[float], list[float]]:
    """Seconds per step of two variants in the rounds that have both."""
    pairs = [
        (found[base].step_seconds, found[other].step_seconds)
        for found in (round_.counted for round_ in rounds)
        if base in found and other in found
    ]
    return [first for first, _ in pairs], [second for _, second in pairs]


def throttled(burst: Burst, max_mhz: int | None, under: float = THROTTLED_UNDER) -> bool:
    """Heat or the hardware held the GPU's clock down, under a fraction of its highest if ``under`` is below 0.90.

    A clock held down by the power limit is none of it: that is how this GPU runs such work, for hours. Nor is one that
    was set by its owner. Where the driver gives no reasons, a low clock is reason enough. False where nothing is known.

    Args:
        burst: with what the driver said of it.
        max_mhz: the GPU's highest clock.
        under: the fraction; at its default any clock counts where heat or the hardware is the reason.
    """
    low = None if burst.mhz is None or max_mhz is None else burst.mhz < under * max_mhz
    if burst.slowed is None:
        return low is True
    if burst.slowed <= SLOWED_OVER or under >= THROTTLED_UNDER:
        return burst.slowed > SLOWED_OVER
    return burst.slowed > 0.5 if low is None else low  # without clocks, most of the time is as bad as a low one


def median_clock(bursts: Sequence[Burst]) -> float | None:
    """Median GPU clock in MHz; None where none is known."""
    clocks = [burst.mhz for burst in bursts if burst.mhz is not None]
    return float(np.median(clocks)) if clocks else None
