"""The finding record of the gate, and its verdicts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from tomebench.gate.records import Tier

Verdict = Literal["worse", "inconclusive", "incomparable", "missing", "better", "same"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
"""All verdicts, the gravest first."""


@dataclass(frozen=True)
class Finding:
    """Finding about one cell, or all cells together, in one tier."""

    tier: Tier
    cell: str  # name of the cell, such as r=8
    verdict: Verdict
    detail: str  # one line for people: what differs, by how much, how significantly
    quantity: str = ""  # the quantity compared, where a tier compares several
    old: float | None = None
    new: float | None = None
    change: float | None = None  # relative for speeds (0.1 is 10 % faster), images for accuracy
    change_lo: float | None = None
    change_hi: float | None = None
    p: float | None = None  # for a speed, of being no worse; for accuracy, of no change; adjusted for all cells
