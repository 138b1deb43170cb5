"""Clusters of patches: distances, first centres, pairs, k-means, and the plan that makes one token of each cluster.

Dense and batched: a cluster is a column of a one-hot matrix, so that sums over clusters are matrix products, which add
in the same order in every run.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from tomebench.reduction.choices import Combine
from tomebench.reduction.metric import similarity
from tomebench.reduction.plan import MergePlan, without_autocast


def squared_distances(x: Tensor) -> Tensor:
    """Squared Euclidean distance of every row to every row: fp32 or wider [B, T, C] -> [B, T, T].

    Symmetric, not negative, and zero from a row to itself, all to the last bit.
    """
    with without_autocast(x.device.type):
        product = torch.bmm(x, x.transpose(1, 2))
    norms = (x * x).sum(dim=-1)
    distance = norms.unsqueeze(2) + norms.unsqueeze(1) - (product + product.transpose(1, 2))
    own = torch.eye(x.shape[1], dtype=torch.bool, device=x.device)
    return distance.clamp_min(0).masked_fill(own, 0)


def largest(score: Tensor, count: int) -> Tensor:
    """The ``count`` patches of largest score [B, T], ascending, int64 [B, count]; ties go to the lower index."""
    return score.argsort(dim=1, descending=True, stable=True)[:, :count].sort(dim=1).values


def nearest_centre(distance: Tensor, centres: Tensor) -> Tensor:
    """Cluster of every patch, that of the nearest centre; a centre is in its own, so that no cluster is empty.

    Args:
        distance: of patches from patches, [B, T, T].
        centres: patches, int64 [B, k], no two the same.

    Returns:
        Numbers from 0 to k - 1, int64 [B, T]; ties go to the lower number.
    """
    of_centres = distance.gather(2, centres.unsqueeze(1).expand(-1, distance.shape[1], -1))
    numbers = torch.arange(centres.shape[1], device=centres.device).expand_as(centres)
    return of_centres.argmin(dim=2).scatter(1, centres, numbers)


def fill_clusters(distance: Tensor) -> Tensor:
    """Cluster of every patch, that of the nearest centre, and none empty.

    An empty cluster takes the patch that is farthest from its centre, the next one the second farthest, and so on; the
    patch nearest to its centre stays in every cluster. So there are always enough patches.

    Args:
        distance: of patches from centres, [B, T, k] with T >= k.

    Returns:
        Numbers from 0 to k - 1, int64 [B, T]; ties go to the lower number.
    """
    count = distance.shape[2]
    least, nearest = distance.min(dim=2)
    member = members(nearest, count)
    filled = member.any(dim=1)
    closest = distance.masked_fill(~member, torch.inf).argmin(dim=1)
    stays = (members(closest, distance.shape[1]) & filled.unsqueeze(2)).any(dim=1)
    farthest = least.masked_fill(stays, -torch.inf).argsort(dim=1, descending=True, stable=True)[:, :count]
    empty = filled.to(torch.int8).argsort(dim=1, stable=True)  # the empty clusters first
    taken = torch.arange(count, device=distance.device) < (~filled).sum(dim=1, keepdim=True)
    return nearest.scatter(1, farthest, torch.where(taken, empty, nearest.gather(1, farthest)))


def members(cluster: Tensor, count: int) -> Tensor:
    """Which of ``count`` clusters every patch is in: numbers int64 [B, T] -> bool [B, T, count]."""
    return F.one_hot(cluster, count).bool()


def most_similar(scores: Tensor) -> tuple[Tensor, Tensor]:
    """The most similar pair of each image: row and column of the largest score, int64 [B] each.

    Args:
        scores: [B, T, T], -inf where there is no pair. Of equal scores the one in the lower row, then column, is taken.
    """
    # Many times as fast on a CPU as one argmax over T² scores: torch has vectorised the maximum, but not its index.
    row = scores.amax(dim=2).argmax(dim=1)
    return row, scores[torch.arange(len(scores), device=scores.device), row].argmax(dim=1)


def lloyd(points: Tensor, seeds: Tensor, iterations: int) -> Tensor:
    """Cluster points by Lloyd's k-means; a cluster keeps the point that it starts from, so that none is empty.

    Args:
        points: [B, T, d], fp32 or wider.
        seeds: the point that each of the K clusters starts from, int64 [B, K], distinct and ascending.
        iterations: how often centres become the means of their clusters, >= 1.

    Returns:
        The seed of the cluster of each point, int64 [B, T]; of equally near centres the one of the lower seed.
    """
    clusters = seeds.shape[1]
    slots = torch.arange(clusters, device=seeds.device).expand_as(seeds)

    def nearest(centres: Tensor) -> Tensor:
        return similarity(points, centres, "euclidean").argmax(dim=2).scatter(1, seeds, slots)

    centres = points.gather(1, seeds.unsqueeze(-1).expand(-1, -1, points.shape[2]))
    with without_autocast(points.device.type):
        for _ in range(iterations):
            member = F.one_hot(nearest(centres), clusters).to(points.dtype)
            centres = member.transpose(1, 2) @ points / member.sum(dim=1).unsqueeze(-1)
        return seeds.gather(1, nearest(centres))


def plan_of_clusters(onto: Tensor, r: int, prefix: int, combine: Combine = "weighted") -> MergePlan:
    """The plan that merges clusters, and leaves the prefix and the order of the patches that stay as they are.

    Args:
        onto: the patch of its cluster that each patch is merged into, int64 [B, T], numbered without the prefix; one
            that stays goes onto itself.
        r: patches that go onto another, as many in every image.
        prefix: tokens before the patches.
        combine: what a cluster is merged into.
    """
    patches = onto.shape[1]
    stays = onto == torch.arange(patches, device=onto.device)
    moved = stays.to(torch.int8).argsort(dim=1, stable=True)[:, :r]  # those that do not, ascending
    return MergePlan.moving(moved, onto.gather(1, moved), patches + prefix, prefix, combine)
