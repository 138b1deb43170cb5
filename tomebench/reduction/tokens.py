"""Tokens: what passes from block to block: tokens, their sizes, and their positions where a model uses them."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from torch import Tensor

from tomebench.reduction.plan import MergePlan
from tomebench.schema import Rope


class Positions(Protocol):
    """Positions of the tokens of a batch, which an adapter makes before the first block and its blocks read."""

    def after(self, plan: MergePlan, size: Tensor | None, rope: Rope) -> Positions:
        """Positions after a merge by ``plan`` of tokens of these sizes [B, n]; ``rope``: rotation of a merged one."""

    def first(self, n: int) -> Positions:
        """Positions of the first n tokens."""


class Tokens(NamedTuple):
    """Tokens between two blocks, with their sizes and positions."""

    x: Tensor  # [B, N, C]
    size: Tensor | None = None  # original patches each stands for, float32 [B, N], 0: padding; None is all ones
    position: Positions | None = None  # in the image; None where no block uses it
