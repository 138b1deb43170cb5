"""The result of a search: the schedule that it found, and how it compares with the best constant and decreasing r.

All losses of the finalists are of the images that had no part in the search, and their speeds of the same rounds.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tomebench.compare.candidates import Candidate, Estimate, candidates_of, of_the_choice, predicted
from tomebench.compare.lines import EACH_ITS_OWN, groups
from tomebench.compare.points import Speed
from tomebench.compare.read import Measured, read_runs
from tomebench.compare.recommend import Recommendation, recommend
from tomebench.errors import RunError
from tomebench.runs.codes import INVALID
from tomebench.runs.goal import Goal
from tomebench.runs.racing import lost_and_gained
from tomebench.runs.rounds import compare
from tomebench.runs.search_facts import SearchFacts
from tomebench.runs.store import Store
from tomebench.runs.top1 import paired
from tomebench.schema import Round
from tomebench.stats import paired_interval


@dataclass(frozen=True)
class Rival:
    """The best constant or decreasing r, and the schedule that was found against it."""

    name: str  # constant or decreasing
    candidate: Candidate
    speed: Speed | None  # of the found schedule over this one, round by round; None where nothing was timed
    loss: Estimate | None  # of the found schedule against this one, on the same images


@dataclass(frozen=True)
class Searched:
    """What a search has found."""

    answer: Recommendation  # of the finalists
    facts: SearchFacts | None = None
    found: Candidate | None = None  # None where nothing keeps the limit, or a finalist failed
    rivals: tuple[Rival, ...] = ()

    @property
    def timed(self) -> bool:
        """Whether it was timed."""
        return self.found is not None and self.found.measured.row.speedup_vs_r0 is not None

    @property
    def beaten(self) -> bool:
        """Whether what was found beats the best constant r of the same limit.

        It is surely faster (has fewer MACs, where nothing was timed), and as counted on the images that had no part in
        the search it keeps the limit, or no constant r does.
        """
        if self.found is None or self.facts is None or self.facts.found == self.facts.constant:
            return False
        own, rival = self.found.estimate, next((each for each in self.rivals if each.name == "constant"), None)
        if own is None or not self.answer.goal.seems(own.lost, own.gained, own.n):
            return False
        if rival is None:
            return True
        if not self.timed:
            return self.found.measured.row.gmacs < rival.candidate.measured.row.gmacs
        return rival.speed is not None and (rival.speed.lo or 0.0) > 1


def searched(directory: Path, goal: Goal) -> Searched:
    """Read what a search has found in a run folder.

    Raises:
        RunError: there is no run, or it was no search.
    """
    measured, _ = read_runs([directory])
    answer = recommend(measured, goal)
    # A search says itself which images it counts.
    answer = dataclasses.replace(answer, remarks=tuple(each for each in answer.remarks if each != EACH_ITS_OWN))
    with Store.read(directory) as store:
        facts, rounds = SearchFacts.of(store), store.rounds()
    if facts is None:
        if answer.chosen is not None:
            raise RunError(f"{directory} holds a run that was no search; name one of tomebench search")
        return Searched(answer)
    (group,) = groups(measured)
    candidates = {each.measured.key: each for each, _ in candidates_of(group, answer.goal, 0, False)}
    seen = np.empty(0, dtype=np.int64) if group.base.seen is None else group.base.seen
    others = np.setdiff1d(seen, of_the_choice(group, 0))
    estimated = {key for key, each in candidates.items() if each.estimate is not None}
    if facts.found is None or not {facts.found, *facts.rivals} <= estimated:
        return Searched(answer, facts)  # not ended, nothing keeps the limit, or a finalist failed
    found = candidates[facts.found]
    rivals = [
        Rival(
            name,
            candidates[key],
            _speed(rounds, candidates[key].measured, found.measured),
            _loss(group.base, candidates[key], found, others, answer.goal),
        )
        for name, key in (("constant", facts.constant), ("decreasing", facts.decreasing))
        if key is not None
    ]
    return Searched(answer, facts, found, tuple(rivals))


def _speed(rounds: Sequence[Round], rival: Measured, found: Measured) -> Speed | None:
    """Speed-up over a rival in the rounds that have both; None where there is no valid one."""
    valid = not INVALID & {*rival.row.warnings, *found.row.warnings}
    estimate = compare(rounds, rival.key, found.key) if valid and rival.key != found.key else None
    if estimate is None:
        return None
    ends = (None, None) if estimate.interval is None else (estimate.interval.lo, estimate.interval.hi)
    return Speed(estimate.value, *ends)


def _loss(
    base: Measured, rival: Candidate, found: Candidate, images: npt.NDArray[np.int64], goal: Goal
) -> Estimate | None:
    """Images on which one of two is right and the other wrong; right by label, or as r = 0 is."""
    first, second = rival.measured, found.measured
    if first is second or base.answers is None or not len(images):
        return None
    zero, one, other = (predicted(each, images) for each in (base, first, second))
    labels = zero.astype(np.int64) if goal.by_agreement else base.answers.images.labels[images]
    lost, gained = lost_and_gained(paired(one, other, labels, by_agreement=False))
    return Estimate(lost, gained, len(images), paired_interval(lost, gained, len(images)))
