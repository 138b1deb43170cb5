"""Reading timed rounds: which burst counts, what a step took, what was timed beside what. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tomebench.schema import Burst, Round

THROTTLED_UNDER = 0.90
"""A burst whose GPU clock is under this fraction of the sweep's median clock was throttled."""


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


def throttled(burst: Burst, typical_mhz: float | None, under: float = THROTTLED_UNDER) -> bool:
    """The GPU ran under a fraction of the typical clock; False where a clock is not known."""
    return burst.mhz is not None and typical_mhz is not None and burst.mhz < under * typical_mhz


def typical_clock(rounds: Sequence[Round]) -> float | None:
    """Median GPU clock of all bursts in MHz; None where none is known."""
    clocks = [burst.mhz for round_ in rounds for burst in round_.bursts if burst.mhz is not None]
    return float(np.median(clocks)) if clocks else None
