"""Racing: which cells to run on which of the next images, so that no image is spent on what is known already.

Images are in a random order, so those seen so far tell what all of them would say (:func:`tomebench.stats.foreseen`).
``decided`` stops a cell as soon as that is known of it. ``recommended`` asks for one row only, on the first half of the
images: the fastest that keeps the limit. Cells slower than one that does are not run on more, nor those of the same
line (method, options, schedule) that remove more than one that does not; of what is open only two cells of a line
matter, the fastest that seems to keep the limit and its faster neighbour, and of them the one nearer to the limit runs.
Where no cell surely keeps the limit, or so few images could not show that any does, the same is asked of what all of
them would seem to say. Without a limit of the loss all cells run that may still be the most accurate.

Pure functions of stored predictions: a race that is stopped and resumed, or shared by processes, takes the same steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from tomebench.runs.goal import Goal, Shown
from tomebench.stats import Differences, evidence, foreseen, set_interval

Until = Literal["decided", "recommended", "all"]
_FIRST = 64
_GROWTH = 1.05


@dataclass(frozen=True)
class Runner:
    """A cell in a race, apart from r = 0."""

    key: str
    gain: float  # speed-up, or the MAC ratio where nothing was timed
    line: Hashable  # cells of one line lose the more images, the more tokens they remove
    removed: float  # by which they are ordered within it
    differences: Differences  # from r = 0, of the images that it has been run on, in their order


@dataclass(frozen=True)
class Race:
    """State of a race at the end of a stage, when all runners have been run as far as they were asked to be.

    Args:
        runners: all cells but r = 0.
        total: images that the race is about, the first ones of the list.
        goal: what a row has to keep.
        until: when it is over: ``decided`` or ``recommended``.
        level: of the interval by which a limit counts as kept.
        known: verdicts found before, by key, number of images and whether they are about being sure; those found here
            are added.
    """

    runners: Sequence[Runner]
    total: int
    goal: Goal
    until: Until
    level: float
    known: dict[tuple[str, int, bool], bool | None] = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def surely(self) -> Shown:
        """Whether counts of all images of the race show that the limit is kept, by their whole interval."""
        return self.goal.shown(self.total, self.level)

    @cached_property
    def can_be_sure(self) -> bool:
        """Whether there are enough images to show it, if none changes; otherwise what they seem to say is asked."""
        return self.surely(0, 0)

    @cached_property
    def verdicts(self) -> Mapping[str, bool | None]:
        """Whether all images would show that a cell keeps the limit; None where that is open. By key."""
        return self._verdicts(self.can_be_sure)

    @cached_property
    def seeming(self) -> Mapping[str, bool | None]:
        """Whether the loss that all images count would be within the limit; None where that is open. By key."""
        return self._verdicts(False)

    def _verdicts(self, sure: bool) -> dict[str, bool | None]:
        return {each.key: self._verdict(each, sure) for each in self.runners}

    def _verdict(self, runner: Runner, sure: bool) -> bool | None:
        at = (runner.key, len(runner.differences), sure)
        if at not in self.known:
            self.known[at] = foreseen(runner.differences, self.total, self._shown(sure))
        return self.known[at]

    def _shown(self, sure: bool) -> Shown:
        return self.surely if sure else lambda lost, gained: self.goal.seems(lost, gained, self.total)

    def next(self) -> list[str]:
        """Keys of the cells to run on more images; none where the race is over."""
        if not self.goal.limits_loss:
            return self._may_be_best()
        if self.until == "decided":
            open_ = [each for each in self.runners if self.verdicts[each.key] is None]
            least = min((len(each.differences) for each in open_), default=0)
            return [each.key for each in open_ if len(each.differences) == least]
        asked = self._to_find_fastest(self.verdicts, self.can_be_sure)
        if asked or not self.can_be_sure or any(self.verdicts.values()):
            return asked
        return self._to_find_fastest(self.seeming, False)  # none is sure: the fastest that seems to keep it

    def _to_find_fastest(self, verdicts: Mapping[str, bool | None], sure: bool) -> list[str]:
        accepted = max((each.gain for each in self.runners if verdicts[each.key]), default=-math.inf)
        lines: dict[Hashable, list[Runner]] = {}
        for each in self.runners:
            rejected = [
                other.removed for other in self.runners if other.line == each.line and verdicts[other.key] is False
            ]
            open_ = verdicts[each.key] is None and each.gain > accepted
            if open_ and each.removed < min(rejected, default=math.inf):
                lines.setdefault(each.line, []).append(each)
        if unseen := [line for line in lines.values() if not any(len(each.differences) for each in line)]:
            return [sorted(line, key=_removed)[len(line) // 2].key for line in unseen]
        if not lines:
            return []

        def nearness(runner: Runner) -> float:
            return evidence(runner.differences, self.total, self._shown(sure)) if len(runner.differences) else -math.inf

        def guess(line: Sequence[Runner]) -> tuple[float, str]:
            """Speed of the fastest cell of a line that seems to keep the limit; 0 where none does."""
            return max(((each.gain, each.key) for each in line if nearness(each) >= 0), default=(0.0, line[0].key))

        # The line whose best guess is the fastest: if that is right, the others need no more images.
        line = max((sorted(line, key=_removed) for line in lines.values()), key=guess)
        return [_nearest(line, nearness)]

    def _may_be_best(self) -> list[str]:
        """Cells that may still be the most accurate, if there is more than one: first those that lag behind."""
        most = max((len(each.differences) for each in self.runners), default=0)
        if not most:
            return [each.key for each in self.runners]
        best = self.best
        left = [each for each in self.runners if each is best or not self._surely_worse(each, best)]
        if lagging := [each.key for each in left if len(each.differences) < most]:
            return lagging
        return [each.key for each in left] if len(left) > 1 and most < self.total else []

    @property
    def best(self) -> Runner:
        """The most accurate of the cells that have been run on most images."""
        most = max(len(each.differences) for each in self.runners)
        return max((each for each in self.runners if len(each.differences) == most), key=_mean)

    def _surely_worse(self, runner: Runner, best: Runner) -> bool:
        n = len(runner.differences)
        # Both are from r = 0, so that what is between them is again -1, 0 or 1.
        return n > 0 and set_interval(runner.differences - best.differences[:n], self.total).hi < 0


def _nearest(line: Sequence[Runner], nearness: Callable[[Runner], float]) -> str:
    """The cell of a line to run next: on either side of where the limit seems to be, the one nearer to it."""
    within = [at for at, each in enumerate(line) if nearness(each) >= 0]
    seen = [at for at, each in enumerate(line) if len(each.differences)]
    at, beside = (max(within), max(within) + 1) if within else (min(seen), min(seen) - 1)
    pair = [line[at], *(line[i] for i in (beside,) if 0 <= i < len(line))]
    return min(pair, key=lambda each: abs(nearness(each)) if len(each.differences) else -1.0).key


Found = Literal["sure", "seems", "beyond", "best"]
"""What is said of the row that a race chooses: all images of the race show that it keeps the limit, it seems to, no
row seems to and this one loses least; or, without a limit of the loss, that it is the most accurate."""


def choose(race: Race) -> tuple[Runner, Found] | None:
    """The runner that a race ends with, and what is said of it; None without any that has been run."""
    seen = [each for each in race.runners if len(each.differences)]
    if not seen:
        return None
    if not race.goal.limits_loss:
        return race.best, "best"
    if race.can_be_sure and (sure := [each for each in seen if race.verdicts[each.key]]):
        return max(sure, key=_gain), "sure"
    if within := [each for each in seen if race.seeming[each.key]]:
        return max(within, key=_gain), "seems"
    return max(seen, key=_mean), "beyond"


def lost_and_gained(differences: Differences) -> tuple[int, int]:
    """Images lost and images gained among paired differences."""
    return int((differences < 0).sum()), int((differences > 0).sum())


def _gain(runner: Runner) -> tuple[float, str]:
    return (runner.gain, runner.key)


def _mean(runner: Runner) -> tuple[float, float, str]:
    return (float(runner.differences.mean()), *_gain(runner))


def _removed(runner: Runner) -> tuple[float, str]:
    return (runner.removed, runner.key)


def stages(total: int, batch_size: int) -> tuple[int, ...]:
    """Numbers of batches after which cells of a race are judged, the last with all ``total`` images."""
    found, at = [], float(_FIRST)
    last = math.ceil(total / batch_size)
    while (batches := math.ceil(at / batch_size)) < last:
        found.append(batches)
        at *= _GROWTH
    return (*dict.fromkeys(found), last)
