"""topk: equal to a reference of Python loops and to an example worked by hand; registers are no class token."""

from __future__ import annotations

import pytest
import torch
from backbones.zoo import build
from hypothesis import given
from reduction import options_reference as reference
from reduction.contexts import contexts, make_context

from tomebench.backbones.apply import apply
from tomebench.reduction.method import Context, Heads
from tomebench.reduction.plan import MergePlan, merge
from tomebench.reduction.registry import get_method
from tomebench.reduction.schedule import all_but_one_patch


def kept(ctx: Context, image: int, of: list[int]) -> list[int]:
    """The tokens left when attention is that of the tokens ``of``."""
    q, k = ctx.heads.q[image].tolist(), ctx.heads.k[image].tolist()
    size = [1.0] * len(k[0]) if ctx.bias_size is None else ctx.bias_size[image].tolist()
    return [token for (token,) in reference.prune(reference.attention(q, k, size, of), ctx.r, ctx.prefix)]


@given(contexts(all_but_one_patch))
def test_equals_the_reference(ctx: Context) -> None:
    n = ctx.x.shape[1]
    plan = get_method("topk").choose(ctx)
    of = [0] if ctx.class_token else list(range(n))
    assert plan.kept.tolist() == [kept(ctx, image, of) for image in range(2)]
    assert plan.moved.numel() == 0
    x, _ = merge(plan, ctx.x, None)
    assert torch.equal(x, ctx.x.gather(1, plan.kept.unsqueeze(-1).expand_as(x)))


def test_worked_by_hand() -> None:
    """Of patches 1 to 6 the products with the class query are 3, 1, 2, 2, 5, 0: 5, 1, 3, 4, 2, 6 by attention."""
    k = torch.tensor([9.0, 3, 1, 2, 2, 5, 0], dtype=torch.float64)[None, None, :, None]
    for r, left in ((1, [0, 1, 2, 3, 4, 5]), (2, [0, 1, 3, 4, 5]), (3, [0, 1, 3, 5]), (5, [0, 5])):
        ctx = make_context(7, 1, r)
        ctx = Context(ctx.x[:1], ctx.x[:1], Heads(k / k[:, :, :1], k, k), None, None, r, 1, 0, 1, ctx.constants, True)
        assert get_method("topk").choose(ctx).kept.tolist() == [left]
    assert get_method("topk").cap(7, 1) == 5


@pytest.mark.parametrize("name", ["topk", "evit", "attention-prune"])
def test_registers_are_no_class_token(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without class token patches are ranked by what they receive from all tokens, not from the first register."""
    arguments = {"class_token": False, "reg_tokens": 4, "global_pool": "avg", "img_size": 64, "fc_norm": True}
    reduced = apply(build("test_vit", arguments), 4, method=name)
    seen: list[tuple[Context, MergePlan]] = []

    def plan(ctx: Context) -> MergePlan:
        seen.append((ctx, reduced.method.choose(ctx)))
        return seen[-1][1]

    monkeypatch.setattr(reduced, "plan", plan)
    with torch.no_grad():
        reduced(torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)))
    assert len(seen) >= 2
    others = 0
    for ctx, found in seen:
        assert (ctx.prefix, ctx.class_token) == (4, False)
        for image in range(2):
            n, fused = ctx.x.shape[1], set(found.kept[image, found.into[image]].tolist())
            survivors = [token for token in found.kept[image].tolist() if token not in fused]
            best = kept(ctx, image, list(range(n)))
            assert {*survivors} <= {*best}
            assert len(best) - len(survivors) == len(fused)
            others += best != kept(ctx, image, [0])
    assert others, "or a register would have done as well"
