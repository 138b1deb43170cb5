"""Options of ToMe that the paper ablates: metric, heads, distance, combination, partition and matching algorithm.

Source: Bolya et al., arXiv 2210.09461, Table 1 and appendix D. The defaults are the paper's own choices. Another value
of ``matching`` selects another method, which takes those of the other options that it has.
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
from tomebench.vocabulary import Scalar

Matching = Literal["bipartite", "greedy", "kmeans-2", "kmeans-5", "random-prune", "attention-prune"]
"""Bipartite soft matching; greedy without replacement; k-means with 2 or 5 iterations; pruning, which drops tokens."""
_MATCHINGS: Mapping[str, tuple[str, Mapping[str, object]]] = {
    "bipartite": ("tome", {}),
    "greedy": ("greedy", {}),
    "kmeans-2": ("kmeans", {"iterations": 2}),
    "kmeans-5": ("kmeans", {"iterations": 5}),
    "random-prune": ("random-prune", {}),
    "attention-prune": ("attention-prune", {}),
}
"""Name and fixed options of the method that each value of ``matching`` selects."""


@dataclass(frozen=True)
class Options:
    """One value of each of these options, and of further ones that another method has.

    Raises:
        SpecError: a value that is not allowed, or an option that the selected matching does not have.
    """

    metric: Metric = "k"
    heads: HeadsChoice = "mean"
    distance: Distance = "cosine"
    combine: Combine = "weighted"
    partition: Partition = "alternating"
    matching: Matching = "bipartite"
    more: tuple[tuple[str, Scalar], ...] = ()
    """Name and value of a method's options that ToMe does not have, where they are not at their default."""

    def __post_init__(self) -> None:
        check(self)
        used = option_names(method_class(_MATCHINGS[self.matching][0]))
        unused = [
            name for name in OPTIONS if name not in {"matching", *used} and getattr(self, name) != _DEFAULTS[name]
        ]
        if unused:
            raise SpecError(f"matching {self.matching} has no {unused[0]}; leave {unused[0]} out")

    def method(self, name: str = "tome") -> Method:
        """Build a method by name with these options; ``matching`` may select another one than ``tome``.

        Raises:
            SpecError: no such method, or it lacks one of these options.
        """
        options: dict[str, object] = dict(self.changed())
        if name == "tome":
            name, more = _MATCHINGS[self.matching]
            options = {**options, **more}
            options.pop("matching", None)
        return get_method(name, options)

    def changed(self) -> tuple[tuple[str, Scalar], ...]:
        """Name and value of every option that is not at its default, sorted by name."""
        mine = {name: getattr(self, name) for name, default in _DEFAULTS.items() if getattr(self, name) != default}
        return tuple(sorted({**mine, **dict(self.more)}.items()))


def flags_of(method: str) -> tuple[str, ...]:
    """Names of those of ToMe's options that a method has, too; ``matching`` is ToMe's alone.

    Raises:
        SpecError: no such method.
    """
    own = option_names(method_class(method))
    return tuple(name for name in OPTIONS if name in own or (name, method) == ("matching", "tome"))


_DEFAULTS = {field.name: field.default for field in dataclasses.fields(Options) if field.name != "more"}
OPTIONS = tuple(_DEFAULTS)
"""Names of ToMe's options, each of them a flag of ``tomebench sweep``."""


def choices(name: str) -> tuple[Any, ...]:
    """All values of an option, the default first."""
    return get_args(Matching) if name == "matching" else _values.choices(Options, name)


PAPER = Options()
"""The paper's own method."""
