"""Boards of a search: races on the images of the choice, then what it ended with on the others."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from tomebench.datasets.images import ImageSet
from tomebench.runs.codes import SAME_AS_R
from tomebench.runs.goal import gain_of
from tomebench.runs.race_facts import RACE, RaceFacts, images_of
from tomebench.runs.racing import Found
from tomebench.runs.rows import read_cells
from tomebench.runs.search_facts import SEARCH, SearchFacts, SearchRace
from tomebench.runs.store import Store
from tomebench.schema import Resolved
from tomebench.sweeps.board import Board, Boards, OneStage, Racer, Racing, may_win, not_chosen_on
from tomebench.sweeps.job import Job
from tomebench.sweeps.neighbours import Cost


class Choosing(Racing):
    """A race for the cheapest cell that keeps the limit, on the images of the choice only.

    Args:
        search: to which the race is added when it is over.
        made: schedules that the search made for it.
        further: arguments of :class:`~tomebench.sweeps.board.Racing`.
    """

    def __init__(self, search: SearchFacts, made: Sequence[str], *further: Any) -> None:
        super().__init__(*further, estimated=False)
        self._search, self._made = search, tuple(made)

    def close(self, store: Store) -> None:
        """Record that the race is over, and how it ended."""
        super().close(store)
        race, (runner, found) = self._last, self._chosen or (None, None)
        keeps = runner is not None and found != "beyond"
        judged = {} if race is None else race.seeming if found == "seems" else race.verdicts
        ended = SearchRace(
            self._made,
            runner.key if runner is not None and keeps else None,
            found if keeps else None,
            tuple(each.key for each in (race.runners if race else ()) if len(each.differences)),
            tuple(key for key, kept in judged.items() if kept is False),
        )
        store.put(SEARCH, self._search.after(ended).to_json())


def choosing(cost: Cost, search: SearchFacts, made: Sequence[str] = ()) -> Boards:
    """Boards of the :class:`Choosing` kind.

    Args:
        cost: by which cells are ranked.
        search: so far.
        made: schedules that it made for this race.
    """

    def board(job: Job, image_set: ImageSet) -> Board:
        store, rows = job.store, read_cells(job.store)[0]
        racers = {
            # Each a line of its own: that a larger r loses more is likely, but a rival has a right to its luck.
            cell.key: Racer(_plain(resolved, cost) / cost(resolved.tokens), cell.key, -resolved.gmacs)
            for cell, resolved in store.cells()
            if not cell.is_baseline
            and cell.key in job.passes.models
            and not any(code.startswith(SAME_AS_R) for code in rows[cell.key].warnings)
        }
        facts = RaceFacts("recommended", job.config.goal, images_of("recommended", len(image_set)))
        store.put(RACE, facts.to_json())
        labels = image_set.info.labels
        return Choosing(search, made, facts, racers, job.baseline, labels, job.batch_size, store.top1())

    return board


def _plain(resolved: Resolved, cost: Cost) -> float:
    """Cost of the same model at r = 0."""
    return cost([resolved.tokens_in] * len(resolved.tokens))


class Estimating(OneStage):
    """The finalists of a search on the images that had no part in it; then the fastest of them is the chosen row.

    Args:
        job: the sweep.
        images: number of all images.
        finalists: keys of the cells, with what the race of each said of it.
        search: to be stored at the end.
    """

    def __init__(self, job: Job, images: int, finalists: Mapping[str, Found], search: SearchFacts) -> None:
        self._facts = RaceFacts("recommended", job.config.goal, images_of("recommended", images))
        self._config, self._finalists, self._search = job.config, finalists, search
        others = not_chosen_on(self._facts, images, job.batch_size)
        super().__init__(job.store.evaluated(), [(others, key) for key in (job.baseline, *finalists)])

    def close(self, store: Store) -> None:
        """Record the choice: the fastest of those that surely keep the limit, else of those that seem to."""
        rows = read_cells(store)[0]
        whole = [key for key in self._finalists if rows[key].status in ("ok", "unconverged")]
        fast = [key for key in whole if may_win(rows[key], self._config)]  # surely, and validly timed
        chosen = max(
            fast or whole, key=lambda key: (self._finalists[key] == "sure", gain_of(rows[key]), key), default=None
        )
        found = None if chosen is None else self._finalists[chosen]
        store.put(RACE, dataclasses.replace(self._facts, over=True, chosen=chosen, found=found).to_json())
        store.put(SEARCH, self._search.to_json())


def idle(job: Job, image_set: ImageSet) -> Board:
    """Evaluate nothing: the sweep only makes the run folder and chooses the batch size."""
    return OneStage({}, [])


def estimating(finalists: Mapping[str, Found], search: SearchFacts) -> Boards:
    """Boards of the :class:`Estimating` kind."""
    return lambda job, image_set: Estimating(job, len(image_set), finalists, search)
