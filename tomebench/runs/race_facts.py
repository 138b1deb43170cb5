"""What a race asks, as a store holds it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from tomebench.runs.goal import Goal
from tomebench.runs.racing import Found, Until
from tomebench.runs.store import Store
from tomebench.stats import LEVEL

RACE = "race"
"""Name of the stored fact: what the race of a run asks, and whether it is over."""


@dataclass(frozen=True)
class RaceFacts:
    """What a race asks."""

    until: Until
    goal: Goal
    total: int  # images that it is about, the first of the list
    level: float = LEVEL  # of the interval by which a limit counts as kept
    over: bool = False
    chosen: str | None = None  # key of the cell that it ended with
    found: Found | None = None  # what is said of it
    against: bool = False  # it was about a baseline of the gate, not about r = 0

    @classmethod
    def of(cls, store: Store) -> RaceFacts | None:
        """Those of a stored run; None where no cell is stopped."""
        found = store.get(RACE)
        if found is None or found["until"] == "all":
            return None
        facts = {name: value for name, value in found.items() if name != "goal"}
        return cls(goal=Goal(**found["goal"]), **facts)

    def to_json(self) -> dict[str, Any]:
        """The stored fact."""
        return dataclasses.asdict(self)


def reopen(store: Store) -> None:
    """Record that a race is not over, since a sweep has asked for more."""
    facts = RaceFacts.of(store)
    if facts is not None and facts.over:
        store.put(RACE, dataclasses.replace(facts, over=False, chosen=None, found=None).to_json())


def half(images: int) -> int:
    """Number of images on which a row is chosen; the others are for its estimate."""
    return (images + 1) // 2


def images_of(until: Until, images: int) -> int:
    """Number of images that a race is about."""
    return half(images) if until == "recommended" else images
