"""A method in one file, as a newcomer writes it: the tests add it by one line of the registry."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from tomebench.reduction.method import BlockSize, Context, Method
from tomebench.reduction.plan import MergePlan


@dataclass(frozen=True)
class DroppedEnds(Method):
    """Drop the first or the last r patches."""

    source = "nobody"
    merges = False

    side: Literal["last", "first"] = "last"

    def choose(self, ctx: Context) -> MergePlan:
        batch, n = ctx.x.shape[:2]
        tokens = torch.arange(n, device=ctx.x.device)
        first = ctx.prefix + (ctx.r if self.side == "first" else 0)
        kept = torch.cat([tokens[: ctx.prefix], tokens[first : first + n - ctx.r - ctx.prefix]])
        return MergePlan.dropping(kept.expand(batch, -1), n)

    def cost(self, n: int, r: int, block: BlockSize) -> float:
        return float(1000 * n * r + block.token)

    def cap(self, n: int, prefix: int) -> int:
        return n - prefix  # all of them


@dataclass(frozen=True)
class WithoutCost(Method):
    """What nobody says the cost of."""

    source = "nobody"
    choose = DroppedEnds.choose
    cap = DroppedEnds.cap
