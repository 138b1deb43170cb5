"""ToMe: bipartite soft matching on attention keys."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tomebench.reduction.choices import Combine, Distance, HeadsChoice, Metric, Partition, metric_channels
from tomebench.reduction.method import BlockSize, Context, Method
from tomebench.reduction.schedule import half_of_patches

if TYPE_CHECKING:
    from tomebench.reduction.plan import MergePlan


@dataclass(frozen=True)
class Tome(Method):
    """Token Merging: bipartite soft matching on attention keys."""

    source = "Bolya et al., Token Merging: Your ViT But Faster, ICLR 2023"
    cap = staticmethod(half_of_patches)

    metric: Metric = "k"
    heads: HeadsChoice = "mean"
    distance: Distance = "cosine"
    combine: Combine = "weighted"
    partition: Partition = "alternating"

    def choose(self, ctx: Context) -> MergePlan:
        """Merge the r tokens of set A that are most similar to a token of set B."""
        from tomebench.reduction.matching import bipartite_soft_matching
        from tomebench.reduction.metric import metric_of

        return bipartite_soft_matching(
            metric_of(ctx, self.metric, self.heads),
            ctx.r,
            ctx.prefix,
            distance=self.distance,
            partition=self.partition,
            combine=self.combine,
            layer=ctx.layer,
            constants=ctx.constants,
        )

    def cost(self, n: int, r: int, block: BlockSize) -> float:
        """MACs of the similarity of every token of A with every token of B: N²/4 d."""
        return n**2 / 4 * metric_channels(self.metric, self.heads, block)
