"""Bipartite soft matching (ToMe): match tokens of set A with set B, and plan the merge of the r most similar pairs.

Source: Bolya et al., Token Merging: Your ViT But Faster, arXiv 2210.09461, section 3. Written from the formulas.
"""

from __future__ import annotations

import math
import random
from typing import NamedTuple

import torch
from torch import Tensor

from tomebench.reduction.choices import Combine, Distance, Partition
from tomebench.reduction.constants import Constants
from tomebench.reduction.metric import comparable, similarity
from tomebench.reduction.plan import MergePlan, first_rows, identity_plan

_BITS = 62
"""Bits of an int64 that each stand for a token; its sign bit is left out."""


def bipartite_soft_matching(
    metric: Tensor,
    r: int,
    prefix: int,
    *,
    distance: Distance = "cosine",
    partition: Partition = "alternating",
    combine: Combine = "weighted",
    layer: int = 0,
    constants: Constants | None = None,
) -> MergePlan:
    """Match every token of set A with its most similar token of set B, and plan the merge of the r most similar pairs.

    Tokens 0, 2, 4, ... form set A and tokens 1, 3, 5, ... set B, counted with the prefix. Every A token proposes its
    most similar B token; the r best proposals are merged. Ties go to the lower index. The output keeps the prefix first
    and in order, then the rest of A, then B. Costs N²/4 · d multiply-accumulates per image.

    Args:
        metric: what similarity is measured on, [B, N, d]; in the paper the keys averaged over heads.
        r: tokens to remove, in [0, (N - prefix) // 2].
        prefix: leading tokens (class, distillation, registers) that never move and are never merged into.
        distance: see :func:`tomebench.reduction.metric.similarity`.
        partition: which tokens are A; ``sequential`` and ``random`` halve the patches, A being the smaller half.
        combine: what a pair is merged into.
        layer: number of the block, which seeds the random partition.
        constants: the model's cache; None caches nothing.

    Raises:
        ValueError: r out of range.
    """
    batch, n, _ = metric.shape
    if not 0 <= r <= max(n - prefix, 0) // 2:
        raise ValueError(f"r={r} is outside [0, {max(n - prefix, 0) // 2}] for {n} tokens of which {prefix} are prefix")
    if r == 0:
        return identity_plan(batch, n, metric.device)
    constants = constants or Constants()
    halves = constants.get(partition_halves, batch, n, prefix, r, partition, layer, device=metric.device)
    metric = comparable(metric, distance)
    scores = similarity(metric[:, halves.in_a], metric[:, halves.in_b], distance)
    if batch == 1:
        scores = scores.squeeze(0)
    best, liked = scores.max(dim=-1)
    moved, rest = split_by_sort(best, r) if best.is_cpu else split_by_rank(best, r, constants)
    kept = torch.cat([halves.prefix, halves.a.gather(-1, rest), halves.b], dim=-1)
    moved, into = halves.a.gather(-1, moved), liked.gather(-1, moved) + halves.slots
    if batch != 1:
        kept, moved, into = kept.view(-1), moved.view(-1), into.view(-1)
    return MergePlan(kept, moved, into, n, n - r, combine)


class Halves(NamedTuple):
    """Prefix, set A and set B as row numbers of the flattened batch [B * N], int64, ascending.

    [...] is [B], or empty for a batch of one image: operations on one dimension less are cheaper.
    """

    prefix: Tensor  # [..., P]
    a: Tensor  # set A, whose tokens are matched and may be merged, [..., K]
    b: Tensor  # set B, whose tokens are merged into, [..., N - P - K]
    slots: Tensor  # [..., 1]: the output slot of the first of B, when r of A are gone
    in_a: slice | Tensor  # indices of A among the tokens of an image
    in_b: slice | Tensor


def partition_halves(
    batch: int, n: int, prefix: int, r: int, partition: Partition, layer: int, device: torch.device
) -> Halves:
    """Split tokens into sets A and B; of an odd number of patches ``sequential`` and ``random`` give B one more."""
    middle = prefix + (n - prefix) // 2
    in_a: slice | Tensor
    in_b: slice | Tensor
    if partition == "alternating":
        in_a, in_b = slice(prefix + prefix % 2, n, 2), slice(prefix + 1 - prefix % 2, n, 2)
    elif partition == "sequential":
        in_a, in_b = slice(prefix, middle), slice(middle, n)
    else:
        in_a, in_b = random_halves(n, prefix, middle - prefix, layer, device)
    rows = torch.arange(batch * n, device=device).view(batch, n)
    a, b = rows[:, in_a].contiguous(), rows[:, in_b].contiguous()
    slots = first_rows(batch, n - r, device) + (prefix + a.shape[1] - r)
    roles = rows[:, :prefix].clone(), a, b, slots
    if batch == 1:
        roles = roles[0][0], roles[1][0], roles[2][0], roles[3][0]
    return Halves(*roles, in_a, in_b)


def draw(n: int, prefix: int, count: int, layer: int, seed: int = 0) -> list[int]:
    """Draw ``count`` patches at random, the same in every image: results must not depend on an image's batch."""
    return random.Random(f"{n} {prefix} {layer}" + f" {seed}" * (seed != 0)).sample(range(prefix, n), count)


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _drawn_bits(n: int, prefix: int, count: int, layer: int, seed: int) -> list[int]:
    """The tokens that :func:`draw` gives as a set of n bits, in integers of _BITS bits, the lowest tokens first.

    A constant to torch.compile, of which not every version can trace Python's random numbers.
    """
    drawn = sum(1 << token for token in draw(n, prefix, count, layer, seed))
    return [drawn >> first & (1 << _BITS) - 1 for first in range(0, n, _BITS)]


def random_halves(
    n: int, prefix: int, count: int, layer: int, device: torch.device, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Split the n - prefix patches at random into ``count`` and the others: indices, int64 ascending.

    Computed on the device from a few integers: a list of indices would be copied there in every compiled pass, which
    cannot be captured in a CUDA graph.
    """
    token = torch.arange(n, device=device)
    drawn = torch.zeros_like(token)
    for number, bits in enumerate(_drawn_bits(n, prefix, count, layer, seed)):
        here = token // _BITS == number
        drawn = torch.where(here, torch.bitwise_right_shift(bits, token % _BITS) & 1, drawn)
    order = drawn[prefix:].sort(descending=True, stable=True).indices + prefix
    return order[:count], order[count:]


_PRIME = 2**31 - 1


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _three(seed: str) -> list[int]:
    """Three integers below _PRIME that a seed stands for; a constant to torch.compile."""
    generator = random.Random(seed)
    return [generator.randrange(_PRIME) for _ in range(3)]


def random_numbers(count: int, seed: str, device: torch.device) -> Tensor:
    """Pseudo-random integers in [0, 2³¹ - 1), int64 [count], computed on the device from three of the seed's.

    Two rounds of squaring modulo a prime: without state or copy, so it can be compiled and captured in a CUDA graph.
    """
    start, first, second = _three(seed)
    x = (torch.arange(count, device=device) + start) % _PRIME
    x = (x * x + first) % _PRIME
    return (x * x + second) % _PRIME


def split_by_sort(best: Tensor, r: int) -> tuple[Tensor, Tensor]:
    """Indices of the r largest values of each row and of the others, by a stable sort: the fastest way on a CPU.

    Args:
        best: [..., K]. Of equal values the one at the lower index counts as larger.
        r: in [0, K].

    Returns:
        Indices int64 [..., r], largest first, and [..., K - r], ascending.
    """
    order = best.sort(dim=-1, descending=True, stable=True).indices
    return order.narrow(-1, 0, r), order.narrow(-1, r, order.shape[-1] - r).sort(dim=-1).values


def split_by_rank(best: Tensor, r: int, constants: Constants | None = None) -> tuple[Tensor, Tensor]:
    """:func:`split_by_sort` by K² comparisons and one scatter, without a sort, for GPUs; NaN ties with inf."""
    index, earlier = (constants or Constants()).get(_positions, best.shape, device=best.device)
    best = best.nan_to_num(nan=math.inf, posinf=math.inf, neginf=-math.inf)  # a sort puts NaN first, too
    mine, other = best.unsqueeze(-1), best.unsqueeze(-2)
    rank = torch.where(earlier, other >= mine, other > mine).sum(dim=-1)
    stays = rank >= r
    slot = torch.where(stays, stays.cumsum(dim=-1) + (r - 1), rank)
    order = torch.empty_like(slot).scatter_(-1, slot, index)
    return order.narrow(-1, 0, r), order.narrow(-1, r, order.shape[-1] - r)


def _positions(shape: torch.Size, device: torch.device) -> tuple[Tensor, Tensor]:
    """0, 1, 2, ... in each of the rows [..., K], and whether j comes before i [K (i), K (j)]."""
    index = torch.arange(shape[-1], device=device)
    return index.expand(shape), index < index.unsqueeze(1)
