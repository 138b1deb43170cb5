"""Latency staircase: the time of one block at every number of tokens, its attention and its MLP apart.

Kernels work in tiles, so time goes down in steps as tokens do: removing a few may gain nothing, or one more a lot. All
numbers of tokens take turns in a random order within a round, so that a machine that slows down slows all alike.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from tomebench.measure.clock import Clock
from tomebench.reduction.tokens import Tokens
from tomebench.reduction.vit import ReducedViT
from tomebench.runs.stairs import Stair

LEAST_SECONDS = 0.02
"""Least seconds of a burst of one stage at one number of tokens."""


def numbers_of_tokens(tokens: int, prefix: int, step: int) -> list[int]:
    """Numbers of tokens to time: from all down in steps, to one more than the prefix; ascending."""
    least = min(max(prefix, 1) + 1, tokens)
    return sorted({*range(tokens, least - 1, -step), least})


def time_staircase(
    vit: ReducedViT,
    layer: int,
    tokens: Tokens,
    counts: Sequence[int],
    rounds: int,
    clock: Clock,
    seed: int,
    stop_if_asked: Callable[[], None],
) -> Iterator[list[Stair]]:
    """Time a block; yields the stairs so far after every round.

    Args:
        vit: the model, in inference.
        layer: which of its blocks.
        tokens: input of the block, of all tokens [B, N, C].
        counts: numbers of tokens, each at most N: the first ones are taken.
        rounds: of all counts, in a random order.
        clock: reads the time.
        seed: of the orders.
        stop_if_asked: called before every burst; may raise.
    """
    stages = {count: _stages(vit, layer, tokens, count) for count in counts}
    steps = {}
    for count, both in stages.items():
        for number, stage in enumerate(both):
            stop_if_asked()
            clock.burst(stage, 1)  # the first pass allocates and chooses kernels
            once = max(clock.burst(stage, 1), 1e-6)
            steps[count, number] = max(1, math.ceil(LEAST_SECONDS / once))
    found: dict[int, tuple[list[float], list[float]]] = {count: ([], []) for count in counts}
    for turn in range(rounds):
        order = random.Random(seed * 1_000_003 + turn).sample([*counts], len(counts))
        for count in order:
            for number, stage in enumerate(stages[count]):
                stop_if_asked()
                times = steps[count, number]
                found[count][number].append(1e3 * clock.burst(stage, times) / times)
        yield [Stair(count, tuple(both[0]), tuple(both[1])) for count, both in found.items()]


def _stages(
    vit: ReducedViT, layer: int, tokens: Tokens, count: int
) -> tuple[Callable[[], object], Callable[[], object]]:
    """Attention and MLP of a block on the first ``count`` tokens."""
    first = Tokens(tokens.x[:, :count].contiguous(), None, tokens.position and tokens.position.first(count))
    x: Tensor = first.x

    def attention() -> object:
        with torch.inference_mode():
            return vit.attend(layer, first)

    def mlp() -> object:
        with torch.inference_mode():
            return vit.mlp(layer, x)

    return attention, mlp
