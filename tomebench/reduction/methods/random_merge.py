"""random-merge: merge tokens at random, from ToMe's set A into its set B."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from tomebench.reduction.choices import Bounds
from tomebench.reduction.method import BlockSize, Context, Method
from tomebench.reduction.schedule import half_of_patches

if TYPE_CHECKING:
    import torch

    from tomebench.reduction.plan import MergePlan


@dataclass(frozen=True)
class RandomMerge(Method):
    """Merge r random tokens of set A, each into a random token of set B: what matching is worth."""

    source = "ToMe (Bolya et al., ICLR 2023) without its matching"
    cap = staticmethod(half_of_patches)

    seed: Annotated[int, Bounds(0, 999_999_999)] = 0

    def choose(self, ctx: Context) -> MergePlan:
        """Draw sources without and destinations with replacement, in each layer anew, the same in every image."""
        from tomebench.reduction.plan import MergePlan

        batch, n = ctx.x.shape[:2]
        moved, onto = ctx.constants.get(_pairs, n, ctx.prefix, ctx.r, ctx.layer, self.seed, device=ctx.x.device)
        return MergePlan.moving(moved.expand(batch, -1), onto.expand(batch, -1), n, ctx.prefix)

    def cost(self, n: int, r: int, block: BlockSize) -> float:
        """No MACs: nothing is compared."""
        return 0.0


def _pairs(
    n: int, prefix: int, r: int, layer: int, seed: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Patches of A that are merged and patches of B that they are merged into, int64 [r] each, without the prefix."""
    import torch

    from tomebench.reduction.matching import random_numbers

    first = prefix % 2  # A has the tokens of even number, counted with the prefix
    a, b = torch.arange(first, n - prefix, 2, device=device), torch.arange(1 - first, n - prefix, 2, device=device)
    order = random_numbers(len(a), f"source {layer} {seed}", device).argsort(stable=True)
    drawn = random_numbers(r, f"destination {layer} {seed}", device)
    return a[order[:r]], b[drawn % len(b)]
