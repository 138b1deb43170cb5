"""EViT: keep the patches that the class token attends to most, and fuse all others into one token."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from tomebench.reduction.method import BlockSize, Context, Method
from tomebench.reduction.schedule import all_but_one_patch

if TYPE_CHECKING:
    from tomebench.reduction.plan import MergePlan


@dataclass(frozen=True)
class Evit(Method):
    """Token reorganisation: inattentive tokens become one, their sum weighted by the attention of the class token.

    The attention a_i is a mean over heads of the softmax over all N keys; without class token it is what token i
    receives on average. The fused token is sum a_i x_i, as in the paper and its code; with ``fused`` = ``mean`` it is
    sum a_i x_i / sum a_i. From then on it is one token among the others: later blocks and a class head that averages
    count it once, unless ``count_sizes``, and blocks keep or fuse it by its attention.
    """

    source = "Liang et al., Not All Patches are What You Need: Expediting Vision Transformers, ICLR 2022"
    cap = staticmethod(all_but_one_patch)

    fused: Literal["sum", "mean"] = "sum"
    count_sizes: Literal[False, True] = False

    def choose(self, ctx: Context) -> MergePlan:
        """Fuse the r + 1 patches with least attention, in the place of the first of them; ties keep the lower index."""
        import torch

        from tomebench.reduction.metric import by_class_attention
        from tomebench.reduction.plan import MergePlan

        attention, order = by_class_attention(ctx)
        first = order.shape[1] - ctx.r - 1
        fused, moved = order[:, first:], order[:, first + 1 :]
        plan = MergePlan.moving(moved, order[:, first : first + 1].expand_as(moved), ctx.x.shape[1], ctx.prefix)
        share = attention.gather(1, fused)
        if self.fused == "mean":
            share = share.clamp_min(torch.finfo(share.dtype).tiny)  # a plain mean where all are zero
            share = share / share.sum(dim=1, keepdim=True)
        weight = attention.new_ones(ctx.x.shape[:2]).scatter(1, fused + ctx.prefix, share)
        if not self.count_sizes:
            plan = replace(plan, growth=torch.zeros(moved.numel(), device=moved.device))
        return plan.summed(weight)

    def cost(self, n: int, r: int, block: BlockSize) -> float:
        """MACs of the class token's query with every key, or without class token, of every query."""
        return float(block.ranking_macs(n))
