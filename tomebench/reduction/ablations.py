"""The other ways to choose that the ToMe paper compares bipartite matching with: greedy matching, k-means, pruning.

Sources: Bolya et al., arXiv 2210.09461, table of matching algorithms; k-means after Marin et al., Token Pooling, WACV
2023. Written from the formulas.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from tomebench.reduction.metric import class_attention, comparable, metric_of, received_attention, similarity
from tomebench.reduction.options import Options
from tomebench.reduction.plan import MergePlan, without_autocast
from tomebench.reduction.registry import Context
from tomebench.reduction.tome import random_halves


def greedy(options: Options, ctx: Context) -> MergePlan:
    """Merge the most similar pair of all patches, r times; a token is in one pair at most.

    Of a pair the token at the lower index stays. Ties go to the lowest pair of indices. Costs N² · d.
    """
    metric = comparable(metric_of(ctx, options)[:, ctx.prefix :], options.distance)
    count = metric.shape[1]
    scores = similarity(metric, metric, options.distance)
    below = torch.ones(count, count, dtype=torch.bool, device=scores.device).tril()
    scores = scores.masked_fill(below, -torch.inf)  # a pair once, and no token with itself
    first, second = [], []
    for _ in range(ctx.r):
        best = scores.flatten(1).argmax(dim=1)
        first.append(best // count)
        second.append(best % count)
        for used in (first[-1], second[-1]):
            line = torch.arange(count, device=scores.device) == used.unsqueeze(1)
            scores = scores.masked_fill(line.unsqueeze(1) | line.unsqueeze(2), -torch.inf)
    return _plan(ctx, torch.stack(second, dim=1), torch.stack(first, dim=1))


def kmeans(options: Options, ctx: Context) -> MergePlan:
    """Cluster the patches into r fewer groups by k-means, weighted by the attention that each receives.

    Starts from the tokens that receive most. A cluster never loses the token that it started from, so none is ever
    empty and the number of tokens is fixed; that token's place is where the group goes. Ties go to the lower index.
    """
    metric = comparable(metric_of(ctx, options)[:, ctx.prefix :], "euclidean")
    weight = received_attention(ctx)[:, ctx.prefix :].to(metric.dtype)
    count, clusters = metric.shape[1], metric.shape[1] - ctx.r
    seeds = weight.argsort(dim=1, descending=True, stable=True)[:, :clusters].sort(dim=1).values
    slots = torch.arange(clusters, device=metric.device).expand_as(seeds)
    centres = metric.gather(1, seeds.unsqueeze(-1).expand(-1, -1, metric.shape[2]))
    with without_autocast(metric.device.type):
        for _ in range(int(options.matching.removeprefix("kmeans-"))):
            nearest = similarity(metric, centres, "euclidean").argmax(dim=2).scatter(1, seeds, slots)
            member = F.one_hot(nearest, clusters).to(metric.dtype) * weight.unsqueeze(-1)
            centres = member.transpose(1, 2) @ metric / member.sum(dim=1).unsqueeze(-1)
        nearest = similarity(metric, centres, "euclidean").argmax(dim=2).scatter(1, seeds, slots)
    is_seed = torch.zeros(nearest.shape, dtype=torch.bool, device=metric.device).scatter(1, seeds, True)
    moved = is_seed.to(torch.int8).argsort(dim=1, stable=True)[:, : count - clusters]  # the others, ascending
    return _plan(ctx, moved, seeds.gather(1, nearest.gather(1, moved)))


def random_prune(options: Options, ctx: Context) -> MergePlan:
    """Drop r patches at random, the same ones in every image."""
    batch, n = ctx.x.shape[:2]
    return _keeping(ctx, ctx.constants.get(_left, batch, n, ctx.prefix, ctx.r, ctx.layer, device=ctx.x.device))


def _left(batch: int, n: int, prefix: int, r: int, layer: int, device: torch.device) -> Tensor:
    """The tokens that are left when r patches are drawn, int64 [B, N - r]."""
    _, left = random_halves(n, prefix, r, layer, device)
    return torch.cat([torch.arange(prefix, device=device), left]).expand(batch, -1)


def attention_prune(options: Options, ctx: Context) -> MergePlan:
    """Drop the r patches that the class token attends to least; without one, that receive least."""
    score = class_attention(ctx)[:, ctx.prefix :]
    kept = score.argsort(dim=1, descending=True, stable=True)[:, : score.shape[1] - ctx.r].sort(dim=1).values
    lead = torch.arange(ctx.prefix, device=score.device).expand(len(score), -1)
    return _keeping(ctx, torch.cat([lead, kept + ctx.prefix], dim=1))


def _plan(ctx: Context, moved: Tensor, onto: Tensor) -> MergePlan:
    """Patches ``moved`` go to the place of patches ``onto``, both [B, r] counted without the prefix; the rest stays."""
    batch, n = ctx.x.shape[:2]
    moved, onto = moved + ctx.prefix, onto + ctx.prefix
    stays = torch.ones(batch, n, dtype=torch.int64, device=moved.device).scatter(1, moved, 0)
    kept = (1 - stays).argsort(dim=1, stable=True)[:, : n - ctx.r]
    slot = stays.cumsum(dim=1) - 1
    return MergePlan.of(kept, moved, slot.gather(1, onto), n)


def _keeping(ctx: Context, kept: Tensor) -> MergePlan:
    return MergePlan.of(kept, kept[:, :0], kept[:, :0], ctx.x.shape[1])
