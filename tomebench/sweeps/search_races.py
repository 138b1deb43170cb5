"""The races of a search in its run folder, one after another; those that have ended before are looked up."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tomebench.reduction.schedule import lists_every_r
from tomebench.rspec import format_r
from tomebench.runs.racing import Found
from tomebench.runs.search_facts import SearchFacts, SearchRace
from tomebench.runs.store import Store
from tomebench.schema import Cell, Resolved
from tomebench.sweeps.board import Boards
from tomebench.sweeps.config import SweepConfig
from tomebench.sweeps.events import Estimate, Event, Finished, Note, Planned, TooFew
from tomebench.sweeps.neighbours import Cost, Space
from tomebench.sweeps.run import run_sweep
from tomebench.sweeps.searching import choosing, estimating


@dataclass(frozen=True)
class Outcome:
    """The cheapest cell of a race that keeps the limit."""

    cell: Cell
    resolved: Resolved
    found: Found


class Races:
    """The races of a search, each a sweep of its run folder; one that has ended before is looked up."""

    def __init__(self, config: SweepConfig, directory: Path, should_stop: Callable[[], bool]) -> None:
        self._config, self._directory, self._should_stop = config, directory, should_stop
        self._said: set[str] = set()
        self._past: list[SearchRace] = []
        self._known: tuple[SearchRace, ...] = ()

    def begin(self, cost: Cost, question: str, by: Literal["staircase", "MACs"]) -> None:
        """Look up how races of the same question ended in the run folder."""
        self._cost, self._search = cost, SearchFacts(question, by)
        with Store.read(self._directory) as store:
            found = SearchFacts.of(store)
        if found is not None and found.question == question:
            self._search, self._known = found, found.races

    @property
    def going_on(self) -> bool:
        """Whether further races of the same question have ended before."""
        return len(self._past) < len(self._known)

    def sweep(self, schedules: Sequence[str], r: str, boards: Boards) -> Iterator[Event]:
        """Run some cells; nothing is timed."""
        settings = {"schedule": ",".join(schedules), "r": r, "until": "recommended", "budget": "none"}
        asked = self._config.model_copy(update=settings)
        yield from new_of(run_sweep(asked, self._directory, self._should_stop, boards=boards), self._said)

    def run(
        self, schedules: Sequence[str], r: str, made: Sequence[str] = (), *, may_end: bool = False
    ) -> Generator[Event, None, Outcome | None]:
        """Race cells; the outcome is None where none of them keeps the limit.

        Args:
            schedules: of the cells, each with every ``r`` where it is no list.
            r: values of r.
            made: the schedules among them that the search made.
            may_end: the search ends with this race if its outcome is None, so that the store is left as after it.
        """
        ended = self._known[len(self._past)] if self.going_on else None
        if ended is None or ended.made != tuple(made) or (may_end and ended.chosen is None):
            before = dataclasses.replace(self._search, races=tuple(self._past))
            yield from self.sweep(schedules, r, choosing(self._cost, before, made))
            with Store.read(self._directory) as store:
                found = SearchFacts.of(store)
            assert found is not None
            self._search, self._known = found, found.races
            ended = found.races[-1]
        self._past.append(ended)
        if ended.chosen is None or ended.found is None:
            return None
        return Outcome(*self._cells()[ended.chosen], ended.found)

    def rejected(self) -> list[tuple[int, ...]]:
        """Tokens after each block of the cells that lost too much so far."""
        cells = self._cells()
        return [cells[key][1].tokens for key in dict.fromkeys(key for race in self._past for key in race.rejected)]

    def of_families(self, space: Space, families: Sequence[str]) -> set[tuple[int, ...]]:
        """What the families remove, which no list need remove again."""
        return {
            space.asked(resolved.r_layers)
            for cell, resolved in self._cells().values()
            if cell.schedule in families and cell.r in self._config.r_values
        }

    def end(self, best: Outcome, rivals: Mapping[str, Outcome | None], over: bool) -> Iterator[Event]:
        """Time what was found beside its rivals, and run them on the images that had no part in the search.

        Args:
            best: what was found.
            rivals: the best constant and the best decreasing r, in that order.
            over: no cheaper change is left.
        """
        constant, decreasing = (None if each is None else each.cell.key for each in rivals.values())
        search = dataclasses.replace(
            self._search, over=over, found=best.cell.key, constant=constant, decreasing=decreasing
        )
        ended = [each for each in (best, *rivals.values()) if each is not None]
        finalists = {each.cell.key: each.found for each in ended}
        every_r = {each.cell.r for each in ended if not lists_every_r(each.cell.schedule)}
        settings = {
            "schedule": ",".join(dict.fromkeys(each.cell.schedule for each in ended)),
            "r": format_r(sorted({0, *every_r})),
            "until": "recommended",
        }
        asked, boards = self._config.model_copy(update=settings), estimating(finalists, search)
        events = run_sweep(asked, self._directory, self._should_stop, boards=boards, together=[*finalists])
        yield from new_of(events, self._said)

    def _cells(self) -> dict[str, tuple[Cell, Resolved]]:
        with Store.read(self._directory) as store:
            return {cell.key: (cell, resolved) for cell, resolved in store.cells()}


def new_of(events: Iterator[Event], said: set[str]) -> Iterator[Event]:
    """Events of one of several sweeps: only what was not said, and neither its plan nor its end."""
    for event in events:
        if isinstance(event, Planned | Finished | Estimate | TooFew):
            continue
        if isinstance(event, Note):
            if event.text in said:
                continue
            said.add(event.text)
        yield event
