"""ToFu: match tokens as ToMe does; in the first blocks drop what is matched, later merge it and keep its norm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from tomebench.reduction.choices import Distance, HeadsChoice, Metric, Partition, metric_channels
from tomebench.reduction.method import BlockSize, Context, Method
from tomebench.reduction.schedule import half_of_patches

if TYPE_CHECKING:
    from tomebench.reduction.plan import MergePlan


@dataclass(frozen=True)
class Tofu(Method):
    """Token Fusion: pruning in the blocks l <= L/2 of L, counted from 0, and MLERP merging after them.

    MLERP makes of a group the mean of its tokens, as long as its longest one: mean · max |x_i| / |mean|. That is the
    paper's, ``denominator`` = ``mean``. The authors' code, the default, divides by the length that the destination
    had, mean · max |x_i| / |x_dst|. It takes the plain mean, and attention does not count sizes.
    """

    source = "Kim et al., Token Fusion: Bridging the Gap between Token Pruning and Token Merging, WACV 2024"
    cap = staticmethod(half_of_patches)

    denominator: Literal["destination", "mean"] = "destination"
    mean: Literal["plain", "size"] = "plain"
    metric: Metric = "k"
    heads: HeadsChoice = "mean"
    distance: Distance = "cosine"
    partition: Partition = "alternating"
    count_sizes: Literal[False, True] = False

    def choose(self, ctx: Context) -> MergePlan:
        """Match the r tokens of set A that are most similar to a token of set B, and drop or merge them by depth."""
        from tomebench.reduction.matching import bipartite_soft_matching
        from tomebench.reduction.metric import metric_of

        plan = bipartite_soft_matching(
            metric_of(ctx, self.metric, self.heads),
            ctx.r,
            ctx.prefix,
            distance=self.distance,
            partition=self.partition,
            layer=ctx.layer,
            constants=ctx.constants,
        )
        if 2 * ctx.layer <= ctx.depth:
            return plan.without_moved()
        return self._mlerp(plan, ctx)

    def _mlerp(self, plan: MergePlan, ctx: Context) -> MergePlan:
        """The plan whose groups become their mean, scaled to their longest token; not if they have length zero."""
        import torch

        from tomebench.reduction.plan import cast, merge, wider

        kept, moved, into = plan.kept_rows, plan.moved_rows, plan.into_rows
        x = cast(ctx.x, wider(ctx.x.dtype))
        sizes = None if self.mean == "plain" else ctx.size
        size = x.new_ones(x[..., 0].numel()) if sizes is None else sizes.reshape(-1)
        total = size.index_select(0, kept).index_add(0, into, size.index_select(0, moved))
        length = torch.linalg.vector_norm(x, dim=2).view(-1)
        before = after = length.index_select(0, kept)
        if self.denominator == "mean":
            after = torch.linalg.vector_norm(merge(plan, x, sizes, ctx.constants)[0], dim=2).view(-1)
        longest = before.scatter_reduce(0, into, length.index_select(0, moved), "amax")
        joined = torch.zeros_like(after).index_copy(0, into, after.index_select(0, into)) > 0
        scale = torch.where(joined, longest / after, 1.0)
        share = (size.index_select(0, kept) * scale / total, size.index_select(0, moved) * (scale / total)[into])
        weight = torch.ones_like(length).index_copy(0, kept, share[0]).index_copy(0, moved, share[1])
        return plan.summed(weight.view(x.shape[:2]))

    def cost(self, n: int, r: int, block: BlockSize) -> float:
        """MACs of the similarity of every token of A with every token of B: N²/4 d."""
        return n**2 / 4 * metric_channels(self.metric, self.heads, block)
