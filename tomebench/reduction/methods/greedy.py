"""Greedy matching without replacement: merge the most similar pair of all patches, one pair after the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tomebench.reduction.choices import Combine, Distance, HeadsChoice, Metric, metric_channels
from tomebench.reduction.method import BlockSize, Context, Method
from tomebench.reduction.schedule import half_of_patches

if TYPE_CHECKING:
    from tomebench.reduction.plan import MergePlan


@dataclass(frozen=True)
class Greedy(Method):
    """Greedy matching without replacement: the most similar pair of all patches, r times."""

    source = "Bolya et al., Token Merging: Your ViT But Faster, ICLR 2023, table of matching algorithms"
    cap = staticmethod(half_of_patches)

    metric: Metric = "k"
    heads: HeadsChoice = "mean"
    distance: Distance = "cosine"
    combine: Combine = "weighted"

    def choose(self, ctx: Context) -> MergePlan:
        """Merge r disjoint pairs; of each the token at the lower index stays, and ties go to the lower index."""
        import torch

        from tomebench.reduction.clusters import most_similar
        from tomebench.reduction.metric import comparable, metric_of, similarity
        from tomebench.reduction.plan import MergePlan

        metric = comparable(metric_of(ctx, self.metric, self.heads)[:, ctx.prefix :], self.distance)
        count = metric.shape[1]
        scores = similarity(metric, metric, self.distance)
        below = torch.ones(count, count, dtype=torch.bool, device=scores.device).tril()
        scores = scores.masked_fill(below, -torch.inf)  # a pair once, and no token with itself
        image = torch.arange(len(scores), device=scores.device)
        first, second = [], []
        for _ in range(ctx.r):
            pair = most_similar(scores)
            first.append(pair[0])
            second.append(pair[1])
            for used in pair:
                scores[image, used] = scores[image, :, used] = -torch.inf
        moved, onto = torch.stack(second, dim=1), torch.stack(first, dim=1)
        return MergePlan.moving(moved, onto, ctx.x.shape[1], ctx.prefix, self.combine)

    def cost(self, n: int, r: int, block: BlockSize) -> float:
        """MACs of the similarity of every token with every other: N² d."""
        return float(n**2 * metric_channels(self.metric, self.heads, block))
