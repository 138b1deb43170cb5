"""Schedules near one: which of them would be faster, and which to try next.

A change takes tokens from the r of one layer and gives as many, half or twice as many to another, or to one layer
alone. What a schedule costs is known for every one; what it loses is not, except that one which leaves fewer tokens
after every layer than one that loses too much is likely to lose too much as well.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

from tomebench.reduction.schedule import TokenTrace, token_trace

LEAST_SAVED = 0.002
"""Share of the cost that a schedule has to save to be worth trying."""


Cost = Callable[[Sequence[int]], float]
"""Tokens after each block -> what a pass costs."""


@dataclass(frozen=True)
class Space:
    """The schedules of one model and method, with their costs."""

    tokens: int  # before the first block
    prefix: int
    depth: int  # number of blocks
    cap: Callable[[int, int], int]  # (tokens, prefix) -> the most tokens that the method can remove
    prefix_only: bool
    cost: Cost  # ms of a pass, or GMACs

    def asked(self, layers: Sequence[int]) -> tuple[int, ...]:
        """A schedule without what ``prefix_only`` drops in the last block, whatever its r."""
        return (*layers[:-1], 0) if self.prefix_only else tuple(layers)

    def trace(self, layers: Sequence[int]) -> TokenTrace:
        """What a schedule removes and leaves."""
        return token_trace(layers, self.tokens, self.prefix, cap=self.cap, prefix_only=self.prefix_only)


def changes(layers: Sequence[int], step: int) -> Iterable[tuple[int, ...]]:
    """Schedules that remove ``step`` tokens more in one layer, or move some to another layer. None is negative."""
    for to in range(len(layers)):
        yield _changed(layers, {to: step})
    for to, source in itertools.permutations(range(len(layers)), 2):
        for added, taken in ((step, step), (2 * step, step), (step, 2 * step)):
            if layers[source] >= taken:
                yield _changed(layers, {to: added, source: -taken})


def _changed(layers: Sequence[int], by: dict[int, int]) -> tuple[int, ...]:
    return tuple(r + by.get(layer, 0) for layer, r in enumerate(layers))


def propose(
    space: Space,
    layers: Sequence[int],
    step: int,
    *,
    tried: Collection[tuple[int, ...]],
    rejected: Sequence[Sequence[int]],
    count: int,
    seed: str,
) -> list[tuple[int, ...]]:
    """Schedules to try next: cheaper ones that are not known, from little to much cheaper.

    Args:
        space: of the schedules.
        layers: r of every layer of the cheapest schedule that keeps the limit so far.
        step: tokens of a change.
        tried: schedules that need not be tried.
        rejected: tokens after each block of schedules that lose too much.
        count: most schedules; of as many equal parts, by cost, one is drawn from each.
        seed: of the draw.
    """
    limit = (1 - LEAST_SAVED) * space.cost(space.trace(layers).tokens)
    found: dict[tuple[int, ...], float] = {}
    for asked in changes(layers, step):
        trace, known = space.trace(asked), asked in tried or asked != space.asked(asked)
        if known or trace.clamped or any(_leaves_less(trace.tokens, each) for each in rejected):
            continue
        if (cost := space.cost(trace.tokens)) < limit:
            found[asked] = cost
    ranked = sorted(found, key=lambda each: (-found[each], each))
    draw = random.Random(seed)
    ends = [round(part * len(ranked) / count) for part in range(count + 1)]
    return [draw.choice(ranked[start:end]) for start, end in itertools.pairwise(ends) if start < end]


def _leaves_less(tokens: Sequence[int], rejected: Sequence[int]) -> bool:
    return all(own <= other for own, other in zip(tokens, rejected, strict=True))
