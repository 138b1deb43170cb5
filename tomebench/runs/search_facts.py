"""What a search has found, as a store holds it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from tomebench.runs.store import Store

SEARCH = "search"
"""Name of the stored fact."""


@dataclass(frozen=True)
class SearchFacts:
    """The rows that a search ended with: keys of their cells, None where no row of that kind keeps the limit."""

    found: str  # the cheapest schedule of all that were tried; perhaps one of the rivals
    constant: str | None  # the best with the same r in every layer
    decreasing: str | None
    made: int  # schedules that it made, beyond those of the families
    tried: int  # all that were run on images
    by: str  # what it went by: staircase, or MACs
    over: bool  # it found no cheaper one; else it has tried as many as it was to

    @classmethod
    def of(cls, store: Store) -> SearchFacts | None:
        """Those of a stored run; None where it was no search, or one that has not ended."""
        found = store.get(SEARCH)
        return None if found is None else cls(**found)

    def to_json(self) -> dict[str, Any]:
        """The stored fact."""
        return dataclasses.asdict(self)

    @property
    def rivals(self) -> tuple[str, ...]:
        """Keys of the best constant and the best decreasing r."""
        return tuple(key for key in (self.constant, self.decreasing) if key is not None)
