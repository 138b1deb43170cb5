"""PiToMe: merge tokens of high energy, those that resemble many others; isolated tokens are protected."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from tomebench.reduction.choices import Combine, HeadsChoice, Metric, metric_channels
from tomebench.reduction.method import BlockSize, Context, Method
from tomebench.reduction.schedule import half_of_patches

if TYPE_CHECKING:
    from tomebench.reduction.plan import MergePlan

_MARGINS = {"deit": 0.75, "augreg": 0.9}
"""Margin of the first block; it falls in equal steps to zero after the last."""


@dataclass(frozen=True)
class Pitome(Method):
    """Merging by energy: T patches with cosines c_ij of their keys have energies E_i = sum_j f(c_ij) / T.

    f(c) = c - m for c >= m, else exp(c - m) - 1, with a margin m = 0.75 (1 - l/L) in block l of L, from 0, or with
    ``margin`` = ``augreg`` 0.9 (1 - l/L). Patches are sorted by energy, the highest first. The paper merges the first
    2r: those of odd rank stay, and each of the others joins the most similar of them. The authors' model for DeiT does
    so in the second half of its blocks only; before, all patches are split by rank and the r most similar of these
    pairs merge. This is the default; ``mergeable`` = ``top`` is the paper's rule in every block.

    As the authors run it, groups become means by size, but attention does not count sizes.
    """

    source = "Tran et al., Accelerating Transformers with Spectrum-Preserving Token Merging, NeurIPS 2024"
    cap = staticmethod(half_of_patches)

    mergeable: Literal["all-then-top", "top"] = "all-then-top"
    margin: Literal["deit", "augreg"] = "deit"
    metric: Metric = "k"
    heads: HeadsChoice = "mean"
    combine: Combine = "weighted"
    count_sizes: Literal[False, True] = False

    def choose(self, ctx: Context) -> MergePlan:
        """Split by energy, then match; ties go to the lower index, and once sorted to the patch of higher energy."""
        from torch.nn import functional as F

        from tomebench.reduction.metric import comparable, metric_of, similarity
        from tomebench.reduction.plan import MergePlan

        metric = comparable(metric_of(ctx, self.metric, self.heads)[:, ctx.prefix :], "cosine")
        cosine = similarity(metric, metric, "cosine")
        margin = _MARGINS[self.margin] * (1 - ctx.layer / ctx.depth)
        energy = F.elu(cosine - margin).mean(dim=2)
        order = energy.argsort(dim=1, descending=True, stable=True)
        everybody = self.mergeable == "all-then-top" and 2 * ctx.layer < ctx.depth
        if not everybody:
            order = order[:, : 2 * ctx.r]
        a, b = order[:, 0::2], order[:, 1::2]
        of_a = cosine.gather(1, a.unsqueeze(2).expand(-1, -1, cosine.shape[2]))
        best, liked = of_a.gather(2, b.unsqueeze(1).expand(-1, a.shape[1], -1)).max(dim=2)
        if everybody:
            closest = best.argsort(dim=1, descending=True, stable=True)[:, : ctx.r]
            a, liked = a.gather(1, closest), liked.gather(1, closest)
        return MergePlan.moving(a, b.gather(1, liked), ctx.x.shape[1], ctx.prefix, self.combine)

    def cost(self, n: int, r: int, block: BlockSize) -> float:
        """MACs of the similarity of every token with every other: N² d."""
        return float(n**2 * metric_channels(self.metric, self.heads, block))
