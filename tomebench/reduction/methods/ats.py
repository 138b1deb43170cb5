"""ATS: sample patches by their share of the class token's output; how many are left depends on the image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from tomebench.reduction.method import BlockSize, Context, Method
from tomebench.reduction.schedule import all_but_one_patch

if TYPE_CHECKING:
    from torch import Tensor

    from tomebench.reduction.plan import MergePlan


@dataclass(frozen=True)
class Ats(Method):
    """Adaptive Token Sampling: inverse-transform sampling of the patches by a score, the same patch only once.

    1. Score of patch j: s_j = a_j |v_j|, with a_j the attention of the class token to it, summed over heads, and v_j
       its values in all heads side by side; ``norm=head``: sum over heads of a_j |v_j| of each head. Without class
       token a_j is the attention that it receives from all tokens.
    2. The scores of a layer, in ascending order, are summed up and divided by their total: a distribution function F.
    3. Of T patches K = T - r samples are taken, at (2i - 1) / 2K for i = 1 to K: the first patch at which F is as
       large. A patch that several samples fall on is kept once, so that K is the most that is left.

    Images of a batch keep different numbers, and are padded to K; padding is masked in attention, and never sampled.
    Scores next to a sample decide between two patches, so another kernel's rounding can change which are kept.
    """

    source = "Fayyaz et al., Adaptive Token Sampling for Efficient Vision Transformers, ECCV 2022"
    merges = False
    pads = True
    cap = staticmethod(all_but_one_patch)

    norm: Literal["token", "head"] = "token"

    def choose(self, ctx: Context) -> MergePlan:
        """Keep the patches sampled, in their order; of equal scores that of the lower index comes first."""
        import torch

        from tomebench.reduction.plan import MergePlan

        score = self._score(ctx)[:, ctx.prefix :]
        batch, patches = score.shape
        ranked = score
        if ctx.size is not None:  # padding, whose score is 0, comes first even where all are, so that a patch is picked
            ranked = score.masked_fill(ctx.size[:, ctx.prefix :] == 0, -1)
        order = ranked.argsort(dim=1, stable=True)
        total = score.gather(1, order).cumsum(dim=1)
        share = total / total[:, -1:].clamp_min(torch.finfo(score.dtype).tiny)
        samples = patches - ctx.r
        at = (2 * torch.arange(samples, dtype=score.dtype, device=score.device) + 1) / (2 * samples)
        place = torch.searchsorted(share, at.expand(batch, -1).contiguous()).clamp_max(patches - 1)
        picked = torch.zeros_like(score, dtype=torch.bool).scatter(1, order.gather(1, place), True)
        lead = picked.new_ones(batch, ctx.prefix)
        return MergePlan.sampling(torch.cat([lead, picked], dim=1), ctx.x.shape[1] - ctx.r)

    def cost(self, n: int, r: int, block: BlockSize) -> float:
        """MACs of the class token's query with every key, or without class token, of every query."""
        return float(block.ranking_macs(n))

    def _score(self, ctx: Context) -> Tensor:
        """Score of every token, float32 or wider [B, N]."""
        import torch

        from tomebench.reduction.metric import attention_of_heads

        attention = attention_of_heads(ctx)
        values = ctx.heads.v.to(attention.dtype)
        if self.norm == "head":
            return (attention * torch.linalg.vector_norm(values, dim=3)).sum(dim=1)
        return attention.sum(dim=1) * torch.linalg.vector_norm(values, dim=(1, 3))
