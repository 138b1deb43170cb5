"""Provenance of stored runs (digests of code, model and images), compared when runs share one table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from tomebench.identity import MODEL, Difference, differences
from tomebench.runs.store import Store

MADE = "made"
"""Name of the stored fact: provenance recorded by the first sweep, besides settings and images."""


class Origin(NamedTuple):
    """Provenance of a stored run."""

    made: Mapping[str, str]
    images: str | None  # digest of the list
    content: Mapping[int, str]  # digest of the bytes that an image was decoded from, by index, of the images evaluated

    @classmethod
    def of(cls, store: Store) -> Origin:
        """Read the provenance of a run; parts that an older version did not store are empty."""
        images, cells = store.images(), store.cells()
        size = cells[0][0].batch_size if cells else 1
        states = store.read_states().items()
        content = {i: state.digest for chunk, each in states for i, state in enumerate(each, chunk * size)}
        return cls(store.get(MADE) or {}, None if images is None else images.digest, content)

    def other_image(self, other: Origin) -> str | None:
        """First image that both runs evaluated from different bytes; None if there is none, or their lists differ."""
        if self.images != other.images:
            return None
        both = sorted(self.content.keys() & other.content.keys())
        return next((f"image number {i + 1}" for i in both if self.content[i] != other.content[i]), None)

    def other_facts(self, other: Origin) -> list[Difference]:
        """Other recorded facts in which the two differ, those of the model first."""
        return sorted(differences(self.made, other.made), key=lambda each: each.name not in MODEL)
