"""Candidates of a recommendation: rows with their losses on the images of the choice and on the others."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tomebench.compare.lines import Group
from tomebench.compare.names import is_plain, model_of
from tomebench.compare.points import Speed
from tomebench.compare.read import Measured
from tomebench.compare.speeds import speed_of, timed_by
from tomebench.runs.codes import CHANCE_LEVEL, INVALID
from tomebench.runs.goal import Goal
from tomebench.runs.race_facts import half
from tomebench.runs.racing import lost_and_gained
from tomebench.runs.top1 import paired
from tomebench.schema import seeded_order
from tomebench.stats import Differences, Interval, anytime_interval, paired_interval, wilson


@dataclass(frozen=True)
class Estimate:
    """Loss against r = 0, counted on some images."""

    lost: int
    gained: int
    n: int
    interval: Interval  # 95 %, of the change as a fraction

    @property
    def drop(self) -> float:
        """Loss in points."""
        return 100 * (self.lost - self.gained) / self.n


@dataclass(frozen=True)
class Candidate:
    """A row that may be recommended."""

    name: str
    measured: Measured
    speed: Speed | None  # over r = 0, or the common reference
    gain: float  # by which candidates are ranked: speed-up or images per second, or the MAC ratio
    choice: Estimate | None  # on the images of the choice; None where it was run on none of them
    estimate: Estimate | None  # on the others
    keeps: bool | None  # whether all images of the choice show that it keeps the limit; None where that is open


def candidates_of(group: Group, goal: Goal, seed: int, several: bool) -> list[tuple[Candidate, Differences]]:
    """Rows of a group with their differences on the images of the choice; their gains are still to be set."""
    names = {
        id(row): f"{line.name} {point.label}".strip()
        for line in group.comparison.lines
        for point in line.points
        for row in point.rows
    }
    base, listed = group.base, len(group.base.answers.images.labels) if group.base.answers else 0
    chosen_on = of_the_choice(group, seed)
    in_order = base.answers is not None and base.answers.random
    found = []
    for each in group.rows:
        plain = is_plain(each.row) and model_of(each.row) == model_of(base.row)
        if each.classes is None or (plain and not several) or CHANCE_LEVEL in each.row.warnings:
            continue
        name = "r=0" if plain else names.get(id(each.row), each.row.method)
        seeds = [option for option in each.row.options.split() if option.startswith("seed=")]
        setting = f" ({group.comparison.setting})" if several else ""
        speed = speed_of([each.row], group.column) if group.column and timed_by(each, group.column) else None
        order = chosen_on[np.isin(chosen_on, _common(base, each))]
        if in_order:  # what lies behind the image at which a race stopped it had no part in that
            order = order[order == np.arange(len(order))]
        rest = np.setdiff1d(_common(base, each), chosen_on)
        if in_order and len(rest) < listed - len(chosen_on):  # the race did not choose it
            rest = rest[:0]
        differences = _differences(base, each, order, goal)
        choice = _estimate(differences, goal, stopped=len(order) < len(chosen_on))
        estimate = _estimate(_differences(base, each, rest, goal), goal, stopped=_estimate_is_stopped(base))
        found.append(
            (Candidate(" ".join([name, *seeds]) + setting, each, speed, 0.0, choice, estimate, None), differences)
        )
    return found


def comparable(
    found: Sequence[tuple[Candidate, Differences]], usable: Sequence[Group]
) -> list[tuple[Candidate, Differences]]:
    """Candidates with a gain in one unit; those that lack it are left out.

    That is the speed-up over r = 0 of rows of one model, else over the common reference, else images per second; and
    where nothing was timed, the MACs of the base over those of the row.
    """
    base = usable[0].base.row
    alike = len(usable) == 1 and all(model_of(each.measured.row) == model_of(base) for each, _ in found)
    timed = any(each.measured.row.speedup_vs_r0 is not None for each, _ in found)
    related = len(usable) == 1 and any(each.speed is not None for each, _ in found)

    def gain(each: Candidate) -> float | None:
        row = each.measured.row
        if not timed:
            return base.gmacs / row.gmacs
        if INVALID & {*row.warnings}:
            return None
        if alike:
            return row.speedup_vs_r0
        if related:
            return None if each.speed is None else each.speed.value
        return row.img_per_s

    gains = [(each, differences, gain(each)) for each, differences in found]
    return [(dataclasses.replace(each, gain=value), z) for each, z, value in gains if value is not None]


def _estimate_is_stopped(base: Measured) -> bool:
    """Whether the images behind the first half were counted only until something was known."""
    race = base.answers.race if base.answers else None
    return race is not None and race.until == "decided"


def of_the_choice(group: Group, seed: int) -> npt.NDArray[np.int64]:
    """Indices of the images of the choice, in a random order: the first half of a run in such an order, else drawn."""
    answers = group.base.answers
    if answers is not None and answers.random:
        return np.arange(half(len(answers.images.labels)))
    order = seeded_order(_seen_by_all(group).tolist(), seed, "half")
    return np.array(order[: half(len(order))], dtype=np.int64)


def _seen_by_all(group: Group) -> npt.NDArray[np.int64]:
    found = [each.seen for each in group.rows if each.seen is not None]
    common = found[0]
    for each in found[1:]:
        common = np.intersect1d(common, each)
    return common


def _common(base: Measured, other: Measured) -> npt.NDArray[np.int64]:
    if base.seen is None or other.seen is None:
        return np.empty(0, dtype=np.int64)
    return np.intersect1d(base.seen, other.seen)


def _differences(base: Measured, other: Measured, images: npt.NDArray[np.int64], goal: Goal) -> Differences:
    """Paired differences of a row from the base on images that both have seen, in the order given."""
    first, second = (predicted(each, images) for each in (base, other))
    labels = base.answers.images.labels[images] if base.answers else np.empty(0, dtype=np.int64)
    return paired(first, second, labels, by_agreement=goal.by_agreement)


def predicted(each: Measured, images: npt.NDArray[np.int64]) -> npt.NDArray[np.uint16]:
    """Predicted classes of images that a row has seen, by their indices."""
    if each.classes is None or each.seen is None:
        return np.empty(0, dtype=np.uint16)
    return each.classes[np.searchsorted(each.seen, images)]


def _estimate(differences: Differences, goal: Goal, *, stopped: bool) -> Estimate | None:
    n = len(differences)
    if not n:
        return None
    lost, gained = lost_and_gained(differences)
    if stopped:
        interval = anytime_interval(differences)
    elif goal.by_agreement:
        share = wilson(n - lost, n)
        interval = Interval(share.lo - 1, share.hi - 1)
    else:
        interval = paired_interval(lost, gained, n)
    return Estimate(lost, gained, n, interval)


def fast_enough(each: Candidate, goal: Goal, usable: Sequence[Group]) -> bool:
    """Whether a candidate keeps the limits of speed, and is surely faster than r = 0 where that is what is wanted."""
    row, base = each.measured.row, usable[0].base.row
    if not goal.fast_enough(row):
        return False
    if not goal.limits_loss or len(usable) > 1 or row.speedup_vs_r0 is None:
        return True
    if model_of(row) == model_of(base):
        return (row.speedup_vs_r0_lo or row.speedup_vs_r0) > 1
    over = base.speedup_vs_reference
    return over is None or each.speed is None or (each.speed.lo or each.speed.value) > over
