"""Positions: what attention has to know of where tokens are, from block to block, as tokens merge.

Rotary models rotate queries and keys by angles of their place. Their table, sines and cosines of every patch, goes
from block to block with the tokens. A token that stays can *keep* its own rotation, which is exact for it and for all
tokens that nothing was merged into; or a group takes the *mean* of its members' rotations, weighted by size and not
brought back to length one: where a group shares its content, q' R̄_I' R̄_J k is then exactly the mean of the scores
between the members of two groups.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from torch import Tensor
from torch.nn import functional as F

from tomebench.errors import SpecError
from tomebench.reduction.plan import MergePlan, merge
from tomebench.vocabulary import Rope

Rotary = Literal["no", "shared", "by head"]
"""Whether a model rotates queries and keys, and whether all blocks and heads share the angles."""


@dataclass(frozen=True)
class Rotations:
    """Rotations of the patches of a batch; of the prefix tokens, which are not rotated, there is none."""

    # Sines, then cosines, of every patch as the model makes them: [T, 2 d], or by block and head [L, heads, T, 2 d].
    table: Tensor
    prefix: int
    index: Tensor | None = None  # the row of the table of every patch left, int64 [B, n - P]; None: all, in order
    means: Tensor | None = None  # instead of rows of the table, mean rotations [B, n - P, 2 d]

    def at(self, layer: int) -> Tensor:
        """Rotations in a block, to be broadcast to [B, heads, n - P, 2 d]; the model's own tensor if all are left."""
        if self.means is not None:
            return self.means.unsqueeze(1)
        by_head = self.table.ndim == 4
        table = self.table[layer] if by_head else self.table
        if self.index is None:
            return table
        return table[:, self.index].transpose(0, 1) if by_head else table[self.index].unsqueeze(1)

    def after(self, plan: MergePlan, size: Tensor | None, rope: Rope) -> Rotations:
        """Rotations after a merge.

        Args:
            plan: of the merge; its first slots hold the prefix.
            size: of the tokens before it, float32 [B, n]; None is all ones.
            rope: of merged tokens.
        """
        if rope == "mean" and plan.moved_rows.shape[0]:
            return self._averaged(plan, size)
        kept = plan.kept[:, self.prefix :] - self.prefix
        if self.means is not None:
            rows = kept.unsqueeze(-1).expand(-1, -1, self.means.shape[2])
            return replace(self, means=self.means.gather(1, rows))
        return replace(self, index=kept if self.index is None else self.index.gather(1, kept))

    def _averaged(self, plan: MergePlan, size: Tensor | None) -> Rotations:
        if self.table.ndim == 4:
            raise SpecError("rope mean: this model has a rotation for every block and head; use rope keep")
        means = self.at(0)
        means = means.squeeze(1) if means.ndim == 4 else means.expand(plan.batch, -1, -1)
        # Whatever the method makes of the tokens, a rotation is a mean by size.
        by_size = replace(plan, combine="weighted", weight=None, growth=None, size=None)
        merged, _ = merge(by_size, F.pad(means, (0, 0, self.prefix, 0)), size)
        return replace(self, index=None, means=merged[:, self.prefix :])

    def first(self, n: int) -> Rotations:
        """Rotations of the first n tokens."""
        left = n - self.prefix
        return replace(
            self,
            table=self.table if self.index is not None else self.table[..., :left, :],
            index=None if self.index is None else self.index[:, :left],
            means=None if self.means is None else self.means[:, :left],
        )


@dataclass(frozen=True)
class Places:
    """Numbers of tokens in the image, by which a model looks up its bias for each pair of them."""

    shared: Tensor | None = None  # the bias of all blocks [1, heads, N, N]; None: each has its own
    index: Tensor | None = None  # of the tokens left, int64 [B, n]; None: the first ones, in their order

    def of_pairs(self, bias: Tensor, n: int) -> Tensor:
        """Bias of the pairs of tokens left: [1, heads, N, N] -> [B or 1, heads, n, n]; that of all tokens as it is."""
        if self.index is None:
            return bias if n == bias.shape[-1] else bias[..., :n, :n]
        return bias[0][:, self.index[:, :, None], self.index[:, None, :]].transpose(0, 1)

    def after(self, plan: MergePlan, size: Tensor | None, rope: Rope) -> Places:
        """Places after a merge: a group is where its token is that stays."""
        return replace(self, index=plan.kept if self.index is None else self.index.gather(1, plan.kept))

    def first(self, n: int) -> Places:
        """Places of the first n tokens."""
        return replace(self, index=None if self.index is None else self.index[:, :n])


def check_rotary(rotary: Rotary, rope: Rope, metric: str, heads: str) -> None:
    """Refuse options that a model has no rotations for.

    Args:
        rotary: of the model.
        rope: as asked for.
        metric: of the method; "" if it has none.
        heads: how heads become one vector; "" likewise.

    Raises:
        SpecError: it names the option, and what to use.
    """
    if rotary == "no" and metric == "k_rot":
        raise SpecError("metric k_rot: this model does not rotate its keys; use metric k")
    if rotary == "no" and rope != "keep":
        raise SpecError(f"rope {rope}: this model does not rotate its keys; leave rope out")
    if rotary == "by head" and rope != "keep":
        raise SpecError(f"rope {rope}: this model has a rotation for every block and head; use rope keep")
    if rotary == "by head" and metric in ("q", "k_rot") and heads == "mean":
        raise SpecError(
            f"metric {metric}: every head of this model rotates by angles of its own, so that their mean says nothing; "
            "use heads concat, or metric k"
        )
