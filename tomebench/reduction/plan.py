"""Which token goes where: the result of a reduction method, and what can be done with it.

A plan is three index tensors. Every output slot keeps one token (``kept``); a further token is either moved into
a slot (``moved`` -> ``into``) or, when it is in neither tensor, dropped. This says the same as one slot number per
token (:attr:`MergePlan.dest`) but lets merging touch only the tokens that move, and leaves all others bit for bit
as they were. Counts are static: they depend on shapes only, never on values.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


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


def merge(plan: MergePlan, x: Tensor, size: Tensor | None) -> tuple[Tensor, Tensor]:
    """Replace every group of tokens by its size-weighted mean.

    Args:
        plan: where tokens go.
        x: tokens [B, N, C], any floating dtype.
        size: original patches each token stands for, float32 [B, N]; None means all ones.

    Returns:
        Tokens [B, n_out, C] in x's dtype and sizes float32 [B, n_out]. sum(size) and sum(size * x) are those of the
        tokens that were not dropped. A token that nothing was merged into is returned bit for bit.
    """
    batch, _, channels = x.shape
    if size is None:
        size = torch.ones(x.shape[:2], dtype=torch.float32, device=x.device)
    moved_size = size.gather(1, plan.moved)
    out_size = size.gather(1, plan.kept).scatter_add(1, plan.into, moved_size)
    out = _take(x, plan.kept)
    if plan.moved.shape[1] == 0:
        return out, out_size
    # The mean of a group, written as its kept token plus what the moved ones pull it by:
    # (s_d x_d + sum s_i x_i) / S = x_d + sum (s_i / S) (x_i - x_d), so only moved tokens are read and written.
    wide = torch.promote_types(x.dtype, torch.float32)  # float64 models get float64 means
    share = (moved_size.to(wide) / out_size.gather(1, plan.into)).to(x.dtype)
    pull = (_take(x, plan.moved) - _take(out, plan.into)) * share.unsqueeze(-1)
    if x.device.type == "cpu":
        rows = plan.into + torch.arange(batch, device=x.device).unsqueeze(1) * plan.n_out
        out = out.reshape(-1, channels).index_add(0, rows.reshape(-1), pull.reshape(-1, channels))
        return out.reshape(batch, plan.n_out, channels), out_size
    # On an accelerator index_add adds in no fixed order; a one-hot product is deterministic.
    one_hot = torch.zeros(batch, plan.n_out, plan.moved.shape[1], dtype=x.dtype, device=x.device)
    one_hot = one_hot.scatter(1, plan.into.unsqueeze(1), 1.0)
    return torch.baddbmm(out, one_hot, pull), out_size


def unmerge(plan: MergePlan, y: Tensor) -> Tensor:
    """Give every input token the value of the slot it went to.

    Args:
        plan: the plan that made ``y``.
        y: [B, n_out, C].

    Returns:
        [B, N, C]; zeros where the token was dropped.
    """
    dest = plan.dest
    return _take(y, dest.clamp_min(0)) * (dest >= 0).unsqueeze(-1)


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


def _take(x: Tensor, index: Tensor) -> Tensor:
    """Rows ``x[b, index[b, i]]``: [B, N, C] and [B, K] -> [B, K, C]."""
    if x.device.type == "cpu":
        # index_select copies whole rows; gather with an expanded index walks single elements.
        batch, n, channels = x.shape
        rows = index + torch.arange(batch, device=x.device).unsqueeze(1) * n
        return x.reshape(-1, channels).index_select(0, rows.reshape(-1)).reshape(batch, index.shape[1], channels)
    return x.gather(1, index.unsqueeze(-1).expand(-1, -1, x.shape[-1]))
