"""K-medoids: cluster the patches around some of them, weighted by the attention that they receive."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from tomebench.reduction.choices import Bounds
from tomebench.reduction.method import BlockSize, Context, Method
from tomebench.reduction.schedule import all_but_one_patch

if TYPE_CHECKING:
    from tomebench.reduction.plan import MergePlan


@dataclass(frozen=True)
class Kmedoids(Method):
    """Weighted k-medoids on the tokens x; of a cluster its medoid is left, unchanged.

    The medoid is the patch i of a cluster with the least sum of w_j |x_i - x_j|² over the patches j of that cluster, w
    being the attention that a patch receives. With ``medoid=all`` it is the one with the least w_i times the sum of
    |x_i - x_j|² over all patches, as a widely used implementation has it. Attention ignores sizes, as its authors do.
    """

    source = "Marin et al., Token Pooling in Vision Transformers for Image Classification, WACV 2023"
    cap = staticmethod(all_but_one_patch)

    iterations: Annotated[int, Bounds(1, 100)] = 3
    medoid: Literal["cluster", "all"] = "cluster"
    count_sizes: Literal[False, True] = False

    def choose(self, ctx: Context) -> MergePlan:
        """Cluster the patches from the N - P - r heaviest: assign to medoids, then choose these anew in each cluster.

        A medoid is in its own cluster, so that none is empty. Ties go to the lower index.
        """
        import torch

        from tomebench.reduction.clusters import largest, members, nearest_centre, plan_of_clusters, squared_distances
        from tomebench.reduction.metric import comparable, received_attention

        square = squared_distances(comparable(ctx.x[:, ctx.prefix :], "euclidean"))
        weight = received_attention(ctx)[:, ctx.prefix :].to(square.dtype)
        count = square.shape[1] - ctx.r
        medoids = largest(weight, count)
        for _ in range(self.iterations):
            cluster = nearest_centre(square, medoids)
            if self.medoid == "cluster":
                together = cluster.unsqueeze(2) == cluster.unsqueeze(1)
                spread = (square * weight.unsqueeze(1)).masked_fill(~together, 0).sum(dim=2)
            else:
                spread = weight * square.sum(dim=2)
            outside = ~members(cluster, count)
            medoids = spread.unsqueeze(2).expand(-1, -1, count).masked_fill(outside, torch.inf).argmin(dim=1)
        return plan_of_clusters(medoids.gather(1, cluster), ctx.r, ctx.prefix, "keep")

    def cost(self, n: int, r: int, block: BlockSize) -> float:
        """MACs of the received attention, and of the distance of every token from every other: N² C each."""
        return float(n**2 * (block.heads_dim + block.token_dim))
