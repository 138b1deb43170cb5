"""Race of a run against a baseline: which images tell whether any cell has lost more than the limit.

The baseline knows which of all images were right, in the same random order, so that the images seen so far tell what
all of them would say. A cell stops where that is known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tomebench.datasets.images import ImageSet
from tomebench.errors import BaselineError
from tomebench.gate.baseline_file import read_baseline
from tomebench.gate.compare import differing
from tomebench.gate.compare_accuracy import MaxDrop, differences, keeps, level_of
from tomebench.gate.records import Accuracy, CellRecord, Snapshot
from tomebench.gate.snapshot import apart, asked
from tomebench.runs.race_facts import RACE, RaceFacts
from tomebench.runs.top1 import NO_PREDICTION, right_among
from tomebench.sweeps.board import Board, Boards, Stages, Work, board_of
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
        labels = image_set.info.labels
        return Against(found, limit, facts, job.baseline, labels, job.batch_size, job.store.top1())

    return board


class Against(Stages):
    """Stages of a race against a baseline; cells that it does not have are not evaluated.

    Args:
        before: answers of the baseline, by key of the cell.
        limit: of the loss.
        further: arguments of :class:`~tomebench.sweeps.board.Stages`.
    """

    def __init__(self, before: Mapping[str, Accuracy], limit: MaxDrop, *further: Any) -> None:
        super().__init__(*further)
        self._before, self._limit = before, limit
        self._known: dict[tuple[str, int], bool] = {}

    def next(self, live: Sequence[str]) -> Work:
        """The next stage of the cells that are open; nothing where all is known."""
        asked = [(self._stage(key), key) for key in self._before if key in live and self._is_open(key)]
        least = min((batches.start for batches, _ in asked), default=0)
        return self._missing([each for each in asked if each[0].start == least])

    def _is_open(self, key: str) -> bool:
        at = key, self._reached(key)
        if at not in self._known:
            self._known[at] = not at[1] or self._asks_for_more(*at)
        return self._known[at]

    def _asks_for_more(self, key: str, batches: int) -> bool:
        top1 = np.concatenate([self._of(key)[index] for index in range(batches)])
        if len(top1) == self._facts.total or (top1 == NO_PREDICTION).any():  # NaN, which no further image mends
            return False
        found = differences(self._before[key], right_among(top1, self._labels[: len(top1)]))
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
