"""MCTF: bipartite matching in both directions by similarity, attention and size at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tomebench.reduction.method import BlockSize, Context, Method

if TYPE_CHECKING:
    from torch import Tensor

    from tomebench.reduction.plan import MergePlan


@dataclass(frozen=True)
class Mctf(Method):
    """Multi-criteria token fusion: alike, little attended to and small tokens merge first.

    Two patches attract each other by W = (cos(x_i, x_j) + 1)/2 · (a_i a_j)^(1/20) · (s_i s_j)^(1/40), where a is the
    reciprocal of the attention that a token receives in this block and s that of its size, both divided by their
    largest of the image. A group becomes its mean weighted by attention times size. For models as they are; its authors
    train with it.
    """

    source = "Lee et al., Multi-criteria Token Fusion with One-step-ahead Attention, CVPR 2024, without its training"

    def choose(self, ctx: Context) -> MergePlan:
        """Merge patches of even number, A, into those of odd number, B, counted with the prefix, then B into A.

        In each direction the patches whose best partner attracts them most go; first half of r, of an odd r one more,
        then the others into what is left of A. W is that before the layer in both. Ties go to the lower index.
        """
        import torch

        from tomebench.reduction.metric import comparable, received_attention, similarity
        from tomebench.reduction.plan import MergePlan

        received = received_attention(ctx)
        received = received.clamp_min(torch.finfo(received.dtype).tiny)
        size = torch.ones_like(received) if ctx.size is None else ctx.size.to(received.dtype)
        x = comparable(ctx.x[:, ctx.prefix :], "cosine")
        pull = _rarity(received[:, ctx.prefix :]) ** (1 / 20) * _rarity(size[:, ctx.prefix :]) ** (1 / 40)
        first = ctx.prefix % 2  # of A among the patches
        in_a, in_b = slice(first, None, 2), slice(1 - first, None, 2)
        alike = (similarity(x[:, in_a], x[:, in_b], "cosine") + 1) / 2
        attraction = alike * pull[:, in_a].unsqueeze(2) * pull[:, in_b].unsqueeze(1)

        best, liked = attraction.max(dim=2)
        from_a = best.argsort(dim=1, descending=True, stable=True)[:, : ctx.r - ctx.r // 2]
        gone = torch.zeros_like(liked).scatter(1, from_a, 1).bool()
        best, liked_of_b = attraction.masked_fill(gone.unsqueeze(2), -torch.inf).max(dim=1)
        from_b = best.argsort(dim=1, descending=True, stable=True)[:, : ctx.r // 2]

        token = torch.arange(x.shape[1], device=x.device).expand(x.shape[:2])
        a, b = token[:, in_a], token[:, in_b]
        onto_b = a.gather(1, liked_of_b.gather(1, from_b))
        lies = b.scatter(1, from_b, onto_b)  # the patch that each of B is part of in the end
        moved = torch.cat([a.gather(1, from_a), b.gather(1, from_b)], dim=1)
        onto = torch.cat([lies.gather(1, liked.gather(1, from_a)), onto_b], dim=1)
        return MergePlan.moving(moved, onto, ctx.x.shape[1], ctx.prefix).averaged(received * size)

    def cost(self, n: int, r: int, block: BlockSize) -> float:
        """MACs of the received attention, and of the similarity of every token of A with every token of B."""
        return n**2 * block.heads_dim + n**2 / 4 * block.token_dim

    def cap(self, n: int, prefix: int) -> int:
        """Twice the patches of A but one, so that one of A is left for B to merge into; of two patches one."""
        a = (n + 1) // 2 - (prefix + 1) // 2
        return max(2 * a - 2, min(a, n - prefix - a), 0)


def _rarity(values: Tensor) -> Tensor:
    """Reciprocals of positive values [B, T], divided by the largest of each row."""
    return values.amin(dim=1, keepdim=True) / values
