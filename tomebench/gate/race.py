"""Race of a run against a baseline: which images tell whether any cell has lost more than the limit.

The baseline knows which of all images were right, in the same random order, so that the images seen so far tell what
all of them would say. A cell stops where that is known.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from tomebench.datasets.images import ImageSet
from tomebench.errors import BaselineError
from tomebench.gate.baseline_file import read_baseline
from tomebench.gate.compare import differing
from tomebench.gate.compare_accuracy import MaxDrop, differences, keeps, level_of
from tomebench.gate.records import Accuracy, CellRecord, Snapshot
from tomebench.gate.snapshot import apart, asked
from tomebench.runs.race_facts import RACE, RaceFacts
from tomebench.runs.racing import stages
from tomebench.runs.standing import Top1
from tomebench.runs.store import Store
from tomebench.runs.top1 import NO_PREDICTION, right_among
from tomebench.schema import Chunk
from tomebench.sweeps.board import Board, Boards, Work, board_of, missing
from tomebench.sweeps.config import SweepConfig
from tomebench.sweeps.job import Job


def against(baseline: Snapshot, limit: MaxDrop) -> Boards:
    """Boards of a race against a baseline.

    Args:
        baseline: of a run on all images, in the same random order.
        limit: of the loss of each cell.
    """

    def board(job: Job, image_set: ImageSet) -> Board:
        settings = job.store.config
        before = {cell.name: cell for cell in baseline.cells if cell.accuracy is not None}
        found: dict[str, Accuracy] = {}
        for cell, _ in job.store.cells():
            now = CellRecord(asked=asked(cell, settings), apart=apart(cell, settings))
            old = before.get(now.name)
            if old is None or old.accuracy is None or differing(old.asked, now.asked, "accuracy"):
                continue
            if old.accuracy.digest != image_set.info.digest or not old.accuracy.complete:
                raise BaselineError(
                    "the baseline is not of these images in this random order; make it of a run with --until all and "
                    "the same --seed"
                )
            if cell.key in job.passes.models:
                found[cell.key] = old.accuracy
        if not found:
            raise BaselineError("no cell of the sweep is in the baseline; give the settings of its run")
        facts = RaceFacts("decided", job.config.goal, len(image_set), level_of(len(before)), against=True)
        job.store.put(RACE, facts.to_json())
        return Against(facts, found, limit, job.baseline, image_set.info.labels, job.batch_size, job.store.top1())

    return board


class Against:
    """Stages of a race against a baseline; cells that it does not have are not evaluated.

    Args:
        facts: of the race.
        before: answers of the baseline, by key of the cell.
        limit: of the loss.
        base: key of r = 0, which is run wherever another cell is, since rows are compared with it.
        labels: true classes of the images, [n] or [n, k].
        batch_size: images per batch.
        top1: predictions that there are already, by key of the cell and index of the batch.
    """

    def __init__(
        self,
        facts: RaceFacts,
        before: Mapping[str, Accuracy],
        limit: MaxDrop,
        base: str,
        labels: npt.NDArray[np.int64],
        batch_size: int,
        top1: Mapping[str, Top1],
    ) -> None:
        self._facts, self._before, self._limit, self._base = facts, before, limit, base
        self._labels, self._batch_size = labels, batch_size
        self._top1 = {key: dict(found) for key, found in top1.items()}
        self._stages = (0, *stages(facts.total, batch_size))

    def add(self, chunk: Chunk) -> None:
        """Take note of an evaluated batch."""
        for key, found in chunk.predictions.items():
            self._top1.setdefault(key, {})[chunk.index] = found.top1

    def close(self, store: Store) -> None:
        """Record that the race is over."""
        store.put(RACE, dataclasses.replace(self._facts, over=True).to_json())

    def next(self, live: Sequence[str]) -> Work:
        """The next stage of the cells that are open; nothing where all is known."""
        reached = {key: self._reached(key) for key in self._before if key in live}
        open_ = {key: at for key, at in reached.items() if at < self._stages[-1] and self._open(key, at)}
        if not open_:
            return []
        least = min(open_.values())
        batches = range(least, next(stage for stage in self._stages if stage > least))
        done: dict[int, set[str]] = {}
        for key, found in self._top1.items():
            for index in found:
                done.setdefault(index, set()).add(key)
        keys = dict.fromkeys([self._base, *(key for key, at in open_.items() if at == least)])
        return missing(done, [(batches, key) for key in keys])

    def _reached(self, key: str) -> int:
        """Number of batches after which a cell was last judged: the last stage that it has completed."""
        found = self._top1.get(key, {})
        count = next(index for index in range(len(found) + 1) if index not in found)
        return max(stage for stage in self._stages if stage <= count)

    def _open(self, key: str, reached: int) -> bool:
        if not reached:
            return True
        top1 = np.concatenate([self._top1[key][index] for index in range(reached)])
        if (top1 == NO_PREDICTION).any():  # NaN, which no further image mends
            return False
        right = right_among(top1, self._labels[: len(top1)])
        found = differences(self._before[key], right)
        return keeps(found, self._facts.total, self._limit, self._facts.level) is None


def boards_of(config: SweepConfig) -> Boards:
    """What a sweep evaluates of its images: against a baseline where one is given.

    Raises:
        BaselineError: the file of the baseline cannot be used.
    """
    if config.against is None:
        return board_of
    limit = MaxDrop(config.max_drop) if "max_drop" in config.model_fields_set else MaxDrop()
    return against(read_baseline(config.against), limit)
