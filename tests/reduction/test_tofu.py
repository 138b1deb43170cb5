"""ToFu: equal to a reference of Python loops and to examples worked by hand."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from reduction import options_reference as reference
from reduction.contexts import contexts, make_context

from tomebench.reduction.constants import Constants
from tomebench.reduction.method import Context, Heads
from tomebench.reduction.plan import merge
from tomebench.reduction.registry import get_method

OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "denominator": st.just("mean"),
        "mean": st.just("size"),
        "metric": st.sampled_from(["q", "x"]),
        "distance": st.just("dot"),
        "count_sizes": st.just(True),
    },
)


def groups(ctx: Context, image: int, options: dict[str, object]) -> list[list[int]]:
    """Groups of tokens in the order of the output; the first of each is the token that stays."""
    metric, patches = str(options.get("metric", "k")), range(ctx.prefix, ctx.x.shape[1])
    if metric == "x":
        rows = ctx.x[image].tolist()
    else:
        rows = reference.metric(getattr(ctx.heads, metric)[image].tolist(), "mean")
    in_a = [token for token in patches if token % 2 == 0]
    found = reference.bipartite(rows, ctx.r, ctx.prefix, str(options.get("distance", "cosine")), in_a)
    if ctx.layer <= ctx.depth / 2:
        return [group[:1] for group in found]
    return found


@given(contexts(), OPTIONS)
def test_equals_the_reference(ctx: Context, options: dict[str, object]) -> None:
    method = get_method("tofu", options)
    assert method.counts_sizes == bool(options.get("count_sizes"))
    x, size = merge(method.choose(ctx), ctx.x, ctx.size)
    assert x.shape[1] == ctx.x.shape[1] - ctx.r
    assert torch.equal(x[:, : ctx.prefix], ctx.x[:, : ctx.prefix])
    for image in range(2):
        found = groups(ctx, image, options)
        tokens = ctx.x[image].tolist()
        sizes = [1.0] * len(tokens) if ctx.size is None else ctx.size[image].tolist()
        how = "weighted" if options.get("mean") == "size" else "mean"
        rows, expected = reference.combine(found, tokens, sizes, how)
        for row, group in zip(rows, found, strict=True):
            below = row if options.get("denominator") == "mean" else tokens[group[0]]
            scale = max(math.hypot(*tokens[token]) for token in group) / math.hypot(*below)
            row[:] = [value * scale for value in row]
        assert size[image].tolist() == expected
        torch.testing.assert_close(x[image], torch.tensor(rows, dtype=torch.float64), rtol=0, atol=1e-9)


@given(contexts(), OPTIONS)
def test_tokens_that_are_not_matched_keep_their_bits(ctx: Context, options: dict[str, object]) -> None:
    plan = get_method("tofu", options).choose(ctx)
    x, _ = merge(plan, ctx.x, ctx.size)
    before = ctx.x.gather(1, plan.kept.unsqueeze(-1).expand_as(x))
    for image in range(2):
        alone = [slot for slot in range(plan.n_out) if slot not in plan.into[image].tolist()]
        assert torch.equal(x[image, alone], before[image, alone])


@pytest.mark.parametrize(("depth", "pruning"), [(12, 7), (24, 13), (7, 4), (1, 1)])
def test_the_first_blocks_prune(depth: int, pruning: int) -> None:
    """Blocks 0 to 6 of 12."""
    for layer in range(depth):
        ctx = make_context(9, 1, 2, layer=layer)
        plan = get_method("tofu").choose(dataclasses.replace(ctx, depth=depth))
        assert (plan.moved.numel() == 0) == (layer < pruning)


def example(r: int) -> Context:
    """Class token and patches 1 to 6; 2 and 6 of A have the keys of 1 and 1 of B, 4 is like nobody."""
    keys = [[0.0, 0], [1, 0], [1, 0], [0, 1], [-1, -1], [0, -1], [2, 0]]
    k = torch.tensor(keys, dtype=torch.float64)[None, None]
    x = torch.tensor([[9.0, 9], [3, 4], [0, 12], [5, 5], [6, 6], [7, 7], [9, 0]], dtype=torch.float64)[None]
    return Context(x, x, Heads(k, k, k), None, None, r, 1, 11, 12, Constants(), True)


@pytest.mark.parametrize(
    ("r", "options", "merged"),
    [
        (1, {}, (1.5 * 12 / 5, 8 * 12 / 5)),
        (1, {"denominator": "mean"}, (1.5 * 12 / math.hypot(1.5, 8), 8 * 12 / math.hypot(1.5, 8))),
        (2, {}, (4 * 12 / 5, 16 / 3 * 12 / 5)),
        (2, {"denominator": "mean"}, (4 * 12 / (20 / 3), 16 / 3 * 12 / (20 / 3))),
        (2, {"mean": "size"}, (33 / 6 * 12 / 5, 20 / 6 * 12 / 5)),
    ],
)
def test_mlerp_worked_by_hand(r: int, options: dict[str, object], merged: tuple[float, float]) -> None:
    """Token 2 (0, 12) joins 1 (3, 4), and then 6 (9, 0) does. Lengths 12, 5, 9.

    Their means are (1.5, 8) and (4, 16/3), whose length is 20/3; by sizes 2, 1, 3 it is (6 + 27, 8 + 12) / 6.
    """
    ctx = dataclasses.replace(example(r), size=torch.tensor([[1.0, 2, 1, 1, 1, 1, 3]]))
    plan = get_method("tofu", options).choose(ctx)
    x, size = merge(plan, ctx.x, ctx.size)
    slot = plan.kept[0].tolist().index(1)
    assert tuple(x[0, slot].tolist()) == pytest.approx(merged, rel=1e-12)
    assert float(size[0, slot]) == (3.0 if r == 1 else 6.0)


@pytest.mark.parametrize("denominator", ["destination", "mean"])
def test_a_length_of_zero_scales_nothing(denominator: str) -> None:
    ctx = example(1)
    ctx.x[0, 1] = 0 if denominator == "destination" else -ctx.x[0, 2]
    plan = get_method("tofu", {"denominator": denominator}).choose(ctx)
    x, _ = merge(plan, ctx.x, ctx.size)
    mean = (ctx.x[0, 1] + ctx.x[0, 2]) / 2
    assert torch.equal(x[0, plan.kept[0].tolist().index(1)], mean)
