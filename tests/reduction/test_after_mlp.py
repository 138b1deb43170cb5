"""A method that reduces at the end of a block: what it drops is what it would have dropped before the MLP."""

from __future__ import annotations

from dataclasses import dataclass

import timm
import torch

from tomebench.backbones.adapt import adapt
from tomebench.reduction.method import BlockSize, Context, Method
from tomebench.reduction.plan import MergePlan
from tomebench.reduction.schedule import half_of_patches
from tomebench.reduction.vit import ReducedViT, SlicedViT


@dataclass(frozen=True)
class DropLast(Method):
    source = "none"
    merges = False
    cap = staticmethod(half_of_patches)

    def choose(self, ctx: Context) -> MergePlan:
        left = ctx.x.shape[1] - ctx.r
        return MergePlan.dropping(torch.arange(left).expand(len(ctx.x), -1), ctx.x.shape[1])

    def cost(self, n: int, r: int, block: BlockSize) -> float:
        return 0.0


@dataclass(frozen=True)
class DropLastAfterMlp(DropLast):
    after_mlp = True

    def choose(self, ctx: Context) -> MergePlan:
        assert ctx.before_mlp is not None
        assert ctx.before_mlp.shape == ctx.x.shape
        assert not torch.equal(ctx.before_mlp, ctx.x)
        return super().choose(ctx)


def test_dropping_after_the_mlp_gives_the_logits_of_dropping_before_it() -> None:
    backbone = adapt(timm.create_model("test_vit", num_classes=5).eval())
    images = torch.randn(2, 3, 160, 160)
    with torch.no_grad():
        before, after = (ReducedViT(backbone, method, [6] * 6) for method in (DropLast(), DropLastAfterMlp()))
        torch.testing.assert_close(after(images), before(images))
        assert torch.equal(after.source_map(images), before.source_map(images))
        ceiling = SlicedViT(backbone, DropLastAfterMlp(), [6] * 6)
        assert torch.equal(ceiling(images), before(images)), "the ceiling saves the MLP of what it slices off"
