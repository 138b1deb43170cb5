"""Which row may be recommended; and where none may, which row comes nearest and what would settle it.

A row is recommended if it is surely faster than r = 0 (the lower end of its speed-up interval is above 1) and its loss
is surely within ``max_drop`` points: the whole paired interval is, and so is the Clopper-Pearson bound on the images
lost on balance. The paired interval alone is narrow where few images differ; and the fastest of many rows is the one
with the most luck, so the rows share the error of that bound. Of the rows that qualify it is the fastest. Without
accuracy speed alone decides; without timing the MAC ratio stands for it.

Nothing here asks whether an estimate is above 1, only whether its interval is: a ratio that moves from 0.9999 to 1.0001
changes no advice.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

from tomebench.measure.validity import CHANCE_LEVEL, INVALID
from tomebench.report.series import is_baseline
from tomebench.schema import MAX_DROP, Row
from tomebench.stats import LEVEL, MIN_VALUES, clopper_pearson

REACH = 100
"""No more than this many times the images or rounds are asked for: beyond it, more of them is no advice."""

Choice = Literal[
    "recommended",  # surely faster, surely within
    "speed only",  # surely faster, and no images were asked for
    "agreement",  # surely faster, and the images have no labels
    "images",  # surely faster, and the loss is within as far as the images tell
    "rounds",  # what is surely faster loses more; this row does not, and may be faster
    "seems beyond",  # what is surely faster loses more, as far as the images tell
    "beyond",  # what is surely faster surely loses more
    "not faster",  # nothing is surely faster
    "no accuracy",  # surely faster, and no loss could be counted though there are images
]
_Speed = Literal["faster", "open", "not faster"]
_Loss = Literal["within", "seems within", "seems beyond", "beyond"]


@dataclass(frozen=True)
class Advice:
    """The row to talk about, what may be said about it, and about how much would settle what is open."""

    row: Row
    choice: Choice
    images: int | None = None  # in all; None where they settle nothing, or over REACH times those seen would be needed
    rounds: int | None = None  # likewise

    @property
    def recommended(self) -> bool:
        """The row may be recommended."""
        return self.choice in ("recommended", "speed only", "agreement")


def advise(rows: Sequence[Row], max_drop: float = MAX_DROP) -> Advice | None:
    """The advice of a table by the module's rule.

    Rows that failed, whose codes forbid using them, that repeat a smaller r, or whose top-1 at r = 0 is what guessing
    gives take no part.

    Args:
        rows: of one run or several.
        max_drop: loss of top-1 against r = 0, in points, up to which a row may be recommended.

    Returns:
        None if no row can be compared.
    """
    guessed = {_images_of(row) for row in rows if at_chance(row)}
    usable = [row for row in rows if _usable(row) and _images_of(row) not in guessed]
    if any(row.speedup_vs_r0 is not None for row in usable):
        usable = [row for row in usable if row.speedup_vs_r0 is not None]
    if not usable:
        return None
    evaluated = [row for row in usable if row.delta_top1 is not None]
    return _by_both(evaluated, max_drop) if evaluated else _by_speed(usable)


def at_chance(row: Row) -> bool:
    """True for a row of r = 0 whose top-1 is what guessing gives."""
    return is_baseline(row) and CHANCE_LEVEL in row.warnings


def _by_speed(rows: Sequence[Row]) -> Advice:
    unlimited = [row for row in rows if not row.clamped] or rows  # beyond the cap r says nothing about the tokens
    faster = [row for row in unlimited if _speed(row) == "faster"]
    if not faster:
        return _not_faster(unlimited, [row for row in unlimited if _rounds(row) is not None])
    row = max(faster, key=_gain)
    if row.agreement is not None:
        return Advice(row, "agreement")
    return Advice(row, "no accuracy" if any(row.n_seen for row in rows) else "speed only")


def _by_both(rows: Sequence[Row], max_drop: float) -> Advice:
    faster = [row for row in rows if _speed(row) == "faster"]
    chances = len(rows)  # not only of the faster ones: a wider speed-up interval must not make the others bolder
    losses = {id(row): _loss(row, max_drop, chances) for row in rows}
    if within := [row for row in faster if losses[id(row)] == "within"]:
        return Advice(max(within, key=_gain), "recommended")
    if open_ := [row for row in faster if losses[id(row)] == "seems within"]:
        needs = {id(row): _images(row, max_drop, chances) for row in open_}
        row = max([row for row in open_ if needs[id(row)] is not None] or open_, key=_gain)
        return Advice(row, "images", needs[id(row)])
    promising = [row for row in rows if losses[id(row)] in ("within", "seems within") and _rounds(row) is not None]
    if not faster or promising:
        found = _not_faster(rows, promising, "rounds" if faster else "not faster")
        images = _images(found.row, max_drop, chances) if losses[id(found.row)] == "seems within" else None
        return Advice(found.row, found.choice, images, found.rounds) if found.rounds is not None else found
    if unsure := [row for row in faster if losses[id(row)] == "seems beyond"]:
        row = max(unsure, key=_least_loss)
        return Advice(row, "seems beyond", _images_to_refuse(row, max_drop))
    return Advice(max(faster, key=_least_loss), "beyond")


def _not_faster(rows: Sequence[Row], promising: Sequence[Row], choice: Choice = "not faster") -> Advice:
    row = max(promising or rows, key=_gain)
    return Advice(row, choice, rounds=_rounds(row) if promising else None)


def _usable(row: Row) -> bool:
    excluded = any(code in INVALID or code.startswith("SAME_AS_R") for code in row.warnings)
    return row.status in ("ok", "unconverged") and not is_baseline(row) and not excluded


def _images_of(row: Row) -> tuple[object, ...]:
    """What top-1 at r = 0 depends on."""
    return (row.model, row.weights, row.img_size, row.dtype, row.device, row.dataset_digest)


def _gain(row: Row) -> float:
    return row.mac_ratio if row.speedup_vs_r0 is None else row.speedup_vs_r0


def _least_loss(row: Row) -> tuple[float, float]:
    return _delta(row), _gain(row)


def _delta(row: Row) -> float:
    return row.delta_top1 if row.delta_top1 is not None else float("-inf")


def _speed(row: Row) -> _Speed:
    if row.speedup_vs_r0 is None:
        return "faster" if row.mac_ratio > 1 else "not faster"  # counted, so there is nothing uncertain about it
    if row.speedup_vs_r0_lo is None or row.speedup_vs_r0_hi is None:
        return "open"
    if row.speedup_vs_r0_lo > 1:
        return "faster"
    return "open" if row.speedup_vs_r0_hi > 1 else "not faster"


def _loss(row: Row, max_drop: float, chances: int) -> _Loss:
    if _surely_within(row, max_drop, chances):
        return "within"
    if _delta(row) >= -max_drop:
        return "seems within"
    return "beyond" if row.delta_top1_hi is not None and row.delta_top1_hi < -max_drop else "seems beyond"


def _surely_within(row: Row, max_drop: float, chances: int) -> bool:
    if row.delta_top1_lo is None or row.delta_top1_lo < -max_drop or not row.n_seen:
        return False
    lost = max(0, round(-_delta(row) * row.n_seen / 100))
    return 100 * clopper_pearson(lost, row.n_seen, level=_level(chances)).hi <= max_drop


def _level(chances: int) -> float:
    """Level of each of several intervals that hold together at LEVEL, by Bonferroni."""
    return 1 - (1 - LEVEL) / chances


def _images(row: Row, max_drop: float, chances: int) -> int | None:
    """About how many images would show that the loss is within, if it stays as it is: both bounds have to hold."""
    low, n, limit, lost = row.delta_top1_lo, row.n_seen, max_drop / 100, max(0.0, -_delta(row) / 100)
    if low is None or not n or not lost < limit < 1:
        return None
    errors = NormalDist().inv_cdf((1 + _level(chances)) / 2) / (limit - lost)
    needed = errors * errors * limit * (1 - limit)  # the score test of the images lost
    width = _delta(row) - low
    # An interval that is no wider than where no image differs at all does not shrink like a root; see the other bound.
    if width > 100 * clopper_pearson(0, n).hi:
        widths = width / (_delta(row) + max_drop)
        needed = max(needed, n * widths * widths)
    return _about(needed, n)


def _images_to_refuse(row: Row, max_drop: float) -> int | None:
    """About how many images would show that the loss is beyond, if it stays as it is."""
    if row.delta_top1_hi is None or not row.n_seen:
        return None
    widths = (row.delta_top1_hi - _delta(row)) / (-max_drop - _delta(row))
    return _about(row.n_seen * widths * widths, row.n_seen)


def _rounds(row: Row) -> int | None:
    """About how many rounds would show that a row is faster, if its speed-up stays as it is; None if none would."""
    value, low = row.speedup_vs_r0, row.speedup_vs_r0_lo
    if _speed(row) != "open" or value is None or not row.rounds:
        return None
    if low is None:
        return MIN_VALUES if row.rounds < MIN_VALUES else None
    if value <= 1 or low <= 0:
        return None
    widths = math.log(value / low) / math.log(value)
    return _about(row.rounds * widths * widths, row.rounds)


def _about(needed: float, done: int) -> int | None:
    """Rounded up to two digits, and more than there are; None if out of reach."""
    needed = max(needed, done + 1)
    if needed > REACH * done:
        return None
    step = 10 ** max(0, math.floor(math.log10(needed)) - 1)
    return math.ceil(needed / step) * step
