"""What a method owes whose plan is compared with a reference: groups, tokens, sizes, and what never changes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import torch
from reduction.contexts import make_context
from torch import Tensor

from tomebench.reduction.method import Context, Heads, Method
from tomebench.reduction.plan import MergePlan, merge

Rows = Sequence[Sequence[float]]
Groups = Mapping[int, Sequence[int]]
"""Tokens of every group, by the token that stays."""


def on_a_line(points: Sequence[float], r: int, prefix: int = 1, queries: Sequence[float] | None = None) -> Context:
    """One image of tokens with one channel. Keys are 1, 0, 0, ... of each in turn: queries say how much each attends.

    Attention to token j is softmax over j of the query's channel j, the same for every query.
    """
    n = len(points)
    x = torch.tensor(points, dtype=torch.float64)[None, :, None]
    k = torch.eye(n, dtype=torch.float64)[None, None] * n**0.5
    q = torch.tensor(queries or [0.0] * n, dtype=torch.float64).expand(1, 1, n, n)
    ctx = make_context(n, prefix, r, batch=1)
    return dataclasses.replace(ctx, x=x, x_pre=x, heads=Heads(q, k, k))


def groups_of(plan: MergePlan, image: int = 0) -> dict[int, set[int]]:
    """Tokens of every group of a plan, by the token that stays, in the order of the output."""
    kept = plan.kept[image].tolist()
    found = {token: {token} for token in kept}
    for token, slot in zip(plan.moved[image].tolist(), plan.into[image].tolist(), strict=True):
        found[kept[slot]].add(token)
    return found


def sizes_of(ctx: Context, image: int) -> list[float]:
    return [1.0] * ctx.x.shape[1] if ctx.size is None else ctx.size[image].tolist()


def bias_of(ctx: Context, image: int) -> list[float]:
    return [1.0] * ctx.x.shape[1] if ctx.bias_size is None else ctx.bias_size[image].tolist()


def mean_of(rows: Rows, tokens: Sequence[int], weight: Sequence[float]) -> list[float]:
    total = sum(weight[t] for t in tokens)
    return [sum(weight[t] * rows[t][c] for t in tokens) / total for c in range(len(rows[0]))]


def check_against(method: Method, ctx: Context, expected: Callable[[int], tuple[Groups, Rows]]) -> None:
    """Compare groups, tokens and sizes with those that a reference gives for an image; then check what always holds."""
    plan = method.choose(ctx)
    x, size = merge(plan, ctx.x, ctx.size)
    for image in range(len(x)):
        groups, rows = expected(image)
        assert groups_of(plan, image) == {token: {*group} for token, group in groups.items()}
        torch.testing.assert_close(x[image], torch.tensor(rows, dtype=torch.float64), rtol=0, atol=1e-9)
        sizes = sizes_of(ctx, image)
        if method.merges:
            assert size[image].tolist() == [sum(sizes[t] for t in groups[token]) for token in groups_of(plan, image)]
    check_invariants(method, ctx, x, size)


def check_invariants(method: Method, ctx: Context, x: Tensor, size: Tensor) -> None:
    """N - r tokens; the prefix bit for bit; no size lost in merging; no image depends on another."""
    assert x.shape[1] == ctx.x.shape[1] - ctx.r
    assert torch.equal(x[:, : ctx.prefix], ctx.x[:, : ctx.prefix])
    if method.merges:
        whole = torch.ones(ctx.x.shape[:2]) if ctx.size is None else ctx.size
        assert torch.equal(size.sum(dim=1), whole.sum(dim=1))
    flipped = {
        field.name: value.flip(0)
        for field in dataclasses.fields(ctx)
        if isinstance(value := getattr(ctx, field.name), Tensor)
    }
    other = dataclasses.replace(ctx, heads=Heads(*(each.flip(0) for each in ctx.heads[:3])), **flipped)
    swapped, _ = merge(method.choose(other), other.x, other.size)
    torch.testing.assert_close(swapped.flip(0), x, rtol=0, atol=1e-12)
