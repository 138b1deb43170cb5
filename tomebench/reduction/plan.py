"""MergePlan: for one layer, the group that each token goes to; merge tokens and sizes by it, unmerge, trace sources.

A plan is three index tensors. Every output slot keeps one token (``kept``); a further token is either moved into
a slot (``moved`` -> ``into``) or, when it is in neither tensor, dropped. This says the same as one slot number per
token (:attr:`MergePlan.dest`) but lets merging touch only the tokens that move, and leaves all others bit for bit
as they were. Counts are static: they depend on shapes only, never on values; where a method keeps more tokens of one
image than of another, slots are left over as padding, of size 0.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.compiler import is_compiling

from tomebench.reduction.choices import Combine
from tomebench.reduction.constants import Constants


@dataclass(frozen=True)
class MergePlan:
    """For every image of a batch, the output slot (of ``n_out``) that each of its N tokens goes to; a slot is a group.

    Indices are row numbers of the flattened batch: token i of image b is row b · N + i, and slots likewise. So one
    numbering serves tokens and sizes, and index_select copies whole rows, where gather with an expanded index would
    copy single elements.
    """

    kept_rows: Tensor  # int64 [B * n_out]: the token that stays in each slot
    moved_rows: Tensor  # int64 [B * m]: tokens merged into another, m >= 0
    into_rows: Tensor  # int64 [B * m]: the slot each moved token is merged into
    n_in: int
    n_out: int
    combine: Combine = "weighted"  # what a group is merged into
    # Coefficient of every token in the sum that its group becomes, float32 or wider [B * N]; None: as ``combine`` says.
    weight: Tensor | None = None
    # What each moved token adds to the size of its slot, float32 [B * m]; None: its own size.
    growth: Tensor | None = None
    # Size of each slot, float32 [B * n_out], 0 for padding that attention masks; None: the sum of the group's sizes.
    size: Tensor | None = None

    @classmethod
    def of(cls, kept: Tensor, moved: Tensor, into: Tensor, n_in: int, combine: Combine = "weighted") -> MergePlan:
        """The plan of tokens kept, int64 [B, n_out], and tokens moved [B, m] into slots [B, m], all within an image."""
        image = torch.arange(kept.shape[0], device=kept.device).unsqueeze(1)
        n_out = kept.shape[1]
        kept, moved, into = kept + image * n_in, moved + image * n_in, into + image * n_out
        return cls(kept.reshape(-1), moved.reshape(-1), into.reshape(-1), n_in, n_out, combine)

    @classmethod
    def moving(cls, moved: Tensor, onto: Tensor, n: int, prefix: int, combine: Combine = "weighted") -> MergePlan:
        """The plan that merges patches ``moved`` [B, r] into patches ``onto`` [B, r], indices without the prefix."""
        moved, onto = moved + prefix, onto + prefix
        stays = torch.ones(len(moved), n, dtype=torch.int64, device=moved.device).scatter(1, moved, 0)
        kept = (1 - stays).argsort(dim=1, stable=True)[:, : n - moved.shape[1]]
        slot = stays.cumsum(dim=1) - 1
        return cls.of(kept, moved, slot.gather(1, onto), n, combine)

    @classmethod
    def dropping(cls, kept: Tensor, n: int, prefix: int = 0) -> MergePlan:
        """The plan that keeps the prefix and patches ``kept`` [B, n_out - P], indices without it, and drops others."""
        if prefix:
            lead = torch.arange(prefix, device=kept.device).expand(len(kept), -1)
            kept = torch.cat([lead, kept + prefix], dim=1)
        return cls.of(kept, kept[:, :0], kept[:, :0], n)

    @classmethod
    def sampling(cls, picked: Tensor, n_out: int) -> MergePlan:
        """The plan that keeps the tokens picked, bool [B, N], at most n_out of an image; the other slots are padding.

        Padding has size 0 and stands behind the tokens that are kept. It holds tokens that are not: any finite values
        will do, and so no token is in two slots.
        """
        order = (~picked).to(torch.int8).argsort(dim=1, stable=True)[:, :n_out]
        plan = cls.dropping(order, picked.shape[1])
        return replace(plan, size=picked.gather(1, order).float().view(-1))

    def without_moved(self) -> MergePlan:
        """The plan that drops what this one merges into other tokens."""
        return MergePlan(self.kept_rows, self.moved_rows[:0], self.into_rows[:0], self.n_in, self.n_out)

    def summed(self, weight: Tensor) -> MergePlan:
        """The plan whose groups become the sum of weight · token; weights float32 or wider [B, N]."""
        return replace(self, weight=weight.reshape(-1))

    def averaged(self, weight: Tensor) -> MergePlan:
        """The plan whose groups become their mean by these weights >= 0, float32 or wider [B, N]; all zero: plain."""
        weights = weight.reshape(-1).clamp_min(torch.finfo(weight.dtype).tiny)
        total = _sums(self, weights, torch.ones_like(weights).unsqueeze(1)).squeeze(1)
        share = torch.zeros_like(weights).index_copy(0, self.kept_rows, weights.index_select(0, self.kept_rows) / total)
        moved = weights.index_select(0, self.moved_rows) / total.index_select(0, self.into_rows)
        return replace(self, weight=share.index_copy(0, self.moved_rows, moved))

    @property
    def batch(self) -> int:
        """Number of images B."""
        return self.kept_rows.shape[0] // self.n_out

    @property
    def kept(self) -> Tensor:
        """The token that stays in each slot, int64 [B, n_out]."""
        return self.kept_rows.view(-1, self.n_out) % self.n_in

    @property
    def moved(self) -> Tensor:
        """The tokens that are merged into another, int64 [B, m]."""
        return self._by_image(self.moved_rows, self.n_in)

    @property
    def into(self) -> Tensor:
        """The slot that each moved token is merged into, int64 [B, m]."""
        return self._by_image(self.into_rows, self.n_out)

    def _by_image(self, rows: Tensor, n: int) -> Tensor:
        return rows.view(self.batch, rows.shape[0] // max(self.batch, 1)) % n

    @property
    def dest(self) -> Tensor:
        """Output slot of every input token, int64 [B, N]; -1 where the token is dropped, or fills a padded slot."""
        slots = torch.arange(self.n_out, device=self.kept_rows.device).repeat(self.batch)
        if self.size is not None:
            slots = slots.where(self.size > 0, -1)
        dest = torch.full((self.batch * self.n_in,), -1, dtype=torch.int64, device=slots.device)
        dest = dest.index_copy(0, self.kept_rows, slots).index_copy(0, self.moved_rows, self.into_rows % self.n_out)
        return dest.view(self.batch, self.n_in)


def identity_plan(batch: int, n: int, device: torch.device) -> MergePlan:
    """The plan that leaves all n tokens where they are."""
    rows = torch.arange(batch * n, device=device)
    return MergePlan(rows, rows[:0], rows[:0], n, n)


def merge(
    plan: MergePlan,
    x: Tensor,
    size: Tensor | None,
    constants: Constants | None = None,
) -> tuple[Tensor, Tensor]:
    """Merge tokens by a plan: replace every group by one token, and add up its sizes.

    Args:
        plan: where tokens go, and what a group is merged into: its mean weighted by size, its plain mean, its maximum
            in every channel, the token that it keeps, or a sum by the plan's own weights.
        x: tokens [B, N, C], any floating dtype.
        size: original patches each token stands for, float32 [B, N]; None means all ones.
        constants: the model's cache; None caches nothing.

    Returns:
        Tokens [B, n_out, C] in x's dtype and sizes float32 [B, n_out]. sum(size), and with ``weighted`` sum(size * x),
        are those of the tokens that were not dropped. A token that nothing was merged into is returned bit for bit; a
        mean is computed in fp32 (fp64 for fp64) and rounded once. The gradient of x flows through the tokens; plan and
        sizes have none.
    """
    batch, n, channels = x.shape
    kept, moved, into = plan.kept_rows, plan.moved_rows, plan.into_rows
    if size is None:
        size = torch.ones(batch, n, dtype=torch.float32, device=x.device)
    tokens, sizes = x.reshape(-1, channels), size.reshape(-1)
    moved_size = sizes.index_select(0, moved)
    out_size = sizes.index_select(0, kept)
    if plan.growth is None or _adds_in_order(plan.growth):  # sums of whole numbers are the same in any order
        out_size.index_add_(0, into, moved_size if plan.growth is None else plan.growth)
    else:
        grown = _joins(plan) * plan.growth.view(batch, 1, moved.shape[0] // max(batch, 1))
        out_size = out_size + grown.sum(dim=2).view(-1)
    combine = plan.combine
    if plan.weight is not None:
        out = _sums(plan, plan.weight, tokens)
    elif moved.shape[0] == 0 or combine == "keep":
        out = tokens.index_select(0, kept)
    elif combine == "max":
        index = into.unsqueeze(-1).expand(-1, channels)
        out = tokens.index_select(0, kept).scatter_reduce(0, index, tokens.index_select(0, moved), "amax")
    else:
        weight, total = sizes, out_size
        if combine == "mean":
            weight, moved_size = torch.ones_like(sizes), torch.ones_like(moved_size)
            total = weight.index_select(0, kept).index_add_(0, into, moved_size)
        elif plan.growth is not None:
            total = sizes.index_select(0, kept).index_add_(0, into, moved_size)
        share = (cast(moved_size, wider(x.dtype)) / total.index_select(0, into)).unsqueeze(-1)
        if torch.is_grad_enabled() and x.requires_grad:
            out = _Means.apply(constants, batch, tokens, kept, moved, into, share, weight, total)
        else:
            out = _means(constants, batch, tokens, kept, moved, into, share)
    out_size = out_size if plan.size is None else plan.size
    return out.view(batch, plan.n_out, channels), out_size.view(batch, plan.n_out)


def _sums(plan: MergePlan, weight: Tensor, x: Tensor) -> Tensor:
    """Sums of weight · token over a plan's groups, in fp32 or wider, rounded once: [B * N, C] -> [B * n_out, C]."""
    wide = torch.promote_types(wider(x.dtype), weight.dtype)
    kept, moved = (
        cast(x.index_select(0, rows), wide) * weight.index_select(0, rows).unsqueeze(-1)
        for rows in (plan.kept_rows, plan.moved_rows)
    )
    if _adds_in_order(x):
        return cast(kept.index_add(0, plan.into_rows, moved), x.dtype)
    # Elsewhere index_add adds in any order: a product with the matrix of who goes where does not.
    joins = _joins(plan).to(wide)
    of_image = (plan.batch, -1, x.shape[1])
    with without_autocast(x.device.type):
        sums = torch.baddbmm(kept.view(of_image), joins, moved.view(plan.batch, joins.shape[2], x.shape[1]))
    return cast(sums, x.dtype).view(-1, x.shape[1])


def _joins(plan: MergePlan) -> Tensor:
    """Whether each moved token goes to each slot, bool [B, n_out, m]."""
    return plan.into.unsqueeze(1) == torch.arange(plan.n_out, device=plan.into_rows.device).unsqueeze(1)


def _means(
    constants: Constants | None, batch: int, x: Tensor, kept: Tensor, moved: Tensor, into: Tensor, share: Tensor
) -> Tensor:
    """Weighted means of the groups of a plan, computed for moved tokens only: [B * N, C] -> [B * n_out, C].

    Args:
        constants: the model's cache.
        batch: B.
        x: tokens [B * N, C].
        kept, moved, into: rows of the plan.
        share: part of its group's weight that each moved token is, [B * m, 1].
    """
    out = x.index_select(0, kept)
    # The mean of a group, written as its kept token plus what the moved ones pull it by:
    # (s_d x_d + sum s_i x_i) / S = x_d + sum (s_i / S) (x_i - x_d), so only moved tokens are read and written.
    # What tokens of one slot pull is summed before it is added, and rounded once. All of them write the same sum, so it
    # does not matter which write comes last.
    target, source = out.index_select(0, into), x.index_select(0, moved)
    wide = wider(x.dtype)  # float64 models get float64 means
    if _adds_in_order(x):
        pull = (source - target).mul_(share)
        out.index_fill_(0, into, 0).index_add_(0, into, pull)  # one after the other, in their order
        return out.index_copy_(0, into, target.add_(out.index_select(0, into)))
    # Elsewhere index_add adds atomically, in any order: sum by a small matrix product, and write each slot's sum.
    target = target.to(wide)
    pull = (source.to(wide) - target).mul_(share)
    moves = into.shape[0] // max(batch, 1)
    of_image = into.view(batch, moves)
    alike = (of_image.unsqueeze(1) == of_image.unsqueeze(2)).to(wide)
    shape = (batch, moves, x.shape[1])
    with without_autocast(x.device.type):
        sums = torch.baddbmm(target.view(shape), alike, pull.view(shape))
    first = alike.argmax(dim=2) + (constants or Constants()).get(first_rows, batch, moves, device=x.device)
    return out.index_copy_(0, into, cast(sums, x.dtype).view(-1, x.shape[1]).index_select(0, first.view(-1)))


def _adds_in_order(x: Tensor) -> bool:
    """Whether index_add adds row after row, so that sums are deterministic: on a CPU, but not in a compiled kernel."""
    return x.is_cpu and x.dtype == wider(x.dtype) and not is_compiling()


def first_rows(batch: int, n: int, device: torch.device) -> Tensor:
    """Row number of the first of the n tokens of every image, int64 [B, 1]."""
    return torch.arange(batch, device=device).unsqueeze(1) * n


class _Means(torch.autograd.Function):
    """:func:`_means` with its gradient, which uses no atomic additions either, and so is deterministic.

    Further inputs: weights of the tokens [B * N], and of the groups [B * n_out].
    """

    @staticmethod
    def forward(ctx: Any, constants: Constants | None, batch: int, x: Tensor, *given: Tensor) -> Tensor:
        ctx.save_for_backward(*given)
        return _means(constants, batch, x, *given[:-2])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grads
        kept, moved, into, share, weight, total = ctx.saved_tensors
        kept_share = cast(weight.index_select(0, kept), wider(grad.dtype)) / total
        kept_share = kept_share.unsqueeze(-1)
        of_x = grad.new_zeros(len(weight), grad.shape[1])  # stays zero for dropped tokens
        of_x.index_copy_(0, kept, grad * cast(kept_share, grad.dtype))
        of_x.index_copy_(0, moved, grad.index_select(0, into) * cast(share, grad.dtype))
        return None, None, of_x, *[None] * 6


def wider(dtype: torch.dtype) -> torch.dtype:
    """The dtype in which values of a floating dtype are summed: fp64 for fp64, else fp32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def cast(x: Tensor, dtype: torch.dtype) -> Tensor:
    """``x.to(dtype)``, or ``x`` itself where it has that dtype: at batch size 1 every call costs time."""
    return x if x.dtype == dtype else x.to(dtype)


def autocasts(device_type: str) -> bool:
    """Whether autocast is on for a device, so that matrix products are computed in another dtype."""
    return device_type != "meta" and torch.is_autocast_enabled(device_type)


def without_autocast(device_type: str) -> AbstractContextManager[object]:
    """Context without autocast, for products that must keep their dtype; a null context where autocast is off."""
    return torch.autocast(device_type, enabled=False) if autocasts(device_type) else nullcontext()


def unmerge(plan: MergePlan, y: Tensor) -> Tensor:
    """Give every input token the value of the slot it went to.

    Args:
        plan: the plan that made ``y``.
        y: [B, n_out, C].

    Returns:
        [B, N, C]; zeros where the token was dropped.
    """
    return spread(y, plan.dest)


def spread(y: Tensor, source: Tensor) -> Tensor:
    """Give every original token the value of the token it is part of.

    Args:
        y: [B, n, C].
        source: token of ``y`` each original one is part of, int64 [B, N], -1 where it was dropped.

    Returns:
        [B, N, C]; zeros where the token was dropped.
    """
    source = source.unsqueeze(-1)
    return y.gather(1, source.clamp_min(0).expand(-1, -1, y.shape[2])) * (source >= 0)


def compose_sources(source: Tensor | None, plan: MergePlan) -> Tensor:
    """Map the original tokens through one more plan, to the tokens that they are part of after it.

    Args:
        source: token each original one is part of before this plan, int64 [B, N0], -1 where dropped; None before the
            first plan.
        plan: of the next layer.

    Returns:
        The same after the plan, int64 [B, N0].
    """
    dest = plan.dest
    if source is None:
        return dest
    followed = dest.gather(1, source.clamp_min(0))
    return torch.where(source >= 0, followed, source)
