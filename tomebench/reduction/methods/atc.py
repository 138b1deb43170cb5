"""atc: agglomerative clustering of the patches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from tomebench.reduction.choices import Combine, HeadsChoice, Metric, metric_channels
from tomebench.reduction.method import BlockSize, Context, Method
from tomebench.reduction.schedule import all_but_one_patch

if TYPE_CHECKING:
    from torch import Tensor

    from tomebench.reduction.plan import MergePlan


@dataclass(frozen=True)
class Atc(Method):
    """Agglomerative Token Clustering: join the two most similar clusters, r times; first each patch is one by itself.

    How similar two clusters are is the ``linkage``: of the cosine similarities between the patches of one and those of
    the other the ``average``, the largest (``single``) or the smallest (``complete``). A merged token counts as one
    patch in it, whatever its size; the mean of a cluster is weighted by size, and attention counts sizes.
    """

    source = "Haurum et al., Agglomerative Token Clustering, ECCV 2024"
    cap = staticmethod(all_but_one_patch)

    linkage: Literal["average", "single", "complete"] = "average"
    metric: Metric = "k"
    heads: HeadsChoice = "mean"
    combine: Combine = "weighted"

    def choose(self, ctx: Context) -> MergePlan:
        """Join clusters; each takes the place of its patch at the lowest index, and ties go to the lower index.

        The rule of Lance and Williams: how similar a joined cluster is to another follows from its two parts. So a step
        reads the T² similarities once and writes two rows and two columns of them.
        """
        import torch

        from tomebench.reduction.clusters import most_similar, plan_of_clusters
        from tomebench.reduction.metric import comparable, metric_of, similarity

        metric = comparable(metric_of(ctx, self.metric, self.heads)[:, ctx.prefix :], "cosine")
        upper = similarity(metric, metric, "cosine").triu(1)  # the product need not be symmetric in its last bits
        scores = upper + upper.transpose(1, 2)
        scores.diagonal(dim1=1, dim2=2).fill_(-torch.inf)
        image = torch.arange(len(scores), device=scores.device)
        counts = torch.ones_like(scores[:, 0])  # patches of the cluster that is at each index
        onto = torch.arange(scores.shape[1], device=scores.device).repeat(len(scores), 1)
        for _ in range(ctx.r):
            first, second = most_similar(scores)  # first < second, since scores are symmetric
            count, other_count = counts[image, first], counts[image, second]
            joined = self._linked(scores[image, first], scores[image, second], count, other_count)
            joined[image, first] = -torch.inf
            scores[image, first] = scores[image, :, first] = joined
            scores[image, second] = scores[image, :, second] = -torch.inf
            counts[image, first] = count + other_count
            onto = torch.where(onto == second.unsqueeze(1), first.unsqueeze(1), onto)
        return plan_of_clusters(onto, ctx.r, ctx.prefix, self.combine)

    def _linked(self, one: Tensor, other: Tensor, count: Tensor, other_count: Tensor) -> Tensor:
        """Similarity to every cluster of what two clusters become, from theirs [B, T] and their patches [B]."""
        import torch

        if self.linkage == "average":
            share = (count / (count + other_count)).unsqueeze(1)
            return share * one + (1 - share) * other
        return torch.maximum(one, other) if self.linkage == "single" else torch.minimum(one, other)

    def cost(self, n: int, r: int, block: BlockSize) -> float:
        """MACs of the similarity of every token with every other: N² d. Joining multiplies no matrices."""
        return float(n**2 * metric_channels(self.metric, self.heads, block))
