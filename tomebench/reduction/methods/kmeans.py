"""K-means: cluster the patches into r fewer groups, each patch weighted by the attention that it receives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from tomebench.reduction.choices import Bounds, Combine, HeadsChoice, Metric, metric_channels
from tomebench.reduction.method import BlockSize, Context, Method
from tomebench.reduction.schedule import half_of_patches

if TYPE_CHECKING:
    from tomebench.reduction.plan import MergePlan


@dataclass(frozen=True)
class Kmeans(Method):
    """K-means on attention keys; the patches that receive most attention are the first centres."""

    source = "Marin et al., Token Pooling in Vision Transformers for Image Classification, WACV 2023"
    cap = staticmethod(half_of_patches)

    metric: Metric = "k"
    heads: HeadsChoice = "mean"
    combine: Combine = "weighted"
    iterations: Annotated[int, Bounds(1, 100)] = 5

    def choose(self, ctx: Context) -> MergePlan:
        """Cluster the patches into r fewer groups.

        A cluster keeps the token that it started from, so that none is empty and the number of tokens is fixed; the
        group takes that token's place. Ties go to the lower index.
        """
        import torch
        from torch.nn import functional as F

        from tomebench.reduction.metric import comparable, metric_of, received_attention, similarity
        from tomebench.reduction.plan import MergePlan, without_autocast

        metric = comparable(metric_of(ctx, self.metric, self.heads)[:, ctx.prefix :], "euclidean")
        weight = received_attention(ctx)[:, ctx.prefix :].to(metric.dtype)
        count, clusters = metric.shape[1], metric.shape[1] - ctx.r
        seeds = weight.argsort(dim=1, descending=True, stable=True)[:, :clusters].sort(dim=1).values
        slots = torch.arange(clusters, device=metric.device).expand_as(seeds)
        centres = metric.gather(1, seeds.unsqueeze(-1).expand(-1, -1, metric.shape[2]))
        with without_autocast(metric.device.type):
            for _ in range(self.iterations):
                nearest = similarity(metric, centres, "euclidean").argmax(dim=2).scatter(1, seeds, slots)
                member = F.one_hot(nearest, clusters).to(metric.dtype) * weight.unsqueeze(-1)
                centres = member.transpose(1, 2) @ metric / member.sum(dim=1).unsqueeze(-1)
            nearest = similarity(metric, centres, "euclidean").argmax(dim=2).scatter(1, seeds, slots)
        is_seed = torch.zeros(nearest.shape, dtype=torch.bool, device=metric.device).scatter(1, seeds, True)
        moved = is_seed.to(torch.int8).argsort(dim=1, stable=True)[:, : count - clusters]  # the others, ascending
        onto = seeds.gather(1, nearest.gather(1, moved))
        return MergePlan.moving(moved, onto, ctx.x.shape[1], ctx.prefix, self.combine)

    def cost(self, n: int, r: int, block: BlockSize) -> float:
        """MACs of the received attention, of distances and centres in each iteration, and of the last distances."""
        distances = n * (n - r) * metric_channels(self.metric, self.heads, block)
        return float(n**2 * block.heads_dim + (2 * self.iterations + 1) * distances)
