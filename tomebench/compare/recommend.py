"""Recommend one row of stored runs: chosen on one half of the images, estimated on the other.

The fastest of many rows that seem to keep a limit is partly lucky on the images that say so. So the choice sees one
half of the images only, and what is said of the chosen row is counted on the other half, where it is any row. Where
cells were stopped (``sweep --until recommended``), the first half in the run's random order is the one of the choice.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tomebench.compare.candidates import Candidate, Estimate, candidates_of, comparable, fast_enough, of_the_choice
from tomebench.compare.lines import Group, groups
from tomebench.compare.names import model_of
from tomebench.compare.read import Measured
from tomebench.runs.codes import CHANCE_LEVEL, PARTIAL_EVAL
from tomebench.runs.goal import Goal
from tomebench.runs.race_facts import RaceFacts
from tomebench.runs.racing import Found, Race, Runner, choose
from tomebench.schema import MAX_DROP
from tomebench.stats import LEVEL, Differences
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
    if not all(each.base.answers.images.labelled for each in usable if each.base.answers):
        goal = goal.without_labels()
    answer = Recommendation(goal, first.base_name, first.over if len(usable) == 1 else None, remarks=remarks)
    if any(CHANCE_LEVEL in group.base.row.warnings for group in usable):
        return dataclasses.replace(answer, why="at chance level")
    rows = [each for group in usable for each in group.rows]
    if any(PARTIAL_EVAL in each.row.warnings for each in rows):
        return dataclasses.replace(answer, why="unfinished")
    if any((race := _race_of(each)) is not None and (race.against or race.goal != goal) for each in rows):
        return dataclasses.replace(answer, why="another question")
    found = comparable([each for group in usable for each in candidates_of(group, goal, seed, len(usable) > 1)], usable)
    fast = [(each, z) for each, z in found if fast_enough(each, goal, usable)]
    if not fast:
        too_slow: Why = "not faster" if goal.min_speedup is None and goal.max_latency_ms is None else "too slow"
        return dataclasses.replace(answer, why=too_slow if found else "nothing to choose from")
    return _chosen(answer, fast, len(of_the_choice(usable[0], seed)))


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
    race = Race(runners, total, answer.goal, "recommended", LEVEL)
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
