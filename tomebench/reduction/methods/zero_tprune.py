"""zero-tprune: drop the patches that matter least in the attention graph, then those that are like ones that matter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from tomebench.reduction.choices import Bounds, Distance, HeadsChoice, Metric, metric_channels
from tomebench.reduction.method import BlockSize, Context, Method

if TYPE_CHECKING:
    from torch import Tensor

    from tomebench.reduction.plan import MergePlan


@dataclass(frozen=True)
class ZeroTPrune(Method):
    """Zero-TPrune: drop patches by their importance in the attention graph, then by their similarity.

    No public code; from the paper's description, and not the authors' numbers. What is computed:

    1. Importance, by PageRank. All N tokens start with a score of 1/N; ``iterations`` times each token gives its score
       away by its row of the block's attention, s <- Aᵀs in each head. The importance of a token is the root of the
       mean over heads of s². The paper stops once scores stand still, where 30 steps come close, and leaves out
       heads of unusual variance, by limits that it sets for each model: neither is done here.
    2. ``by_importance`` percent of r, rounded down, are dropped: the patches of least importance.
    3. The rest of r are dropped by similarity: of the patches that are left the less important half, rounded down, is
       matched with the other, each patch with its most similar one, and the patches with the most similar ones go.

    The tokens dropped in a layer are those of the schedule; the paper prunes in a few blocks only.
    """

    source = "Wang, Dedhia and Jha, Zero-TPrune: Zero-Shot Token Pruning, CVPR 2024; no public code"
    merges = False

    iterations: Annotated[int, Bounds(1, 100)] = 30
    by_importance: Annotated[int, Bounds(0, 100)] = 50
    metric: Metric = "k"
    heads: HeadsChoice = "mean"
    distance: Distance = "cosine"

    def choose(self, ctx: Context) -> MergePlan:
        """Drop r patches: of equally important ones the one at the higher index, of equally similar ones the lower."""
        import torch

        from tomebench.reduction.metric import comparable, metric_of, similarity
        from tomebench.reduction.plan import MergePlan

        unimportant = self._unimportant(ctx.r)
        order = self._importance(ctx)[:, ctx.prefix :].argsort(dim=1, descending=True, stable=True)
        order = order[:, : order.shape[1] - unimportant]
        if ctx.r > unimportant:
            metric = comparable(metric_of(ctx, self.metric, self.heads)[:, ctx.prefix :], self.distance)
            first = order.shape[1] - order.shape[1] // 2
            more, less = order[:, :first], order[:, first:].sort(dim=1).values
            rows = [metric.gather(1, each.unsqueeze(-1).expand(-1, -1, metric.shape[2])) for each in (less, more)]
            likeness = similarity(rows[0], rows[1], self.distance).amax(dim=2)
            likest = likeness.argsort(dim=1, descending=True, stable=True)
            order = torch.cat([more, less.gather(1, likest[:, ctx.r - unimportant :])], dim=1)
        return MergePlan.dropping(order.sort(dim=1).values, ctx.x.shape[1], ctx.prefix)

    def cost(self, n: int, r: int, block: BlockSize) -> float:
        """MACs of attention, of its product with the scores in each iteration, and of a quarter of the similarities."""
        unimportant, heads = self._unimportant(r), block.heads_dim / block.head_dim
        graph = n**2 * (block.heads_dim + self.iterations * heads)
        pairs = (n - unimportant) ** 2 / 4 if r > unimportant else 0
        return graph + pairs * metric_channels(self.metric, self.heads, block)

    def cap(self, n: int, prefix: int) -> int:
        """The most that leaves a patch, and half of those that importance leaves to similarity."""
        patches = max(n - prefix, 0)
        return max(r for r in range(max(patches, 1)) if 2 * r - self._unimportant(r) <= patches)

    def _unimportant(self, r: int) -> int:
        """Patches of r that are dropped by importance."""
        return r * self.by_importance // 100

    def _importance(self, ctx: Context) -> Tensor:
        """Importance of all tokens, float32 or wider [B, N]."""
        import torch

        from tomebench.reduction.metric import attention_matrix
        from tomebench.reduction.plan import without_autocast

        graph = attention_matrix(ctx)
        score = torch.full_like(graph[:, :, :1], 1 / graph.shape[-1])
        with without_autocast(graph.device.type):
            for _ in range(self.iterations):
                score = score @ graph
        return score.squeeze(2).square().mean(dim=1).sqrt()
