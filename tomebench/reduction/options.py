"""The choices that the ToMe paper ablates: what is compared, how, between whom, and what becomes of a pair.

Source: Bolya et al., arXiv 2210.09461, Table 1 and appendix D. The defaults are the paper's own method.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_type_hints

from tomebench.errors import SpecError

Metric = Literal["k", "q", "v", "x", "x_pre"]
Heads = Literal["mean", "concat"]
Distance = Literal["cosine", "euclidean", "dot", "softmax"]
Combine = Literal["weighted", "mean", "max", "keep"]
Partition = Literal["alternating", "sequential", "random"]
Matching = Literal["bipartite", "greedy", "kmeans-2", "kmeans-5", "random-prune", "attention-prune"]

_USED: dict[str, frozenset[str]] = {
    "bipartite": frozenset({"metric", "heads", "distance", "combine", "partition"}),
    "greedy": frozenset({"metric", "heads", "distance", "combine"}),
    "kmeans": frozenset({"metric", "heads", "combine"}),
    "random-prune": frozenset(),
    "attention-prune": frozenset(),
}
"""Which other options mean something with each way of matching."""


@dataclass(frozen=True)
class Options:
    """One choice of each.

    Raises:
        SpecError: a value that is none, or an option that means nothing with the others.
    """

    metric: Metric = "k"
    """What similarity is measured on: keys, queries, values, or tokens after or before the attention residual."""
    heads: Heads = "mean"
    """Heads of keys, queries and values are averaged, or put side by side; tokens have none."""
    distance: Distance = "cosine"
    """cosine; minus the Euclidean distance; dot product; softmax of m_A m_Bᵀ / sqrt(d) over B."""
    combine: Combine = "weighted"
    """A group becomes its mean by size, its plain mean, its maximum in every channel, or the token that stays."""
    partition: Partition = "alternating"
    """A and B are every second token, the first and the second half of the patches, or random halves of them."""
    matching: Matching = "bipartite"
    """bipartite soft matching; greedy without replacement; k-means with 2 or 5 iterations; or pruning, which drops."""

    def __post_init__(self) -> None:
        for name, hint in get_type_hints(type(self)).items():
            if getattr(self, name) not in get_args(hint):
                raise SpecError(f"{name} is {getattr(self, name)!r}; use {', '.join(get_args(hint))}")
        unused = [name for name, _ in self.changed() if name != "matching" and name not in self._used]
        if unused:
            raise SpecError(f"matching {self.matching} has no {unused[0]}; leave {unused[0]} out")
        if self.metric in ("x", "x_pre") and self.heads != "mean":
            raise SpecError(f"metric {self.metric} has no heads; leave heads out, or use metric k, q or v")

    @property
    def _used(self) -> frozenset[str]:
        return _USED["kmeans" if self.matching.startswith("kmeans") else self.matching]

    @property
    def prunes(self) -> bool:
        """Tokens are dropped, and those that stay are as they were."""
        return self.matching.endswith("prune")

    def changed(self) -> tuple[tuple[str, str], ...]:
        """Name and value of what is not the default, sorted by name."""
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        mine = ((name, getattr(self, name)) for name in sorted(defaults))
        return tuple((name, value) for name, value in mine if value != defaults[name])


OPTIONS = tuple(field.name for field in dataclasses.fields(Options))
"""Names of the options."""


def choices(name: str) -> tuple[Any, ...]:
    """All values of an option, the default first."""
    return get_args(get_type_hints(Options)[name])


PAPER = Options()
"""The paper's own method."""
