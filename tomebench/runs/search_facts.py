"""What a search has done so far and found, as a store holds it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from tomebench.runs.racing import Found
from tomebench.runs.store import Store

SEARCH = "search"
"""Name of the stored fact."""


@dataclass(frozen=True)
class SearchRace:
    """One race of a search, after its end. Cells are told by their keys."""

    made: tuple[str, ...]  # schedules that the search made for it
    chosen: str | None  # the cheapest cell that keeps the limit; None where none does
    found: Found | None  # what the images of the choice say of it
    run: tuple[str, ...]  # cells that were run on images
    rejected: tuple[str, ...]  # those that lose too much


@dataclass(frozen=True)
class SearchFacts:
    """A search: its races, and, once it has ended, the cells that it ended with.

    What comes next depends on the races before as they ended, not on what later ones have evaluated since; so a search
    that goes on takes the same steps.
    """

    question: str  # digest of what is asked, and of what it goes by
    by: str  # staircase, or MACs
    races: tuple[SearchRace, ...] = ()
    over: bool = False  # it found no cheaper one; else it has tried as many as it was to
    found: str | None = None  # the cheapest schedule that keeps the limit; None before the end, and where none does
    constant: str | None = None  # the best with the same r in every layer
    decreasing: str | None = None

    @classmethod
    def of(cls, store: Store) -> SearchFacts | None:
        """Those of a stored run; None where it was no search."""
        found = store.get(SEARCH)
        if found is None:
            return None
        races = [SearchRace(**{**each, **_tuples(each, "made", "run", "rejected")}) for each in found["races"]]
        return cls(**{**found, "races": tuple(races)})

    def to_json(self) -> dict[str, Any]:
        """The stored fact."""
        return dataclasses.asdict(self)

    def after(self, race: SearchRace) -> SearchFacts:
        """The same search after one more race."""
        return dataclasses.replace(self, races=(*self.races, race), found=None, over=False)

    @property
    def made(self) -> int:
        """Number of schedules that it made."""
        return sum(len(race.made) for race in self.races)

    @property
    def tried(self) -> int:
        """Number of schedules that were run on images."""
        return len({key for race in self.races for key in race.run})

    @property
    def rivals(self) -> tuple[str, ...]:
        """Keys of the best constant and the best decreasing r, as far as there are any."""
        return tuple(key for key in (self.constant, self.decreasing) if key is not None)


def _tuples(found: dict[str, Any], *names: str) -> dict[str, tuple[str, ...]]:
    return {name: tuple(found[name]) for name in names}
