"""Recommendation of an r: the fastest row with a surely tolerable loss, or how many images or rounds would settle it.

A row qualifies if it is surely faster than r = 0 (the lower end of its speed-up interval is above 1) and its loss of
top-1 is surely within ``max_drop`` points (the whole paired interval is). Since the best of many rows is partly luck,
the level of the interval is that at which the intervals of all rows hold together (Bonferroni). The fastest row that
qualifies is recommended. Without labels a row cannot lose more images than those on which it disagrees with r = 0;
without images speed alone decides; without timing the MAC ratio takes the place of the speed-up. Unfinished rows are
not recommended.

Decisions use intervals, never estimates: a ratio that moves from 0.9999 to 1.0001 changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tomebench.report.series import is_baseline
from tomebench.runs.codes import CHANCE_LEVEL, INTERRUPTED, INVALID, PARTIAL_EVAL, SAME_AS_R, STOPPED
from tomebench.runs.row import Row
from tomebench.schema import MAX_DROP
from tomebench.stats import LEVEL, MIN_VALUES, Interval, fewest_images, paired_interval, processes_needed, wilson
from tomebench.stats.needed import REACH, about, enough

Choice = Literal[
    "recommended",  # surely faster, loss surely within the limit; without labels: whatever the labels are
    "speed only",  # surely faster, and no images were asked for
    "agreement",  # surely faster, but on too many images without labels the prediction differs from that of r = 0
    "images",  # surely faster, loss within the limit but not surely: more images would tell
    "rounds",  # rows that are surely faster lose more; this row does not and may be faster: more rounds would tell
    "seems beyond",  # rows that are surely faster lose more, but not surely
    "beyond",  # rows that are surely faster surely lose more
    "open",  # no row is surely faster, and those that may be seem to lose more
    "not faster",  # no row is surely faster
    "no accuracy",  # surely faster, but no loss could be measured although there are images
    "unfinished",  # no finished row is recommended, and others are unfinished
    "stopped",  # rows were stopped by a race, each on images of its own
]
_Speed = Literal["faster", "open", "not faster"]
_Loss = Literal["within", "seems within", "seems beyond", "beyond"]


@dataclass(frozen=True)
class Advice:
    """The row that is recommended or comes nearest, the verdict on it, and how much more data would settle it."""

    row: Row
    choice: Choice
    images: int | None = None  # needed in all; None where they settle nothing, or over REACH times those seen
    rounds: int | None = None  # likewise
    processes: int | None = None  # likewise, instead of rounds, where several processes have measured the row
    chances: int = 1  # number of rows compared, for the Bonferroni level of its loss
    labelled: int | None = None  # fewest images with labels that could tell, where those without cannot
    sooner: tuple[Row, int] | None = None  # another row that needs at most half as many images, and their number

    @property
    def recommended(self) -> bool:
        """Whether the row is recommended."""
        return self.choice in ("recommended", "speed only")


def advise(rows: Sequence[Row], max_drop: float = MAX_DROP) -> Advice | None:
    """Choose the row to recommend, or the one that comes nearest, by the module's rule.

    Of a run whose rows were stopped, each on images of its own, ``tomebench recommend`` says it; here none is. Left out
    are rows that failed, that have an invalidating code, that repeat a smaller r, or whose top-1 at r = 0 is
    at chance level.

    Args:
        rows: of one run or several.
        max_drop: largest tolerable loss of top-1 against r = 0, in points.

    Returns:
        None if no row can be compared.
    """
    stopped = [row for row in rows if STOPPED & {*row.warnings}]
    if stopped and not any(PARTIAL_EVAL in row.warnings for row in rows):
        return Advice(max(stopped, key=_gain), "stopped")
    guessed = {_images_of(row) for row in rows if at_chance(row)}
    usable = [row for row in rows if _usable(row) and _images_of(row) not in guessed]
    if any(row.speedup_vs_r0 is not None for row in usable):
        usable = [row for row in usable if row.speedup_vs_r0 is not None]
    if not usable:
        return None
    finished = [row for row in usable if not {INTERRUPTED, PARTIAL_EVAL} & {*row.warnings}]
    found = _by_losses(finished, max_drop) if finished else None
    if len(finished) < len(usable) and (found is None or not found.recommended):
        return Advice(max((row for row in usable if row not in finished), key=_gain), "unfinished")
    return found


def at_chance(row: Row) -> bool:
    """Whether a row is that of r = 0, with a top-1 at chance level."""
    return is_baseline(row) and CHANCE_LEVEL in row.warnings


def _by_losses(rows: Sequence[Row], max_drop: float) -> Advice:
    if evaluated := [row for row in rows if row.delta_top1 is not None]:
        return _by_both(evaluated, max_drop)
    unlimited = [row for row in rows if not row.clamped] or rows  # clamped rows do not remove r tokens per layer
    faster = [row for row in unlimited if _speed(row) == "faster"]
    if not faster:
        maybe = [row for row in unlimited if _speed(row) == "open"]
        promising = [row for row in maybe if _rounds(row) is not None]
        return _of(max(promising or maybe or unlimited, key=_gain), "not faster")
    agreeing = [row for row in rows if row.agreed is not None]
    if agreeing:
        found = [row for row in faster if row.agreed is not None] or faster
        return _by_agreement(found, max_drop, _chances(agreeing))
    return Advice(max(faster, key=_gain), "no accuracy" if any(row.n_seen for row in rows) else "speed only")


def _by_agreement(faster: Sequence[Row], max_drop: float, chances: int) -> Advice:
    within = [row for row in faster if most_lost(row, chances) <= max_drop]
    if within:
        return Advice(max(within, key=_gain), "recommended", chances=chances)
    row = max(faster, key=lambda row: (row.agreement or 0.0, _gain(row)))
    images = enough(row.n_seen or 0, lambda times: most_lost(row, chances, times) <= max_drop)
    fewest = fewest_images(max_drop / 100, level=_level(chances))
    return Advice(row, "agreement", images, chances=chances, labelled=fewest)


def _by_both(rows: Sequence[Row], max_drop: float) -> Advice:
    faster = [row for row in rows if _speed(row) == "faster"]
    chances = _chances(rows)  # of all rows: if fewer counted as faster, the level of the others must not drop
    losses = {id(row): _loss(row, max_drop, chances) for row in rows}
    if within := [row for row in faster if losses[id(row)] == "within"]:
        return Advice(max(within, key=_gain), "recommended", chances=chances)
    if open_ := [row for row in faster if losses[id(row)] == "seems within"]:
        needs = {id(row): _images_to_accept(row, max_drop, chances) for row in open_}
        row = max([row for row in open_ if needs[id(row)] is not None] or open_, key=_gain)
        fewest = min(open_, key=lambda row: (needs[id(row)] or math.inf, -_gain(row)))
        asked, least = needs[id(row)], needs[id(fewest)]
        sooner = (fewest, least) if asked and least and 2 * least <= asked else None
        return Advice(row, "images", asked, chances=chances, sooner=sooner)
    maybe = [row for row in rows if losses[id(row)] in ("within", "seems within") and _speed(row) == "open"]
    promising = [row for row in maybe if _rounds(row) is not None]
    if promising or (maybe and not faster):
        row = max(promising or maybe, key=_gain)
        images = _images_to_accept(row, max_drop, chances) if losses[id(row)] == "seems within" else None
        return _of(row, "rounds" if faster else "not faster", images)
    if not faster:
        maybe = [row for row in rows if _speed(row) == "open"]
        return Advice(max(maybe or rows, key=_gain), "open" if maybe else "not faster")
    if unsure := [row for row in faster if losses[id(row)] == "seems beyond"]:
        row = max(unsure, key=_least_loss)
        return Advice(row, "seems beyond", _images_to_refuse(row, max_drop))
    return Advice(max(faster, key=_least_loss), "beyond")


def _of(row: Row, choice: Choice, images: int | None = None) -> Advice:
    if (row.processes or 1) > 1:
        return Advice(row, choice, images, processes=_rounds(row))
    return Advice(row, choice, images, _rounds(row))


def _usable(row: Row) -> bool:
    excluded = any(code in INVALID or code.startswith(SAME_AS_R) for code in row.warnings)
    return row.status in ("ok", "unconverged") and not is_baseline(row) and not excluded


def _images_of(row: Row) -> tuple[object, ...]:
    """Key of the r = 0 that a row is compared with: all that its top-1 depends on."""
    return (row.model, row.weights, row.img_size, row.dtype, row.device, row.dataset_digest)


def _gain(row: Row) -> float:
    return row.mac_ratio if row.speedup_vs_r0 is None else row.speedup_vs_r0


def _least_loss(row: Row) -> tuple[float, float]:
    return _delta(row), _gain(row)


def _delta(row: Row) -> float:
    return row.delta_top1 if row.delta_top1 is not None else float("-inf")


def _speed(row: Row) -> _Speed:
    if row.speedup_vs_r0 is None:
        return "faster" if row.mac_ratio > 1 else "not faster"  # a count, without uncertainty
    if row.speedup_vs_r0_lo is None or row.speedup_vs_r0_hi is None:
        return "open"
    if row.speedup_vs_r0_lo > 1:
        return "faster"
    return "open" if row.speedup_vs_r0_hi > 1 else "not faster"


def _loss(row: Row, max_drop: float, chances: int) -> _Loss:
    if _delta(row) < -max_drop:
        return "beyond" if _paired(row, 1).hi < -max_drop / 100 else "seems beyond"
    return "within" if _paired(row, chances).lo >= -max_drop / 100 else "seems within"


def _paired(row: Row, chances: int, times: float = 1.0) -> Interval:
    """Paired interval of the change of top-1, as a fraction, as if ``times`` as many like images had been seen."""
    if row.top1_lost is None or row.top1_gained is None or not row.n_seen:
        return Interval(-1.0, 1.0)
    lost, gained, n = (times * count for count in (row.top1_lost, row.top1_gained, row.n_seen))
    return paired_interval(lost, gained, n, level=_level(chances))


def most_lost(row: Row, chances: int, times: float = 1.0) -> float:
    """Upper bound of the loss of top-1 without labels, in points: the share of images that disagree with r = 0.

    Args:
        row: of the table.
        chances: number of rows compared, for the Bonferroni level.
        times: as if that many times as many images had been seen.
    """
    agreed, n = times * (row.agreed or 0), times * (row.n_seen or 0)
    return 100 * (1 - wilson(agreed, n, level=_level(chances)).lo)


def _chances(rows: Sequence[Row]) -> int:
    """Number of different losses among rows, for Bonferroni: rows that differ in speed only share one."""
    return len({(*_images_of(row), row.method, row.options, row.schedule, row.r) for row in rows})


def _level(chances: int) -> float:
    """Level of each of ``chances`` intervals that together hold at LEVEL (Bonferroni)."""
    return 1 - (1 - LEVEL) / chances


def _images_to_accept(row: Row, max_drop: float, chances: int) -> int | None:
    """Images needed to show that the loss is within the limit, if rates stay as they are; exact if no image changed."""
    if unchanged(row):
        fewest = fewest_images(max_drop / 100, level=_level(chances))
        return None if fewest is None or fewest > REACH * (row.n_seen or 0) else fewest
    return enough(row.n_seen or 0, lambda times: _paired(row, chances, times).lo >= -max_drop / 100)


def unchanged(row: Row) -> bool:
    """Whether no image was lost or gained, so that a number of images needed is a minimum."""
    return row.top1_lost == row.top1_gained == 0


def _images_to_refuse(row: Row, max_drop: float) -> int | None:
    """Images needed to show that the loss is beyond the limit, if rates stay as they are."""
    return enough(row.n_seen or 0, lambda times: _paired(row, 1, times).hi < -max_drop / 100)


def _rounds(row: Row) -> int | None:
    """Rounds needed to show that a row is faster, if its speed-up stays as it is; None if no number would.

    Processes instead of rounds, where several have measured the row.
    """
    value, low = row.speedup_vs_r0, row.speedup_vs_r0_lo
    if _speed(row) != "open" or value is None or not row.rounds:
        return None
    if low is None:
        return MIN_VALUES if row.rounds < MIN_VALUES else None
    if value <= 1 or low <= 0:
        return None
    if (several := row.processes or 1) > 1:
        return about(processes_needed(math.log(value / low), several, math.log(value)), several)
    widths = math.log(value / low) / math.log(value)
    return about(row.rounds * widths * widths, row.rounds)
