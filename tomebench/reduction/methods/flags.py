"""The flags of ToMe that the paper ablates: what is compared, how, between whom, and what becomes of a pair.

Source: Bolya et al., arXiv 2210.09461, Table 1 and appendix D. The defaults are the paper's own method. ``matching``
puts another method in the place of bipartite matching, with those of the other options that it has.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from tomebench.errors import SpecError
from tomebench.reduction import choices as _values
from tomebench.reduction.choices import Combine, Distance, HeadsChoice, Metric, Partition, check
from tomebench.reduction.method import Method
from tomebench.reduction.registry import get_method, method_class, option_names
from tomebench.schema import Scalar

Matching = Literal["bipartite", "greedy", "kmeans-2", "kmeans-5", "random-prune", "attention-prune"]
"""bipartite soft matching; greedy without replacement; k-means with 2 or 5 iterations; or pruning, which drops."""
_MATCHINGS: Mapping[str, tuple[str, Mapping[str, object]]] = {
    "bipartite": ("tome", {}),
    "greedy": ("greedy", {}),
    "kmeans-2": ("kmeans", {"iterations": 2}),
    "kmeans-5": ("kmeans", {"iterations": 5}),
    "random-prune": ("random-prune", {}),
    "attention-prune": ("attention-prune", {}),
}
"""Name and options of the method that each way of matching is."""


@dataclass(frozen=True)
class Options:
    """One choice of each.

    Raises:
        SpecError: a value that is none, or an option that means nothing with the others.
    """

    metric: Metric = "k"
    heads: HeadsChoice = "mean"
    distance: Distance = "cosine"
    combine: Combine = "weighted"
    partition: Partition = "alternating"
    matching: Matching = "bipartite"
    more: tuple[tuple[str, Scalar], ...] = ()
    """Options of another method that are no flags of ToMe, those that are not at their default."""

    def __post_init__(self) -> None:
        check(self)
        used = option_names(method_class(_MATCHINGS[self.matching][0]))
        unused = [
            name for name in OPTIONS if name not in {"matching", *used} and getattr(self, name) != _DEFAULTS[name]
        ]
        if unused:
            raise SpecError(f"matching {self.matching} has no {unused[0]}; leave {unused[0]} out")

    def method(self, name: str = "tome") -> Method:
        """The method of a name with these options.

        Raises:
            SpecError: no such method, or it has none of these.
        """
        options: dict[str, object] = dict(self.changed())
        if name == "tome":
            name, more = _MATCHINGS[self.matching]
            options = {**options, **more}
            options.pop("matching", None)
        return get_method(name, options)

    def changed(self) -> tuple[tuple[str, Scalar], ...]:
        """Name and value of what is not the default, sorted by name."""
        mine = {name: getattr(self, name) for name, default in _DEFAULTS.items() if getattr(self, name) != default}
        return tuple(sorted({**mine, **dict(self.more)}.items()))


_DEFAULTS = {field.name: field.default for field in dataclasses.fields(Options) if field.name != "more"}
OPTIONS = tuple(_DEFAULTS)
"""Names of the options that are flags."""


def choices(name: str) -> tuple[Any, ...]:
    """All values of an option, the default first."""
    return get_args(Matching) if name == "matching" else _values.choices(Options, name)


PAPER = Options()
"""The paper's own method."""
