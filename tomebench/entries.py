"""Tables of entries by name, in which no entry replaces another."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

T = TypeVar("T")


def by_name(entries: Iterable[T], name: Callable[[T], str]) -> dict[str, T]:
    """Entries by their names, in the order given.

    Raises:
        ValueError: two of them have the same name.
    """
    found: dict[str, T] = {}
    for entry in entries:
        if name(entry) in found:
            raise ValueError(f"two entries are called {name(entry)}")
        found[name(entry)] = entry
    return found
