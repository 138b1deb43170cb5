"""DPC-KNN: cluster the patches around those that are dense and far from denser ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from tomebench.reduction.choices import Bounds
from tomebench.reduction.method import BlockSize, Context, Method
from tomebench.reduction.schedule import all_but_one_patch

if TYPE_CHECKING:
    from tomebench.reduction.plan import MergePlan


@dataclass(frozen=True)
class DpcKnn(Method):
    """Density peaks clustering on the nearest neighbours of the tokens x.

    The defaults are its authors' form: a cluster becomes its plain mean, and attention ignores sizes. They add random
    noise to the density so that none are equal; here ties go to the lower index.
    """

    source = "Zeng et al., Not All Tokens Are Equal (TCFormer), CVPR 2022, without its learned weights"
    cap = staticmethod(all_but_one_patch)

    neighbours: Annotated[int, Bounds(1, 1000)] = 5
    mean: Literal["plain", "size"] = "plain"
    count_sizes: Literal[False, True] = False

    def choose(self, ctx: Context) -> MergePlan:
        """Cluster the patches around the N - P - r of largest density times distance to a denser patch.

        With D = |x_i - x_j| / sqrt(C), the density of a patch is exp(-mean of D² over its nearest neighbours, itself
        included), and its distance the smallest D to a denser patch, or where there is none the largest D of all.
        """
        import torch

        from tomebench.reduction.clusters import largest, nearest_centre, plan_of_clusters, squared_distances
        from tomebench.reduction.metric import comparable

        x = comparable(ctx.x[:, ctx.prefix :], "euclidean")
        square = squared_distances(x) / x.shape[2]
        near = square.topk(min(self.neighbours, x.shape[1]), dim=2, largest=False).values
        density = -near.mean(dim=2)  # its logarithm, which far from all others does not underflow
        denser = density.unsqueeze(1) > density.unsqueeze(2)
        farthest = square.amax(dim=(1, 2), keepdim=True)
        distance = torch.where(denser, square, farthest).amin(dim=2)
        centres = largest(density + distance.log() / 2, x.shape[1] - ctx.r)
        cluster = nearest_centre(square, centres)
        return plan_of_clusters(
            centres.gather(1, cluster), ctx.r, ctx.prefix, "mean" if self.mean == "plain" else "weighted"
        )

    def cost(self, n: int, r: int, block: BlockSize) -> float:
        """MACs of the distance of every token from every other: N² C."""
        return float(n**2 * block.token_dim)
