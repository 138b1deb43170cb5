"""DiffRate: of the patches that the class token attends to least drop the last and merge the others into the rest."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated

from tomebench.errors import SpecError
from tomebench.reduction.choices import Text
from tomebench.reduction.method import BlockSize, Context, Method
from tomebench.reduction.schedule import all_but_one_patch
from tomebench.words import counted

if TYPE_CHECKING:
    from tomebench.reduction.plan import MergePlan

_PERCENT = "(?:100|[1-9]?[0-9])"
Shares = Annotated[
    str,
    Text(f"{_PERCENT}(?:-{_PERCENT})*", "one percentage, or one for every block as in 0-30-60", ("0", "100")),
]
"""Per cent of r that is dropped, the rest being merged: the same in all blocks, or one number for each."""


@dataclass(frozen=True)
class Diffrate(Method):
    """Pruning and merging at one rate each: patches are ordered by the attention of the class token.

    The last of this order are dropped, ``pruned`` per cent of r, rounded, a half up. The other tokens to remove are
    those before them: each joins the most similar, by cosine of the tokens x, of the N - P - r patches at the front. A
    group becomes its plain mean, and grows by size · cosine of each token that joined (by nothing where it is
    negative), which the attention of later blocks counts. Without class token: order by received attention.

    The authors learn how many tokens every block drops and merges. Here both are given: N - r by the schedule of r, the
    division of r by ``pruned``, which has no default of theirs.
    """

    source = "Chen et al., DiffRate: Differentiable Compression Rate for Efficient Vision Transformers, ICCV 2023"
    cap = staticmethod(all_but_one_patch)

    pruned: Shares = "50"

    def choose(self, ctx: Context) -> MergePlan:
        """Order patches, drop the last, and merge those before them; ties go to the patch that is earlier in order."""
        import torch

        from tomebench.reduction.metric import by_class_attention, comparable, similarity
        from tomebench.reduction.plan import MergePlan

        _, order = by_class_attention(ctx)
        merged = ctx.r - _part(ctx.r, self._shares[ctx.layer % len(self._shares)])
        front = order.shape[1] - ctx.r
        stay, moved = order[:, :front].sort(dim=1).values, order[:, front : front + merged]
        x = comparable(ctx.x[:, ctx.prefix :], "cosine")
        tail, rest = (x.gather(1, index.unsqueeze(2).expand(-1, -1, x.shape[2])) for index in (moved, stay))
        cosine, liked = similarity(tail, rest, "cosine").max(dim=2)
        lead = torch.arange(ctx.prefix, device=stay.device).expand(len(stay), -1)
        kept = torch.cat([lead, stay + ctx.prefix], dim=1)
        plan = MergePlan.of(kept, moved + ctx.prefix, liked + ctx.prefix, ctx.x.shape[1], "mean")
        size = cosine.new_ones(1) if ctx.size is None else ctx.size.gather(1, moved + ctx.prefix)
        return replace(plan, growth=(size * cosine.clamp_min(0)).float().view(-1))

    def cost(self, n: int, r: int, block: BlockSize) -> float:
        """MACs of attention as for ``evit``, and of the cosine of merged tokens with those that stay.

        With a percentage for every block, at their mean.
        """
        merged = r - sum(_part(r, share) for share in self._shares) / len(self._shares)
        return block.ranking_macs(n) + merged * (n - r) * block.token_dim

    def check_depth(self, depth: int) -> None:
        """Refuse a list of percentages that has not one for every block."""
        if len(self._shares) not in (1, depth):
            given, blocks = counted(len(self._shares), "percentage"), counted(depth, "block")
            raise SpecError(f"pruned has {given}, and the model {blocks}; give one for each, or one for all")

    @property
    def _shares(self) -> list[int]:
        return [int(share) for share in self.pruned.split("-")]


def _part(r: int, percent: int) -> int:
    """Per cent of r, to the nearest whole number, a half up."""
    return (r * percent + 50) // 100
