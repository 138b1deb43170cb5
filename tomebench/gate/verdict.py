"""One finding of a gate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from tomebench.gate.records import Tier

Verdict = Literal["worse", "inconclusive", "incomparable", "missing", "better", "same"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
"""The gravest first."""


@dataclass(frozen=True)
class Finding:
    """What was found about one cell in one tier."""

    tier: Tier
    cell: str  # r=8
    verdict: Verdict
    detail: str  # one line for people: what differs, by how much, how sure
    quantity: str = ""  # what was compared, where a tier compares several things
    old: float | None = None
    new: float | None = None
    change: float | None = None  # relative for speeds (0.1 is 10 % faster), images for accuracy
    change_lo: float | None = None
    change_hi: float | None = None
    p: float | None = None  # of a speed that it is no worse, of accuracy that nothing changed; adjusted for all cells
