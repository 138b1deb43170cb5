"""zero-tprune: equal to a reference of Python loops, and to examples worked by hand."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from reduction.contexts import contexts, make_context
from reduction.options_reference import Rows, scores
from torch import Tensor

from tomebench.reduction.method import BlockSize, Context, Heads
from tomebench.reduction.methods.zero_tprune import ZeroTPrune


def page_rank(queries: Sequence[Rows], keys: Sequence[Rows], size: Sequence[float], iterations: int) -> list[float]:
    """Root of the mean over heads of the squared scores."""
    n = len(size)
    squares = [0.0] * n
    for q, k in zip(queries, keys, strict=True):
        graph = []
        for i in range(n):
            powers = [
                size[j] * math.exp(sum(a * b for a, b in zip(q[i], k[j], strict=True)) / math.sqrt(len(q[i])))
                for j in range(n)
            ]
            graph.append([power / sum(powers) for power in powers])
        score = [1 / n] * n
        for _ in range(iterations):
            score = [sum(score[i] * graph[i][j] for i in range(n)) for j in range(n)]
        squares = [square + value**2 for square, value in zip(squares, score, strict=True)]
    return [math.sqrt(square / len(queries)) for square in squares]


def left(importance: Sequence[float], rows: Rows, ctx: Context, method: ZeroTPrune) -> list[int]:
    """The tokens that stay."""
    patches = sorted(range(ctx.prefix, len(importance)), key=lambda t: (-importance[t], t))
    unimportant = int(ctx.r * method.by_importance / 100)
    patches = patches[: len(patches) - unimportant]
    less = sorted(patches[len(patches) - len(patches) // 2 :])
    more = [t for t in patches if t not in less]
    best = {t: max(scores(rows, t, more, method.distance).values()) for t in less}
    gone = sorted(less, key=lambda t: (-best[t], t))[: ctx.r - unimportant]
    return [t for t in range(len(importance)) if t < ctx.prefix or (t in patches and t not in gone)]


@given(
    contexts(),
    st.sampled_from([("k", "mean"), ("q", "concat"), ("x", "mean")]),
    st.sampled_from(["cosine", "euclidean", "dot", "softmax"]),
    st.sampled_from([1, 2, 30]),
    st.sampled_from([0, 33, 50, 100]),
)
def test_equals_its_reference(
    ctx: Context, metric: tuple[str, str], distance: str, iterations: int, by_importance: int
) -> None:
    method = ZeroTPrune(iterations, by_importance, *metric, distance)  # type: ignore[arg-type]
    plan = method.choose(ctx)
    assert plan.moved.numel() == 0
    rows = {"k": ctx.heads.k.mean(dim=1), "q": ctx.heads.q.transpose(1, 2).flatten(2), "x": ctx.x}[metric[0]]
    for image in range(2):
        size = [1.0] * ctx.x.shape[1] if ctx.bias_size is None else ctx.bias_size[image].tolist()
        importance = page_rank(ctx.heads.q[image].tolist(), ctx.heads.k[image].tolist(), size, iterations)
        assert plan.kept[image].tolist() == left(importance, rows[image].tolist(), ctx, method)


def attending(*heads: list[list[float]]) -> tuple[Tensor, Tensor]:
    """Queries and keys [1, heads, N, N] of heads with these attention matrices, whose rows sum to 1."""
    attention = torch.tensor(heads, dtype=torch.float64)[None]
    n = attention.shape[-1]
    return (torch.eye(n, dtype=torch.float64) * math.sqrt(n)).expand_as(attention), attention.log().transpose(-2, -1)


def test_importance_worked_by_hand() -> None:
    """Token 1 is looked at by 0, and 2 by 1 and 2: after a step the scores are the means of the columns.

    Head one: (.2, .3, .5) after one step; .2 · (.2, .6, .2) + .3 · (.2, .2, .6) + .5 · (.2, .1, .7) = (.2, .23, .57)
    after two. Head two looks at 0 always: (.6, .2, .2). Together, after one step, √((.2² + .6²)/2) = .447 of 0,
    √((.3² + .2²)/2) = .255 of 1 and √((.5² + .2²)/2) = .381 of 2.
    """
    one, two = [[0.2, 0.6, 0.2], [0.2, 0.2, 0.6], [0.2, 0.1, 0.7]], [[0.6, 0.2, 0.2]] * 3
    for heads, iterations, expected in (
        ((one,), 1, [0.2, 0.3, 0.5]),
        ((one,), 2, [0.2, 0.23, 0.57]),
        ((one, two), 1, [0.4472, 0.2550, 0.3808]),
    ):
        q, k = attending(*heads)
        ctx = dataclasses.replace(make_context(3, 1, 1, batch=1), heads=Heads(q, k, k))
        found = ZeroTPrune(iterations)._importance(ctx)[0]
        torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("r", "by_importance", "kept"),
    [
        (1, 50, [0, 1, 2, 3, 4, 6, 7]),  # none by importance; 5 of the less important is along 2: cosine 1
        (2, 50, [0, 1, 2, 3, 4, 6]),  # 7 is least important; of 1, 2, 3 and 4, 5, 6 then 5 goes again
        (3, 50, [0, 1, 2, 3, 6]),  # 7, then 5, then 4, closer to 3 (.995) than 6 is to 1 (.707)
        (3, 100, [0, 1, 2, 3, 4]),  # by importance alone
        (2, 0, [0, 1, 2, 3, 4, 6]),  # of 5, 6, 7 and 1 to 4: 5, then 7, which is closest to 4 (.999)
    ],
)
def test_pruning_worked_by_hand(r: int, by_importance: int, kept: list[int]) -> None:
    """All tokens attend alike, to 1 most and to 7 least; values of 1 to 7 are compared."""
    values = [
        [0, 0],
        [
            1,
            0,
        ],
        [0, 1],
        [-1, 0],
        [-10, -1],
        [0, 2],
        [1, -1],
        [-20, -2],
    ]
    q, k = attending([[0.3, 0.2, 0.15, 0.12, 0.1, 0.07, 0.05, 0.01]] * 8)
    v = torch.tensor(values, dtype=torch.float64)[None, None]
    ctx = dataclasses.replace(make_context(8, 1, r, batch=1), heads=Heads(q, k, v))
    assert ZeroTPrune(by_importance=by_importance, metric="v").choose(ctx).kept.tolist() == [kept]


def test_of_equal_patches_the_first_stay() -> None:
    ctx = make_context(8, 1, 3, batch=1)
    nothing = torch.zeros_like(ctx.heads.k)
    plan = ZeroTPrune().choose(dataclasses.replace(ctx, heads=Heads(nothing, nothing, nothing)))
    # Importance drops 7; of 1 to 6 the less important are 4, 5, 6, of which similarity drops the first two.
    assert plan.kept.tolist() == [[0, 1, 2, 3, 6]]


@given(contexts())
def test_images_of_a_batch_do_not_meet(ctx: Context) -> None:
    turned = dataclasses.replace(
        ctx,
        heads=Heads(*(each.flip(0) for each in ctx.heads[:3])),
        bias_size=None if ctx.bias_size is None else ctx.bias_size.flip(0),
    )
    assert torch.equal(ZeroTPrune().choose(turned).dest.flip(0), ZeroTPrune().choose(ctx).dest)


def test_cap_and_cost() -> None:
    """Of 12 patches at most 8 go: 4 by importance, and half of the 8 that are left by similarity."""
    assert [ZeroTPrune(by_importance=each).cap(13, 1) for each in (0, 50, 100)] == [6, 8, 11]
    assert ZeroTPrune().choose(make_context(13, 1, 8)).n_out == 5
    block = BlockSize(head_dim=4, heads_dim=8, token_dim=8)
    assert ZeroTPrune(iterations=3).cost(10, 2, block) == 100 * 8 + 3 * 100 * 2 + 9**2 / 4 * 4
    assert ZeroTPrune(iterations=3, by_importance=100).cost(10, 2, block) == 100 * 8 + 3 * 100 * 2
