"""What the figures of stored runs were made of, compared where several come together in one table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from tomebench.identity import MODEL, Difference, differences
from tomebench.runs.store import Store

MADE = "made"
"""Name of the fact: what the sweep that measured first has made its figures of, besides settings and images."""


class Origin(NamedTuple):
    """What the figures of a stored run were made of."""

    made: Mapping[str, str]
    images: str | None  # digest of the list
    content: Mapping[int, str]  # digest of what an image was decoded from, by its index, of those that were seen

    @classmethod
    def of(cls, store: Store) -> Origin:
        """That of a run; without what an older one does not say."""
        images, cells = store.images(), store.cells()
        size = cells[0][0].batch_size if cells else 1
        states = store.read_states().items()
        content = {i: state.digest for chunk, each in states for i, state in enumerate(each, chunk * size)}
        return cls(store.get(MADE) or {}, None if images is None else images.digest, content)

    def other_image(self, other: Origin) -> str | None:
        """The first image of a list that both have, which is not the same in both."""
        if self.images != other.images:
            return None
        both = sorted(self.content.keys() & other.content.keys())
        return next((f"image number {i + 1}" for i in both if self.content[i] != other.content[i]), None)

    def other_facts(self, other: Origin) -> list[Difference]:
        """What else is known of both and is not the same, that of the model first."""
        return sorted(differences(self.made, other.made), key=lambda each: each.name not in MODEL)
