"""ToMe: bipartite soft matching on attention keys.

Source: Bolya et al., Token Merging: Your ViT But Faster, arXiv 2210.09461, section 3. Written from the formulas.
"""

from __future__ import annotations

import functools
import math
import random
from collections.abc import Callable, Iterable
from functools import partial

import torch
from torch import Tensor

from tomebench.reduction.metric import comparable, metric_of, similarity
from tomebench.reduction.options import Distance, Options, Partition
from tomebench.reduction.plan import MergePlan, identity_plan
from tomebench.reduction.registry import Context, Method


@torch.no_grad()
def bipartite_soft_matching(
    metric: Tensor,
    r: int,
    prefix: int,
    *,
    distance: Distance = "cosine",
    partition: Partition = "alternating",
    layer: int = 0,
) -> MergePlan:
    """Match every token of one half to its most similar one in the other half and merge the r closest pairs.

    Tokens 0, 2, 4, ... form set A and tokens 1, 3, 5, ... set B, counted with the prefix. Every A token proposes its
    most similar B token; the r best proposals are merged. Ties go to the lower index. The output keeps the prefix first
    and in order, then the rest of A, then B. Costs N²/4 · d multiply-accumulates per image.

    Args:
        metric: what similarity is measured on, [B, N, d]: the keys averaged over heads.
        r: tokens to remove, in [0, (N - prefix) // 2].
        prefix: leading tokens (class, distillation, registers) that never move and are never merged into.
        distance: see :func:`tomebench.reduction.metric.similarity`.
        partition: which tokens are A; ``sequential`` and ``random`` halve the patches, A being the smaller half.
        layer: makes another random partition.

    Raises:
        ValueError: r out of range.
    """
    batch, n, _ = metric.shape
    if not 0 <= r <= max(n - prefix, 0) // 2:
        raise ValueError(f"r={r} is outside [0, {max(n - prefix, 0) // 2}] for {n} tokens of which {prefix} are prefix")
    if r == 0:
        return identity_plan(batch, n, metric.device)
    metric = comparable(metric, distance)
    if partition == "alternating":
        # The prefix takes no part, and the halves keep the parity they have when it is counted.
        even, odd = prefix + prefix % 2, prefix + 1 - prefix % 2
        of_a, of_b = metric[:, even::2], metric[:, odd::2]
    else:
        in_a, in_b = halves(n, prefix, partition, layer, metric.device)
        of_a, of_b = metric[:, in_a], metric[:, in_b]
    scores = similarity(of_a, of_b, distance)
    split = split_by_sort if metric.device.type == "cpu" else split_by_rank
    moved, rest = split(scores.amax(dim=-1), r)
    # Only those that move need to know whom they like best: r rows instead of N / 2.
    partner = scores.gather(1, moved.unsqueeze(-1).expand(-1, -1, scores.shape[2])).argmax(dim=-1)

    lead = torch.arange(prefix, device=metric.device).expand(batch, prefix)
    if partition == "alternating":
        others = torch.arange(odd, n, 2, device=metric.device).expand(batch, -1)
        moved, rest = moved * 2 + even, rest * 2 + even
    else:
        others = in_b.expand(batch, -1)
        moved, rest = in_a[moved], in_a[rest]
    return MergePlan(torch.cat([lead, rest, others], dim=1), moved, partner + (prefix + rest.shape[1]), n)


def halves(n: int, prefix: int, partition: Partition, layer: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """The tokens of A and of B in ascending order, int64 [T // 2] and [T - T // 2] of the T = n - prefix patches."""
    tokens = range(prefix, n)
    chosen = tokens[: len(tokens) // 2] if partition == "sequential" else draw(n, prefix, len(tokens) // 2, layer)
    return constant(sorted(chosen), device), constant(sorted({*tokens} - {*chosen}), device)


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def draw(n: int, prefix: int, count: int, layer: int) -> list[int]:
    """Patches at random, the same for every image, so that a result does not hang on the batch it is in.

    A constant to the compiler, of which not every version knows Python's random numbers.
    """
    return random.Random(f"{n} {prefix} {layer}").sample(range(prefix, n), count)


def constant(indices: Iterable[int], device: torch.device) -> Tensor:
    """Indices that are the same in every pass, int64; copied to the device once, since a CUDA graph cannot."""
    if torch.compiler.is_compiling():
        return torch.tensor([*indices], device=device)
    return _constant(tuple(indices), device)


@functools.lru_cache(maxsize=1024)
def _constant(indices: tuple[int, ...], device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # or training could not use it
        return torch.tensor(indices, dtype=torch.int64, device=device)


def split_by_sort(best: Tensor, r: int) -> tuple[Tensor, Tensor]:
    """The r largest values of each row, and the others: what a CPU does fastest.

    Args:
        best: [B, K]. Of equal values the one at the lower index counts as larger.
        r: in [0, K].

    Returns:
        Indices int64 [B, r], largest first, and [B, K - r], ascending.
    """
    order = best.argsort(dim=-1, descending=True, stable=True)
    return order[:, :r], order[:, r:].sort(dim=-1).values


def split_by_rank(best: Tensor, r: int) -> tuple[Tensor, Tensor]:
    """The same as :func:`split_by_sort` by K² comparisons and one scatter, without a sort; NaN ties with inf."""
    best = best.nan_to_num(nan=math.inf, posinf=math.inf, neginf=-math.inf)  # a sort, too, puts what is no number first
    index = torch.arange(best.shape[1], device=best.device)
    mine, other = best.unsqueeze(2), best.unsqueeze(1)
    rank = ((other > mine) | ((other == mine) & (index < index.unsqueeze(1)))).sum(dim=-1)
    stays = rank >= r
    slot = torch.where(stays, stays.cumsum(dim=-1) + (r - 1), rank)
    order = torch.zeros_like(slot).scatter(1, slot, index.expand_as(slot))
    return order[:, :r], order[:, r:]


def tome(options: Options) -> Method:
    """Merging as the paper does it, or with one of the choices that it ablates."""
    from tomebench.reduction import ablations

    ways: dict[str, Callable[[Options, Context], MergePlan]] = {
        "bipartite": _bipartite,
        "greedy": ablations.greedy,
        "kmeans-2": ablations.kmeans,
        "kmeans-5": ablations.kmeans,
        "random-prune": ablations.random_prune,
        "attention-prune": ablations.attention_prune,
    }
    return Method(partial(ways[options.matching], options), options.combine, merges=not options.prunes)


def _bipartite(options: Options, ctx: Context) -> MergePlan:
    metric = metric_of(ctx, options)
    return bipartite_soft_matching(
        metric, ctx.r, ctx.prefix, distance=options.distance, partition=options.partition, layer=ctx.layer
    )
