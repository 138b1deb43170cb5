"""EViT: equal to a reference of Python loops and to an example worked by hand."""

from __future__ import annotations

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
from tomebench.reduction.schedule import all_but_one_patch

OPTIONS = st.fixed_dictionaries({}, optional={"fused": st.just("mean"), "count_sizes": st.just(True)})


def expected(ctx: Context, image: int, fused: str, counts: bool) -> tuple[list[list[float]], list[float]]:
    """Tokens and sizes after the layer: the fused token is where the one with most attention among the fused was.

    It has that one's size, unless sizes count.
    """
    n, prefix = ctx.x.shape[1], ctx.prefix
    x, q, k = ctx.x[image].tolist(), ctx.heads.q[image].tolist(), ctx.heads.k[image].tolist()
    size = [1.0] * n if ctx.size is None else ctx.size[image].tolist()
    a = reference.attention(q, k, size if ctx.bias_size is not None else [1.0] * n, [0] if prefix else range(n))
    ranked = sorted(range(prefix, n), key=lambda i: (-a[i], i))
    stay, fuse = ranked[: n - prefix - ctx.r - 1], ranked[n - prefix - ctx.r - 1 :]
    total = sum(a[i] for i in fuse) if fused == "mean" else 1.0
    one = [sum(a[i] * x[i][c] for i in fuse) / total for c in range(len(x[0]))]
    tokens = sorted([*range(prefix), *stay, fuse[0]])
    rows = [one if i == fuse[0] else x[i] for i in tokens]
    return rows, [sum(size[j] for j in fuse) if counts and i == fuse[0] else size[i] for i in tokens]


@given(contexts(all_but_one_patch), OPTIONS)
def test_equals_the_reference(ctx: Context, options: dict[str, object]) -> None:
    method = get_method("evit", options)
    assert method.counts_sizes == bool(options.get("count_sizes"))
    x, size = merge(method.choose(ctx), ctx.x, ctx.size)
    assert x.shape[1] == ctx.x.shape[1] - ctx.r
    for image in range(2):
        rows, sizes = expected(ctx, image, str(options.get("fused", "sum")), method.counts_sizes)
        torch.testing.assert_close(x[image], torch.tensor(rows, dtype=torch.float64), rtol=0, atol=1e-9)
        assert size[image].tolist() == sizes


@given(contexts(all_but_one_patch))
def test_all_but_the_fused_token_keep_their_bits(ctx: Context) -> None:
    plan = get_method("evit").choose(ctx)
    x, _ = merge(plan, ctx.x, ctx.size)
    before = ctx.x.gather(1, plan.kept.unsqueeze(-1).expand_as(x))
    assert torch.equal(before[:, : ctx.prefix], ctx.x[:, : ctx.prefix])
    alike = (x == before).all(dim=2)
    slots = torch.arange(plan.n_out)
    for image in range(2):
        (fused,) = {*plan.into[image].tolist()}
        assert alike[image, slots != fused].all()


def example(attention: list[float], r: int) -> Context:
    """One head whose class token attends to tokens as given; x is 1, 10, 100, ... in one channel."""
    k = torch.tensor(attention, dtype=torch.float64).log()[None, None, :, None]
    x = torch.tensor([10.0**i for i in range(len(attention))], dtype=torch.float64)[None, :, None]
    return Context(x, x, Heads(torch.ones_like(k), k, k), None, None, r, 1, 0, 1, Constants(), True)


@pytest.mark.parametrize(
    ("r", "fused", "left"),
    [
        # Attention 1/2 to itself, then 1/8, 1/16, 1/8, 1/32, 1/8, 1/32. Least: 6, 4 (the lower index ranks first), 2.
        (1, "sum", [1, 10, 100, 1000, (10_000 + 1_000_000) / 32, 100_000]),
        (1, "mean", [1, 10, 100, 1000, (10_000 + 1_000_000) / 2, 100_000]),
        (2, "sum", [1, 10, 100 / 16 + (10_000 + 1_000_000) / 32, 1000, 100_000]),
        (2, "mean", [1, 10, (2 * 100 + 10_000 + 1_000_000) / 4, 1000, 100_000]),
        (5, "sum", [1, 10 / 8 + 100 / 16 + 1000 / 8 + 10_000 / 32 + 100_000 / 8 + 1_000_000 / 32]),
    ],
)
def test_worked_by_hand(r: int, fused: str, left: list[float]) -> None:
    """Attention is not renormalised over the patches: of a sum only, the shares add up to less than one."""
    ctx = example([1 / 2, 1 / 8, 1 / 16, 1 / 8, 1 / 32, 1 / 8, 1 / 32], r)
    for count_sizes, largest in ((False, 1.0), (True, r + 1.0)):
        method = get_method("evit", {"fused": fused, "count_sizes": count_sizes})
        x, size = merge(method.choose(ctx), ctx.x, None)
        assert x.flatten().tolist() == pytest.approx(left, rel=1e-12)
        assert sorted(size.flatten().tolist()) == [*[1.0] * (6 - r), largest]


def test_as_many_tokens_as_the_authors_keep() -> None:
    """Keep rate 0.7 of 196 patches in blocks 3, 6, 9 keeps 138, 98, 70, the fused token being one of the next 139."""
    left, method = 197, get_method("evit")
    for patches in (138, 98, 70):
        r = left - 1 - patches - 1
        assert r <= method.cap(left, 1)
        plan = method.choose(make_context(left, 1, r, batch=1, heads=1))
        fused = plan.kept[0, plan.into[0, 0]]
        assert sum(token != fused for token in plan.kept[0, 1:]) == patches
        left = plan.n_out
    assert left == 72


def test_no_attention_at_all_is_a_plain_mean() -> None:
    ctx = example([1.0] * 5, 2)
    ctx.heads.k[:, :, 1:] = -1e4  # beyond what float64 can exponentiate
    x, _ = merge(get_method("evit", {"fused": "mean"}).choose(ctx), ctx.x, None)
    assert x.flatten().tolist() == pytest.approx([1, 10, (100 + 1000 + 10_000) / 3])
