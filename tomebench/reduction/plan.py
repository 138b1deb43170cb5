"""Which token goes where: the result of a reduction method, and what can be done with it.

A plan is three index tensors. Every output slot keeps one token (``kept``); a further token is either moved into
a slot (``moved`` -> ``into``) or, when it is in neither tensor, dropped. This says the same as one slot number per
token (:attr:`MergePlan.dest`) but lets merging touch only the tokens that move, and leaves all others bit for bit
as they were. Counts are static: they depend on shapes only, never on values.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from tomebench.reduction.options import Combine


@dataclass(frozen=True)
class MergePlan:
    """Where each of N tokens goes among ``n_out`` slots, for every image of a batch."""

    kept: Tensor  # int64 [B, n_out]: the token that stays in each slot
    moved: Tensor  # int64 [B, m]: tokens merged into another, m >= 0
    into: Tensor  # int64 [B, m]: the slot each moved token is merged into
    n_in: int

    @property
    def n_out(self) -> int:
        """Tokens after the reduction."""
        return self.kept.shape[1]

    @property
    def dest(self) -> Tensor:
        """Output slot of every input token, int64 [B, N]; -1 where the token is dropped."""
        batch, n_out = self.kept.shape
        slots = torch.arange(n_out, device=self.kept.device).expand(batch, n_out)
        dest = torch.full((batch, self.n_in), -1, dtype=torch.int64, device=self.kept.device)
        return dest.scatter(1, self.kept, slots).scatter(1, self.moved, self.into)


def identity_plan(batch: int, n: int, device: torch.device) -> MergePlan:
    """The plan that leaves all n tokens where they are."""
    kept = torch.arange(n, device=device).expand(batch, n)
    return MergePlan(kept, kept[:, :0], kept[:, :0], n)


def merge(plan: MergePlan, x: Tensor, size: Tensor | None, combine: Combine = "weighted") -> tuple[Tensor, Tensor]:
    """Replace every group of tokens by one.

    Args:
        plan: where tokens go.
        x: tokens [B, N, C], any floating dtype.
        size: original patches each token stands for, float32 [B, N]; None means all ones.
        combine: the mean of a group by size, its plain mean, its maximum in every channel, or the token that it keeps.

    Returns:
        Tokens [B, n_out, C] in x's dtype and sizes float32 [B, n_out]. sum(size), and with ``weighted`` sum(size * x),
        are those of the tokens that were not dropped. A token that nothing was merged into is returned bit for bit; a
        mean is computed in fp32 (fp64 for fp64) and rounded once. The gradient of x flows through the tokens; plan and
        sizes have none.
    """
    if size is None:
        size = torch.ones(x.shape[:2], dtype=torch.float32, device=x.device)
    moved_size = size.gather(1, plan.moved)
    out_size = size.gather(1, plan.kept).scatter_add(1, plan.into, moved_size)
    if plan.moved.shape[1] == 0 or combine == "keep":
        return take(x, plan.kept), out_size
    if combine == "max":
        index = plan.into.unsqueeze(-1).expand(-1, -1, x.shape[2])
        return take(x, plan.kept).scatter_reduce(1, index, take(x, plan.moved), "amax"), out_size
    weight, total = size, out_size
    if combine == "mean":
        weight = torch.ones_like(size)
        total = torch.ones_like(out_size).scatter_add(1, plan.into, torch.ones_like(moved_size))
    return cast(Tensor, _Merge.apply(x, plan.kept, plan.moved, plan.into, weight, total)), out_size


class _Merge(torch.autograd.Function):
    """The weighted means of a plan. Forward touches only what moves, backward is one gather; neither adds atomically.

    Inputs are tokens x [B, N, C], the three index tensors of the plan, and sizes before [B, N] and after [B, n_out].
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, kept: Tensor, moved: Tensor, into: Tensor, size: Tensor, out_size: Tensor
    ) -> Tensor:
        ctx.save_for_backward(kept, moved, into, size, out_size)
        ctx.n_in = x.shape[1]
        out = take(x, kept)
        # The mean of a group, written as its kept token plus what the moved ones pull it by:
        # (s_d x_d + sum s_i x_i) / S = x_d + sum (s_i / S) (x_i - x_d), so only moved tokens are read and written.
        wide = torch.promote_types(x.dtype, torch.float32)  # float64 models get float64 means
        share = size.gather(1, moved).to(wide) / out_size.gather(1, into)
        target = take(out, into).to(wide)
        pull = (take(x, moved).to(wide) - target) * share.unsqueeze(-1)
        # Moved tokens that share a slot are summed by a small product and rounded once. All of them write the sum of
        # the first, so it does not matter which write comes last.
        alike = into.unsqueeze(1) == into.unsqueeze(2)
        with without_autocast(x.device.type):
            total = torch.baddbmm(target, alike.to(wide), pull).to(x.dtype)
        first = alike.to(torch.uint8).argmax(dim=2)
        return put_(out, into, take(total, first))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        kept, moved, into, size, out_size = ctx.saved_tensors
        (grad,) = grads
        dest = MergePlan(kept, moved, into, ctx.n_in).dest
        slot = dest.clamp_min(0)
        weight = size.to(torch.promote_types(grad.dtype, torch.float32)) / out_size.gather(1, slot) * (dest >= 0)
        return take(grad, slot) * weight.unsqueeze(-1).to(grad.dtype), None, None, None, None, None


def without_autocast(device_type: str) -> AbstractContextManager[object]:
    """Leaves autocast for a product that has to be exact; nothing where it is off, so that no graph sees it."""
    on = device_type != "meta" and torch.is_autocast_enabled(device_type)
    return torch.autocast(device_type, enabled=False) if on else nullcontext()


def unmerge(plan: MergePlan, y: Tensor) -> Tensor:
    """Give every input token the value of the slot it went to.

    Args:
        plan: the plan that made ``y``.
        y: [B, n_out, C].

    Returns:
        [B, N, C]; zeros where the token was dropped.
    """
    dest = plan.dest
    return take(y, dest.clamp_min(0)) * (dest >= 0).unsqueeze(-1)


def compose_sources(source: Tensor | None, plan: MergePlan) -> Tensor:
    """Follow the original tokens through one more reduction.

    Args:
        source: token each original one is part of before this plan, int64 [B, N0], -1 where dropped; None before the
            first reduction.
        plan: the next reduction.

    Returns:
        The same after the plan, int64 [B, N0].
    """
    dest = plan.dest
    if source is None:
        return dest
    followed = dest.gather(1, source.clamp_min(0))
    return torch.where(source >= 0, followed, source)


def take(x: Tensor, index: Tensor) -> Tensor:
    """Rows ``x[b, index[b, i]]``: [B, N, C] and int64 [B, K] -> [B, K, C]."""
    if x.device.type == "cpu":
        # index_select copies whole rows; gather with an expanded index walks single elements.
        rows = x.reshape(-1, x.shape[2]).index_select(0, _flat(index, x.shape[1]))
        return rows.reshape(*index.shape, x.shape[2])
    return x.gather(1, index.unsqueeze(-1).expand(-1, -1, x.shape[-1]))


def put_(x: Tensor, index: Tensor, rows: Tensor) -> Tensor:
    """Set ``x[b, index[b, i]] = rows[b, i]`` in place, x [B, N, C] contiguous; rows of equal index must be equal."""
    if x.device.type == "cpu":
        x.view(-1, x.shape[2]).index_copy_(0, _flat(index, x.shape[1]), rows.reshape(-1, x.shape[2]))
        return x
    return x.scatter_(1, index.unsqueeze(-1).expand(-1, -1, x.shape[-1]), rows)


def _flat(index: Tensor, n: int) -> Tensor:
    """Row numbers in [B * n] of row ``index[b, i]`` of image b, int64 [B * K]."""
    return (index + torch.arange(index.shape[0], device=index.device).unsqueeze(1) * n).reshape(-1)
