"""What is evaluated next: every batch that a cell lacks, or, in a race, as many as decide what is open.

The batches of a stage depend on the predictions of the stages before and on nothing else, so that a race which was
stopped in the middle of a stage, or which several processes share, goes through the same stages.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from tomebench.datasets.images import ImageSet
from tomebench.datasets.loader import batch_count
from tomebench.runs.codes import INVALID, SAME_AS_R
from tomebench.runs.goal import gain_of
from tomebench.runs.race_facts import RACE, RaceFacts, images_of
from tomebench.runs.racing import Found, Race, Runner, choose, stages
from tomebench.runs.row import Row
from tomebench.runs.rows import read_cells
from tomebench.runs.standing import Top1, differences_at, reached
from tomebench.runs.store import Store
from tomebench.runs.top1 import NO_PREDICTION
from tomebench.schema import Cell, Chunk
from tomebench.stats import LEVEL
from tomebench.sweeps.config import SweepConfig
from tomebench.sweeps.job import Job

Work = list[tuple[int, list[str]]]
"""Indices of batches, in ascending order, each with the keys of the cells to run on it."""


class Board(Protocol):
    """Says what is evaluated next."""

    def next(self, live: Sequence[str]) -> Work:
        """The next stage, without cells that have failed; nothing where all is done."""

    def add(self, chunk: Chunk) -> None:
        """Take note of an evaluated batch."""

    def close(self, store: Store) -> None:
        """Record that all is done."""


Boards = Callable[[Job, ImageSet], Board]
"""Makes the board of a sweep from its cells and images."""


class OneStage:
    """Batches that cells are asked for on, all at once.

    Args:
        done: keys of the cells that were evaluated, by index of the batch.
        asked: batches and the key of the cell to run on them.
    """

    def __init__(self, done: Mapping[int, set[str]], asked: Sequence[tuple[range, str]]) -> None:
        self._done, self._asked = done, asked
        self._over = False

    def next(self, live: Sequence[str]) -> Work:
        """All that is missing, once."""
        over, self._over = self._over, True
        return [] if over else missing(self._done, [each for each in self._asked if each[1] in live])

    def add(self, chunk: Chunk) -> None:
        """Nothing to note: there is one stage."""

    def close(self, store: Store) -> None:
        """Nothing to record: what is missing shows."""


def not_chosen_on(facts: RaceFacts, images: int, batch_size: int) -> range:
    """Batches with images that have no part in what a race chooses."""
    return range(facts.total // batch_size, batch_count(images, batch_size))


def missing(done: Mapping[int, set[str]], asked: Iterable[tuple[Iterable[int], str]]) -> Work:
    """What has not been evaluated of batches and the cells that are asked for on them."""
    found: dict[int, list[str]] = {}
    for batches, key in asked:
        for index in batches:
            keys = found.setdefault(index, [])
            if key not in keys and key not in done.get(index, ()):
                keys.append(key)
    return sorted((index, keys) for index, keys in found.items() if keys)


def board_of(job: Job, image_set: ImageSet) -> Board:
    """What a sweep evaluates of its images: all, or in stages."""
    store, config, total = job.store, job.config, len(image_set)
    if config.until in (None, "all"):
        if config.until is not None:
            store.put(RACE, {"until": "all"})
        every = range(batch_count(total, job.batch_size))
        return OneStage(store.evaluated(), [(every, key) for key in job.passes.models])
    goal, rows = config.goal, read_cells(store)[0]
    racers = {
        cell.key: Racer(gain_of(rows[cell.key]), line_of(cell), -resolved.gmacs)
        for cell, resolved in store.cells()
        if not cell.is_baseline and cell.key in job.passes.models and may_win(rows[cell.key], config)
    }
    level = LEVEL
    if config.until == "decided":  # every row of the table is judged at once
        level = 1 - (1 - LEVEL) / max(1, len(racers))
    facts = RaceFacts(config.until, goal, images_of(config.until, total), level)
    store.put(RACE, facts.to_json())
    labels = image_set.info.labels
    return Racing(facts, racers, job.baseline, labels, job.batch_size, store.top1())


def may_win(row: Row, config: SweepConfig) -> bool:
    """Whether a cell may be what a race looks for, by its speed."""
    if any(code.startswith(SAME_AS_R) for code in row.warnings):  # another row stands for it
        return False
    if config.until != "recommended":
        return True
    if row.speedup_vs_r0 is not None and INVALID & {*row.warnings}:
        return False
    slow = config.goal.limits_loss and row.speedup_vs_r0 is not None and (row.speedup_vs_r0_lo or 1.0) <= 1
    return config.goal.fast_enough(row) and not slow


def line_of(cell: Cell) -> Hashable:
    """What cells have in common that differ in r only; a list of r for every layer is a line of its own."""
    return (cell.method, cell.options, cell.prop_attn, cell.schedule)


class Racer(NamedTuple):
    """What a race knows of a cell besides its predictions."""

    gain: float  # speed-up, or the MAC ratio
    line: Hashable  # method, options and schedule
    removed: float  # order of the cells of a line


class Stages:
    """Stages of a race, after each of which it is judged which cells are run on more images.

    Args:
        facts: of the race.
        baseline: key of r = 0, which is run wherever another cell is.
        labels: true classes of the images, [n] or [n, k].
        batch_size: images per batch.
        top1: predictions that there are already, by key of the cell and index of the batch.
    """

    def __init__(
        self,
        facts: RaceFacts,
        baseline: str,
        labels: npt.NDArray[np.int64],
        batch_size: int,
        top1: Mapping[str, Top1],
    ) -> None:
        self._facts, self._baseline, self._labels, self._batch_size = facts, baseline, labels, batch_size
        self._top1 = {key: dict(found) for key, found in top1.items()}

    def add(self, chunk: Chunk) -> None:
        """Take note of an evaluated batch."""
        for key, found in chunk.predictions.items():
            self._top1.setdefault(key, {})[chunk.index] = found.top1

    def close(self, store: Store) -> None:
        """Record that the race is over."""
        store.put(RACE, dataclasses.replace(self._facts, over=True).to_json())

    def _of(self, key: str) -> Top1:
        return self._top1.get(key, {})

    def _reached(self, key: str) -> int:
        return reached(self._of(self._baseline), self._of(key), self._facts, self._batch_size)

    def _stage(self, key: str) -> range:
        """Batches that take a cell to its next stage."""
        at = self._reached(key)
        return range(at, next(stage for stage in stages(self._facts.total, self._batch_size) if stage > at))

    def _missing(self, asked: Sequence[tuple[range, str]]) -> Work:
        """What is asked for, and r = 0 on the same batches, as far as it was not evaluated."""
        done: dict[int, set[str]] = {}
        for key, found in self._top1.items():
            for index in found:
                done.setdefault(index, set()).add(key)
        return missing(done, [*((batches, self._baseline) for batches, _ in asked), *asked])


class Racing(Stages):
    """Stages of a race; then, where one row is recommended, that row on the images that had no part in choosing it.

    Args:
        facts: of the race.
        racers: cells to choose from, by key.
        further: arguments of :class:`Stages` after the facts.
        estimated: evaluate the row that ``recommended`` chooses on the images that had no part in it.
    """

    def __init__(self, facts: RaceFacts, racers: Mapping[str, Racer], *further: Any, estimated: bool = True) -> None:
        super().__init__(facts, *further)
        self._racers, self._estimated = racers, estimated
        self._known: dict[tuple[str, int, bool], bool | None] = {}
        self._chosen: tuple[Runner, Found] | None = None
        self._last: Race | None = None

    def close(self, store: Store) -> None:
        """Record that the race is over, and what it has chosen."""
        runner, found = self._chosen or (None, None)
        key = None if runner is None else runner.key
        store.put(RACE, dataclasses.replace(self._facts, over=True, chosen=key, found=found).to_json())

    def next(self, live: Sequence[str]) -> Work:
        """The next stage, without cells that have failed; nothing where the race is over and its row estimated."""
        race = self._last = self._race(live)
        asked = [(self._stage(key), key) for key in race.next()]
        if not asked and self._facts.until == "recommended":
            self._chosen = choose(race)
            if self._estimated and self._chosen is not None and self._chosen[1] != "beyond":
                asked = [(not_chosen_on(self._facts, len(self._labels), self._batch_size), self._chosen[0].key)]
        return self._missing(asked)

    def _race(self, live: Sequence[str]) -> Race:
        facts, base = self._facts, self._of(self._baseline)
        runners = [
            Runner(key, *racer, differences_at(base, self._of(key), self._labels, facts, self._batch_size))
            for key, racer in self._racers.items()
            if key in live and not self._fails(key)
        ]
        return Race(runners, facts.total, facts.goal, facts.until, facts.level, self._known)

    def _fails(self, key: str) -> bool:
        """Whether a cell has given NaN for an image that the race is about."""
        last = batch_count(self._facts.total, self._batch_size)
        return any((top1 == NO_PREDICTION).any() for index, top1 in self._of(key).items() if index < last)
