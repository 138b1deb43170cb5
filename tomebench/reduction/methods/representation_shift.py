"""Representation shift: drop the patches that the MLP changes least."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from tomebench.reduction.method import BlockSize, Context, Method
from tomebench.reduction.schedule import all_but_one_patch

if TYPE_CHECKING:
    from tomebench.reduction.plan import MergePlan


@dataclass(frozen=True)
class RepresentationShift(Method):
    """Pruning by how far the MLP moves a token; no attention map is needed.

    The paper defines the shift as a distance D(F(x), x), with F the MLP and D the L2 norm. Whether F includes the
    residual is not said where we could read it: ``form=branch`` is |MLP(LN x) - x|, ``form=residual`` is
    |x + MLP(LN x) - x|, the length of the MLP branch. MLP(LN x) is taken from the tokens before and after the MLP.
    """

    source = "Choi et al., Representation Shift: Unifying Token Compression with FlashAttention, ICCV 2025"
    merges = False
    after_mlp = True
    reads_mlp = True
    cap = staticmethod(all_but_one_patch)

    form: Literal["branch", "residual"] = "branch"
    norm: Literal["l2", "l1"] = "l2"

    def choose(self, ctx: Context) -> MergePlan:
        """Keep the patches of largest shift, in their order; ties go to the lower index."""
        import torch

        from tomebench.reduction.clusters import largest
        from tomebench.reduction.plan import MergePlan, wider

        if ctx.before_mlp is None:
            raise ValueError("representation shift needs the tokens before the MLP")
        wide = wider(ctx.x.dtype)
        before = ctx.before_mlp[:, ctx.prefix :].to(wide)
        shift = ctx.x[:, ctx.prefix :].to(wide) - before
        if self.form == "branch":
            shift = shift - before
        score = torch.linalg.vector_norm(shift, ord=2 if self.norm == "l2" else 1, dim=2)
        return MergePlan.dropping(largest(score, score.shape[1] - ctx.r), ctx.x.shape[1], ctx.prefix)

    def cost(self, n: int, r: int, block: BlockSize) -> float:
        """MACs of the MLP of the r tokens that are dropped only after it."""
        return float(r * block.mlp_macs)
