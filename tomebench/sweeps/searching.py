"""Boards of a search: races on the images of the choice, then what it ended with on the others; and their outcome."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tomebench.datasets.images import ImageSet
from tomebench.runs.codes import SAME_AS_R
from tomebench.runs.goal import gain_of
from tomebench.runs.race_facts import RACE, RaceFacts, images_of
from tomebench.runs.racing import Found
from tomebench.runs.rows import read_cells
from tomebench.runs.search_facts import SEARCH, SearchFacts
from tomebench.runs.standing import verdicts
from tomebench.runs.store import Store
from tomebench.schema import Cell, Chunk, Resolved
from tomebench.sweeps.board import Boards, Racer, Racing, Work, line_of, missing, not_chosen_on
from tomebench.sweeps.job import Job


def choosing(cost: Callable[[Sequence[int]], float]) -> Boards:
    """Boards of a race for the cheapest cell that keeps the limit, on the images of the choice only.

    Args:
        cost: tokens after each block -> what a pass costs.
    """

    def board(job: Job, image_set: ImageSet) -> Racing:
        store, rows = job.store, read_cells(job.store)[0]
        racers = {
            cell.key: Racer(_plain(resolved, cost) / cost(resolved.tokens), line_of(cell), -resolved.gmacs)
            for cell, resolved in store.cells()
            if not cell.is_baseline
            and cell.key in job.passes.models
            and not any(code.startswith(SAME_AS_R) for code in rows[cell.key].warnings)
        }
        facts = RaceFacts("recommended", job.config.goal, images_of("recommended", len(image_set)))
        store.put(RACE, facts.to_json())
        labels = image_set.info.labels
        return Racing(facts, racers, job.baseline, labels, job.batch_size, store.top1(), estimated=False)

    return board


def _plain(resolved: Resolved, cost: Callable[[Sequence[int]], float]) -> float:
    """Cost of the same model at r = 0."""
    return cost([resolved.tokens_in] * len(resolved.tokens))


class Estimating:
    """The finalists of a search on the images that had no part in it; then the fastest of them is the chosen row.

    Args:
        job: the sweep.
        images: number of all images.
        finalists: keys of the cells, with what the race of each said of it.
        search: to be stored at the end.
    """

    def __init__(self, job: Job, images: int, finalists: Mapping[str, Found], search: SearchFacts) -> None:
        self._facts = RaceFacts("recommended", job.config.goal, images_of("recommended", images))
        self._finalists, self._search, self._done = finalists, search, job.store.evaluated()
        self._asked = [(not_chosen_on(self._facts, images, job.batch_size), key) for key in (job.baseline, *finalists)]
        self._over = False

    def next(self, live: Sequence[str]) -> Work:
        """All that is missing, once."""
        over, self._over = self._over, True
        return [] if over else missing(self._done, [each for each in self._asked if each[1] in live])

    def add(self, chunk: Chunk) -> None:
        """Nothing to note: there is one stage."""

    def close(self, store: Store) -> None:
        """Record the choice: the fastest of those that surely keep the limit, else of those that seem to."""
        rows = read_cells(store)[0]
        chosen = max(self._finalists, key=lambda key: (self._finalists[key] == "sure", gain_of(rows[key]), key))
        facts = dataclasses.replace(self._facts, over=True, chosen=chosen, found=self._finalists[chosen])
        store.put(RACE, facts.to_json())
        store.put(SEARCH, self._search.to_json())


def estimating(finalists: Mapping[str, Found], search: SearchFacts) -> Boards:
    """Boards of the :class:`Estimating` kind."""
    return lambda job, image_set: Estimating(job, len(image_set), finalists, search)


@dataclass(frozen=True)
class Outcome:
    """What a race of a search ended with."""

    cell: Cell
    resolved: Resolved
    found: Found
    rejected: tuple[tuple[int, ...], ...]  # tokens after each block of the cells that lose too much
    tried: int  # cells that were run on images, without r = 0
    batch_size: int


def outcome_of(directory: Path) -> Outcome | None:
    """Read the outcome of the race that a run folder has ended with; None without a cell that could win it."""
    with Store.read(directory) as store:
        facts, images, cells = RaceFacts.of(store), store.images(), {cell.key: (cell, r) for cell, r in store.cells()}
        if facts is None or facts.chosen is None or facts.found is None or images is None:
            return None
        baseline = next(key for key, (cell, _) in cells.items() if cell.is_baseline)
        judged = verdicts(store, facts, baseline, images.labels)
        cell, resolved = cells[facts.chosen]
        rejected = tuple(cells[key][1].tokens for key, keeps in judged.items() if keeps is False and key in cells)
        return Outcome(cell, resolved, facts.found, rejected, len(judged), cell.batch_size)
