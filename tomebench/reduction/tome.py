"""ToMe: bipartite soft matching on attention keys.

Source: Bolya et al., Token Merging: Your ViT But Faster, arXiv 2210.09461, section 3. Written from the formulas.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from tomebench.reduction.plan import MergePlan, identity_plan, without_autocast
from tomebench.reduction.registry import Context


@torch.no_grad()
def bipartite_soft_matching(metric: Tensor, r: int, prefix: int) -> MergePlan:
    """Match every second token to its most similar neighbour in the other half and merge the r closest pairs.

    Tokens 0, 2, 4, ... form set A and tokens 1, 3, 5, ... set B, counted with the prefix. Every A token proposes its
    most cosine-similar B token; the r best proposals are merged. Ties go to the lower index. The output keeps the
    prefix first and in order, then the rest of A, then B. Costs N²/4 · d multiply-accumulates per image.

    Args:
        metric: what similarity is measured on, [B, N, d]: the keys averaged over heads.
        r: tokens to remove, in [0, (N - prefix) // 2].
        prefix: leading tokens (class, distillation, registers) that never move and are never merged into.

    Raises:
        ValueError: r out of range.
    """
    batch, n, _ = metric.shape
    if not 0 <= r <= max(n - prefix, 0) // 2:
        raise ValueError(f"r={r} is outside [0, {max(n - prefix, 0) // 2}] for {n} tokens of which {prefix} are prefix")
    if r == 0:
        return identity_plan(batch, n, metric.device)
    # The prefix takes no part, and the halves keep the parity they have when it is counted.
    even, odd = prefix + prefix % 2, prefix + 1 - prefix % 2

    # In fp32 or better, under autocast too: half-precision scores pick another partner for one token in seven.
    kind = metric.device.type
    with without_autocast(kind):
        unit = F.normalize(metric.to(torch.promote_types(metric.dtype, torch.float32)), dim=-1)
        scores = unit[:, even::2] @ unit[:, odd::2].transpose(1, 2)
    split = split_by_sort if kind == "cpu" else split_by_rank
    moved, rest = split(scores.amax(dim=-1), r)
    # Only those that move need to know whom they like best: r rows instead of N / 2.
    partner = scores.gather(1, moved.unsqueeze(-1).expand(-1, -1, scores.shape[2])).argmax(dim=-1)

    lead = torch.arange(prefix, device=metric.device).expand(batch, prefix)
    others = torch.arange(odd, n, 2, device=metric.device).expand(batch, -1)
    kept = torch.cat([lead, rest * 2 + even, others], dim=1)
    return MergePlan(kept, moved * 2 + even, partner + (prefix + rest.shape[1]), n)


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


def tome(ctx: Context) -> MergePlan:
    """Plan one layer by bipartite soft matching with the paper's default options."""
    return bipartite_soft_matching(ctx.metric, ctx.r, ctx.prefix)
