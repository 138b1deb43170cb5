"""Latency staircase: the time of one block at every number of tokens, each of its stages apart.

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
SHARE_REMOVED = 16
"""Of so many tokens one is removed where removing them is timed, whose time hardly depends on how many they are."""


def numbers_of_tokens(tokens: int, prefix: int, step: int, *, removal: bool = False) -> list[int]:
    """Numbers of tokens to time: from all down in steps, to one more than the prefix, or two, so that one can go."""
    least = min(max(prefix, 1) + (2 if removal else 1), tokens)
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
    *,
    removal: bool = False,
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
        removal: also time attention of tokens with sizes, and removing tokens; the model is one that removes some.
    """
    steps, found = {}, dict[int, list[list[float]]]()
    for count in counts:
        # Stages of one count at a time: together they would hold the tensors of all.
        for number, stage in enumerate(_stages(vit, layer, tokens, count, removal)):
            found.setdefault(count, []).append([])
            stop_if_asked()
            clock.burst(stage, 1)  # the first pass allocates and chooses kernels
            once = max(clock.burst(stage, 1), 1e-6)
            steps[count, number] = max(1, math.ceil(LEAST_SECONDS / once))
    for turn in range(rounds):
        order = random.Random(seed * 1_000_003 + turn).sample([*counts], len(counts))
        for count in order:
            for number, stage in enumerate(_stages(vit, layer, tokens, count, removal)):
                stop_if_asked()
                times = steps[count, number]
                found[count][number].append(1e3 * clock.burst(stage, times) / times)
        yield [Stair(count, *map(tuple, times)) for count, times in found.items()]


def _stages(vit: ReducedViT, layer: int, tokens: Tokens, count: int, removal: bool) -> tuple[Callable[[], object], ...]:
    """Attention and MLP of a block on the first ``count`` tokens; then attention of merged ones, and removing some."""
    first = Tokens(tokens.x[:, :count].contiguous(), None, tokens.position and tokens.position.first(count))
    x: Tensor = first.x

    def attention() -> object:
        with torch.inference_mode():
            return vit.attend(layer, first)

    def mlp() -> object:
        with torch.inference_mode():
            return vit.mlp(layer, x)

    if not removal:
        return attention, mlp
    sized = first._replace(size=torch.ones(x.shape[:2], device=x.device)) if vit.sized else first
    r = min(max(1, count // SHARE_REMOVED), vit.method.cap(count, vit.backbone.prefix))
    with torch.inference_mode():
        attended, heads = vit.attend(layer, sized)
        before_mlp = attended if vit.method.after_mlp else None
        after = attended if before_mlp is None else vit.mlp(layer, attended)

    def merged_attention() -> object:
        with torch.inference_mode():
            return vit.attend(layer, sized)

    def remove() -> object:
        with torch.inference_mode():
            return vit.reduce(layer, r, sized, after, heads, before_mlp)

    return attention, mlp, merged_attention, remove
