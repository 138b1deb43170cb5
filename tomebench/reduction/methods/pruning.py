"""Pruning without training: drop patches at random, or those that the class token attends to least."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from tomebench.reduction.choices import Bounds
from tomebench.reduction.method import BlockSize, Context, Method
from tomebench.reduction.schedule import half_of_patches

if TYPE_CHECKING:
    import torch

    from tomebench.reduction.plan import MergePlan

_SOURCE = "Bolya et al., Token Merging: Your ViT But Faster, ICLR 2023, table of matching algorithms"


@dataclass(frozen=True)
class RandomPruning(Method):
    """Drop r patches at random, the same ones in every image."""

    source = _SOURCE
    merges = False
    cap = staticmethod(half_of_patches)

    seed: Annotated[int, Bounds(0, 999_999_999)] = 0

    def choose(self, ctx: Context) -> MergePlan:
        """Drop other patches in every layer, the same ones in every image."""
        from tomebench.reduction.plan import MergePlan

        batch, n = ctx.x.shape[:2]
        kept = ctx.constants.get(_left, batch, n, ctx.prefix, ctx.r, ctx.layer, self.seed, device=ctx.x.device)
        return MergePlan.dropping(kept, n)

    def cost(self, n: int, r: int, block: BlockSize) -> float:
        """No MACs: nothing is compared."""
        return 0.0


@dataclass(frozen=True)
class AttentionPruning(Method):
    """Drop the r patches that the class token attends to least; without class token, that receive least attention."""

    source = _SOURCE
    merges = False
    cap = staticmethod(half_of_patches)

    def choose(self, ctx: Context) -> MergePlan:
        """Keep the patches with most attention; ties go to the lower index."""
        from tomebench.reduction.metric import by_class_attention
        from tomebench.reduction.plan import MergePlan

        _, order = by_class_attention(ctx)
        kept = order[:, : order.shape[1] - ctx.r].sort(dim=1).values
        return MergePlan.dropping(kept, ctx.x.shape[1], ctx.prefix)

    def cost(self, n: int, r: int, block: BlockSize) -> float:
        """MACs of the class token's query with every key, or without class token, of every query."""
        return float(block.ranking_macs(n))


def _left(batch: int, n: int, prefix: int, r: int, layer: int, seed: int, device: torch.device) -> torch.Tensor:
    """The tokens that are left when r patches are drawn, int64 [B, N - r]."""
    import torch

    from tomebench.reduction.matching import random_halves

    _, left = random_halves(n, prefix, r, layer, device, seed)
    return torch.cat([torch.arange(prefix, device=device), left]).expand(batch, -1)
