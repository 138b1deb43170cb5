"""Token pooling: k-means on the patches, each weighted by the attention that it receives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from tomebench.reduction.choices import Bounds
from tomebench.reduction.method import BlockSize, Context, Method
from tomebench.reduction.schedule import all_but_one_patch

if TYPE_CHECKING:
    from tomebench.reduction.plan import MergePlan


@dataclass(frozen=True)
class TokenPooling(Method):
    """Weighted k-means on the tokens x; a cluster becomes its weighted mean.

    The weight of a patch is the attention that it receives from all tokens. Attention ignores sizes, as its authors do.
    """

    source = "Marin et al., Token Pooling in Vision Transformers for Image Classification, WACV 2023"
    cap = staticmethod(all_but_one_patch)

    iterations: Annotated[int, Bounds(1, 100)] = 5
    count_sizes: Literal[False, True] = False

    def choose(self, ctx: Context) -> MergePlan:
        """Cluster the patches by Lloyd's iterations from the N - P - r heaviest: assign to centres, then move these.

        The means after the last iteration are what is left, each in the place of the heaviest patch of its cluster. A
        cluster that would be empty takes the patch that is farthest from its centre and not the nearest to that centre.
        """
        import torch

        from tomebench.reduction.clusters import fill_clusters, largest, members, plan_of_clusters
        from tomebench.reduction.metric import comparable, received_attention, similarity
        from tomebench.reduction.plan import without_autocast

        weight = received_attention(ctx)
        x = comparable(ctx.x[:, ctx.prefix :], "euclidean")
        mass = weight[:, ctx.prefix :].to(x.dtype).clamp_min(torch.finfo(x.dtype).tiny).unsqueeze(2)
        count = x.shape[1] - ctx.r
        seeds = largest(mass.squeeze(2), count)
        centres = x.gather(1, seeds.unsqueeze(2).expand(-1, -1, x.shape[2]))
        cluster = fill_clusters(-similarity(x, centres, "euclidean"))
        for _ in range(self.iterations - 1):
            share = members(cluster, count) * mass
            with without_autocast(x.device.type):
                centres = share.transpose(1, 2) @ x / share.sum(dim=1).unsqueeze(2)
            cluster = fill_clusters(-similarity(x, centres, "euclidean"))
        heaviest = (members(cluster, count) * mass).argmax(dim=1)
        return plan_of_clusters(heaviest.gather(1, cluster), ctx.r, ctx.prefix).averaged(weight)

    def cost(self, n: int, r: int, block: BlockSize) -> float:
        """MACs of the received attention, of distances in each iteration, and of centres in all but the last."""
        return float(n**2 * block.heads_dim + (2 * self.iterations - 1) * n * (n - r) * block.token_dim)
