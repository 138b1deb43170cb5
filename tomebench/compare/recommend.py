"""Recommend one row of stored runs: chosen on one half of the images, estimated on the other.

The fastest of many rows that seem to keep a limit is partly lucky on the images that say so. So the choice sees one
half of the images only, and what is said of the chosen row is counted on the other half, where it is any row. Where
cells were stopped (``sweep --until recommended``), the first half in the run's random order is the one of the choice.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from tomebench.compare.lines import Group, groups
from tomebench.compare.names import is_plain, model_of
from tomebench.compare.points import Speed
from tomebench.compare.read import Measured
from tomebench.compare.speeds import speed_of, timed_by
from tomebench.runs.codes import CHANCE_LEVEL, INVALID, PARTIAL_EVAL
from tomebench.runs.goal import Goal
from tomebench.runs.race_facts import RaceFacts, half
from tomebench.runs.racing import Found, Race, Runner, choose, lost_and_gained
from tomebench.runs.top1 import paired
from tomebench.schema import MAX_DROP
from tomebench.stats import LEVEL, Differences, Interval, anytime_interval, paired_interval, wilson
from tomebench.stats.needed import enough

Verdict = Literal["surely", "likely", "unlikely", "surely not"]
"""Whether the chosen row keeps the limit of the loss, by its estimate: the whole interval does, the value does, the
value does not, no value of the interval does."""
Why = Literal[
    "nothing to choose from",
    "at chance level",
    "unfinished",
    "another question",
    "not faster",
    "too slow",
    "no images left",
]
"""Why nothing can be said."""
_CLOSE = 3


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


@dataclass(frozen=True)
class Recommendation:
    """The answer: a row with its estimate, or why there is none."""

    goal: Goal
    base: str  # what losses are against
    over: str | None  # what speed-ups are over; None where they are of different runs, or nothing was timed
    chosen: Candidate | None = None  # None also where r = 0 is the best there is
    found: Found | None = None
    verdict: Verdict | None = None  # None without a limit of the loss
    images: int | None = None  # needed in all for an interval within the limit; None where no number would do
    close: tuple[Candidate, ...] = ()
    why: Why | None = None  # nothing can be said
    remarks: tuple[str, ...] = ()


def goal_of(measured: Sequence[Measured]) -> Goal:
    """What the race of stored runs asked, where all asked the same; else the usual loss of top-1."""
    races = [each.answers.race for each in measured if each.answers is not None]
    goals = {race.goal for race in races if race is not None}
    return goals.pop() if len(goals) == 1 else Goal(MAX_DROP)


def recommend(measured: Sequence[Measured], goal: Goal, seed: int = 0) -> Recommendation:
    """Choose the row that answers a question best, and estimate it on images that had no part in the choice.

    Args:
        measured: rows of stored runs, of any methods, models, input sizes and batch sizes.
        goal: limits that the row has to keep. Where images have no labels, a loss of top-1 is one of agreement.
        seed: of the halves, where images are not in a random order already.
    """
    usable, remarks = _against_one_base([group for group in groups(measured) if group.base.answers is not None])
    if not usable:
        return Recommendation(goal, "r=0", None, why="nothing to choose from")
    first = usable[0].comparison
    if goal.max_drop is not None and not all(each.base.answers.images.labelled for each in usable if each.base.answers):
        goal = dataclasses.replace(goal, max_drop=None, min_agreement=100 - goal.max_drop)
    answer = Recommendation(goal, first.base_name, first.over if len(usable) == 1 else None, remarks=remarks)
    if any(CHANCE_LEVEL in group.base.row.warnings for group in usable):
        return dataclasses.replace(answer, why="at chance level")
    rows = [each for group in usable for each in group.rows]
    if any(PARTIAL_EVAL in each.row.warnings for each in rows):
        return dataclasses.replace(answer, why="unfinished")
    if any((race := _race_of(each)) is not None and race.goal != goal for each in rows):
        return dataclasses.replace(answer, why="another question")
    found = _comparable([each for group in usable for each in _candidates(group, goal, seed, len(usable) > 1)], usable)
    fast = [(each, z) for each, z in found if _fast_enough(each, goal, usable)]
    if not fast:
        too_slow: Why = "not faster" if goal.min_speedup is None and goal.max_latency_ms is None else "too slow"
        return dataclasses.replace(answer, why=too_slow if found else "nothing to choose from")
    return _chosen(answer, fast, len(_of_the_choice(usable[0], seed)))


def _against_one_base(found: Sequence[Group]) -> tuple[list[Group], tuple[str, ...]]:
    """Groups whose losses are against the same model and input, that of most MACs; second, remarks."""
    remarks = [text for group in found for text in group.comparison.remarks]
    most = max((group.base.row for group in found), key=lambda row: (row.gmacs, row.params_m), default=None)
    kept = [group for group in found if most is not None and model_of(group.base.row) == model_of(most)]
    for group in found:
        if group not in kept:
            name = group.comparison.setting
            remarks.append(f"rows of {name} are left out: their losses would be against {group.comparison.base_name}")
    return kept, tuple(dict.fromkeys(remarks))


def _race_of(each: Measured) -> RaceFacts | None:
    return each.answers.race if each.answers is not None else None


def _eligible(each: Measured) -> bool:
    """Whether a row may be chosen: of a race for one row, only the one that it chose on all that it needed."""
    race = _race_of(each)
    return race is None or race.until == "decided" or each.key == race.chosen


def _chosen(answer: Recommendation, candidates: Sequence[tuple[Candidate, Differences]], total: int) -> Recommendation:
    numbered = {str(number): pair for number, pair in enumerate(candidates)}
    runners = [Runner(key, each.gain, key, 0.0, differences) for key, (each, differences) in numbered.items()]
    race = Race(runners, total, answer.goal, "all", LEVEL)
    judged = {key: dataclasses.replace(each, keeps=race.verdicts[key]) for key, (each, _) in numbered.items()}
    eligible = dataclasses.replace(race, runners=[each for each in runners if _eligible(judged[each.key].measured)])
    pick = choose(eligible)
    if pick is None:
        return dataclasses.replace(answer, why="nothing to choose from")
    chosen, found = judged[pick[0].key], pick[1]
    if (own := _race_of(chosen.measured)) is not None and own.found is not None and len(eligible.runners) == 1:
        found = own.found
    open_ = [each for each in eligible.runners if len(each.differences) < total and each.gain > chosen.gain]
    if own is not None and own.until == "decided" and any(eligible.seeming[each.key] is None for each in open_):
        return dataclasses.replace(answer, why="another question")
    close = _close(answer.goal, chosen, list(judged.values()))
    if found == "beyond":
        return dataclasses.replace(answer, found=found, close=(chosen, *close)[:_CLOSE])
    answer = dataclasses.replace(answer, chosen=chosen, found=found, close=close)
    if chosen.estimate is None:
        return dataclasses.replace(answer, why="no images left")
    if not answer.goal.limits_loss:
        return answer
    estimate, limit = chosen.estimate, answer.goal.largest_loss
    low, high = (-100 * end for end in (estimate.interval.hi, estimate.interval.lo))
    within = answer.goal.seems(estimate.lost, estimate.gained, estimate.n)
    verdict: Verdict = "likely" if within else "unlikely"
    if high <= limit:
        verdict = "surely"
    elif low > limit:
        verdict = "surely not"
    images = None if verdict != "likely" else _needed(answer.goal, estimate)
    return dataclasses.replace(answer, verdict=verdict, images=images)


def _needed(goal: Goal, estimate: Estimate) -> int | None:
    """Images in all, both halves, with which the interval of such an estimate would be within the limit."""

    def shown(times: float) -> bool:
        n = times * estimate.n
        return goal.shown(round(n))(times * estimate.lost, times * estimate.gained)

    found = enough(estimate.n, shown)
    return None if found is None else 2 * found


def _close(goal: Goal, chosen: Candidate, all_: Sequence[Candidate]) -> tuple[Candidate, ...]:
    """What comes near: faster rows that seem to keep the limit or miss it least, and the next slower that does."""
    others = [each for each in all_ if each.name != chosen.name and each.choice is not None]
    if not goal.limits_loss:
        return tuple(sorted(others, key=lambda each: each.choice.drop if each.choice else 0.0)[:_CLOSE])

    def near(each: Candidate) -> tuple[float, float]:
        drop = each.choice.drop if each.choice else 100.0
        return (max(drop, goal.largest_loss), -each.gain)

    faster = sorted((each for each in others if each.gain > chosen.gain), key=near)
    slower = [each for each in others if each.gain <= chosen.gain and near(each)[0] <= goal.largest_loss]
    return (*faster[: _CLOSE - 1], *sorted(slower, key=near)[:1])


def _candidates(group: Group, goal: Goal, seed: int, several: bool) -> list[tuple[Candidate, Differences]]:
    """Rows of a group with their differences on the images of the choice; their gains are still to be set."""
    names = {
        id(row): f"{line.name} {point.label}".strip()
        for line in group.comparison.lines
        for point in line.points
        for row in point.rows
    }
    base, listed = group.base, len(group.base.answers.images.labels) if group.base.answers else 0
    chosen_on = _of_the_choice(group, seed)
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


def _comparable(
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


def _of_the_choice(group: Group, seed: int) -> npt.NDArray[np.int64]:
    """Indices of the images of the choice, in a random order: the first half of a run in such an order, else drawn."""
    answers = group.base.answers
    if answers is not None and answers.random:
        return np.arange(half(len(answers.images.labels)))
    seen = _seen_by_all(group)
    order = sorted(seen.tolist(), key=lambda i: hashlib.sha256(f"{seed}/half/{i}".encode()).digest())
    return np.array(order[: half(len(order))], dtype=np.int64)


def _seen_by_all(group: Group) -> npt.NDArray[np.int64]:
    found = [each.at for each in group.rows if each.at is not None]
    common = found[0]
    for each in found[1:]:
        common = np.intersect1d(common, each)
    return common


def _common(base: Measured, other: Measured) -> npt.NDArray[np.int64]:
    if base.at is None or other.at is None:
        return np.empty(0, dtype=np.int64)
    return np.intersect1d(base.at, other.at)


def _differences(base: Measured, other: Measured, images: npt.NDArray[np.int64], goal: Goal) -> Differences:
    """Paired differences of a row from the base on images that both have seen, in the order given."""
    first, second = (_predicted(each, images) for each in (base, other))
    labels = base.answers.images.labels[images] if base.answers else np.empty(0, dtype=np.int64)
    return paired(first, second, labels, by_agreement=goal.by_agreement)


def _predicted(each: Measured, images: npt.NDArray[np.int64]) -> npt.NDArray[np.uint16]:
    if each.classes is None or each.at is None:
        return np.empty(0, dtype=np.uint16)
    return each.classes[np.searchsorted(each.at, images)]


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


def _fast_enough(each: Candidate, goal: Goal, usable: Sequence[Group]) -> bool:
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
