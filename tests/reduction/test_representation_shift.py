"""Representation shift: equal to a reference of Python loops, an example worked by hand, and the model's own MLP."""

from __future__ import annotations

import dataclasses
import math

import pytest
import timm
import torch
from hypothesis import given
from hypothesis import strategies as st
from reduction.contexts import contexts, make_context
from reduction.groups import Groups, Rows, check_against

from tomebench.backbones.adapt import adapt
from tomebench.backbones.apply import apply
from tomebench.reduction.method import BlockSize, Context
from tomebench.reduction.methods.representation_shift import RepresentationShift


@given(contexts(RepresentationShift.cap), st.sampled_from(["branch", "residual"]), st.sampled_from(["l2", "l1"]))
def test_it_equals_its_reference(ctx: Context, form: str, norm: str) -> None:
    def expected(image: int) -> tuple[Groups, Rows]:
        assert ctx.before_mlp is not None
        after, before = ctx.x[image].tolist(), ctx.before_mlp[image].tolist()
        score = {}
        for t in range(ctx.prefix, len(after)):
            branch = [b - a for a, b in zip(before[t], after[t], strict=True)]
            shift = [f - x for f, x in zip(branch, before[t], strict=True)] if form == "branch" else branch
            score[t] = sum(map(abs, shift)) if norm == "l1" else math.hypot(*shift)
        kept = sorted(sorted(score, key=lambda t: (-score[t], t))[: len(score) - ctx.r])
        groups = {t: [t] for t in [*range(ctx.prefix), *kept]}
        return groups, [after[t] for t in groups]

    check_against(RepresentationShift(form=form, norm=norm), ctx, expected)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("form", "norm", "order"),
    [
        ("branch", "l2", [4, 1, 6, 2, 5, 3]),  # branch - x: (0, 5), (2, 2), (0, 0), (6, 0), (1, 0), (0, -3)
        ("branch", "l1", [4, 1, 2, 6, 5, 3]),
        ("residual", "l2", [1, 4, 2, 3, 5, 6]),  # branch: 5, 2.83 (twice 2), 1, 3, 1 at the higher index, 0
        ("residual", "l1", [1, 2, 4, 3, 5, 6]),
    ],
)
def test_worked_by_hand(form: str, norm: str, order: list[int]) -> None:
    """A class token and six patches; the ones first in order stay longest."""
    before = torch.tensor([[9, 9], [0, 0], [0, 0], [1, 0], [-3, 0], [0, 1], [0, 3]], dtype=torch.float64)[None]
    branch = torch.tensor([[0, 0], [0, 5], [2, 2], [1, 0], [3, 0], [1, 1], [0, 0]], dtype=torch.float64)[None]
    branch[0, 5] = torch.tensor([1.0, 0.0]) if form == "residual" else torch.tensor([1.0, 1.0])
    for r in range(1, 6):
        ctx = dataclasses.replace(make_context(7, 1, r, batch=1), x=before + branch, before_mlp=before)
        plan = RepresentationShift(form=form, norm=norm).choose(ctx)  # type: ignore[arg-type]
        assert plan.kept.tolist() == [[0, *sorted(order[: 6 - r])]]


@torch.no_grad()
def test_the_shift_is_that_of_the_models_mlp() -> None:
    vit = timm.create_model("test_vit", num_classes=5, img_size=64).eval()
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    backbone, block = adapt(vit), vit.blocks[0]
    x, _ = backbone.attention(0, backbone.embed(images), "auto")
    shift = block.ls2(block.mlp(block.norm2(x))) - x
    least = shift.norm(dim=2)[:, 1:].argsort(dim=1)[:, :5] + 1
    reduced = apply(vit, (5, *[0] * (backbone.depth - 1)), method="representation-shift")
    assert [sorted(each.tolist()) for each in least] == [
        (sources == -1).nonzero().flatten().tolist() for sources in reduced.source_map(images)
    ]


def test_it_is_charged_the_mlp_of_what_it_drops() -> None:
    assert RepresentationShift().cost(197, 8, BlockSize(64, 192, 192, 1000)) == 8000
