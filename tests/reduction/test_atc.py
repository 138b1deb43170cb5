"""atc: each linkage equal to its definition over all pairs of patches, and to an example worked by hand."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from reduction import graph_reference as reference
from reduction.contexts import contexts, make_context

from tomebench.reduction.method import Context, Heads
from tomebench.reduction.methods.atc import Atc
from tomebench.reduction.plan import MergePlan, merge

LINKAGES = ("average", "single", "complete")


@st.composite
def clustered(draw: st.DrawFn) -> Context:
    """Contexts with any r down to one patch that is left."""
    ctx = draw(contexts())
    return dataclasses.replace(ctx, r=draw(st.integers(1, Atc().cap(ctx.x.shape[1], ctx.prefix))))


def groups(plan: MergePlan, image: int = 0) -> list[list[int]]:
    """Tokens of each slot, of which the first stays."""
    found = [[token] for token in plan.kept[image].tolist()]
    for token, slot in zip(plan.moved[image].tolist(), plan.into[image].tolist(), strict=True):
        found[slot].append(token)
    return found


@given(clustered(), st.sampled_from(LINKAGES), st.sampled_from([("k", "mean"), ("v", "concat"), ("x", "mean")]))
def test_every_linkage_equals_its_definition(ctx: Context, linkage: str, metric: tuple[str, str]) -> None:
    method = Atc(linkage=linkage, metric=metric[0], heads=metric[1])  # type: ignore[arg-type]
    plan = method.choose(ctx)
    x, size = merge(plan, ctx.x, ctx.size)
    n, prefix = ctx.x.shape[1], ctx.prefix
    rows = {"k": ctx.heads.k.mean(dim=1), "v": ctx.heads.v.transpose(1, 2).flatten(2), "x": ctx.x}[metric[0]]
    assert torch.equal(x[:, :prefix], ctx.x[:, :prefix])
    for image in range(2):
        clusters = reference.agglomerate(rows[image, prefix:].tolist(), ctx.r, linkage)
        expected = [[t] for t in range(prefix)] + [[patch + prefix for patch in cluster] for cluster in clusters]
        assert groups(plan, image) == expected
        sizes = [1.0] * n if ctx.size is None else ctx.size[image].tolist()
        means, totals = reference.means(expected, ctx.x[image].tolist(), sizes)
        assert size[image].tolist() == totals
        torch.testing.assert_close(x[image], torch.tensor(means, dtype=torch.float64), rtol=0, atol=1e-9)


@given(clustered(), st.sampled_from(LINKAGES))
def test_images_of_a_batch_do_not_meet(ctx: Context, linkage: str) -> None:
    method = Atc(linkage=linkage)  # type: ignore[arg-type]
    heads = Heads(*(each.flip(0) for each in ctx.heads[:3]))
    turned = dataclasses.replace(ctx, heads=heads, x=ctx.x.flip(0), x_pre=ctx.x_pre.flip(0))
    assert torch.equal(method.choose(turned).dest.flip(0), method.choose(ctx).dest)


def at_angles(*degrees: float, r: int) -> Context:
    """A class token and patches whose keys point to these angles, so that a cosine is that of a difference."""
    rows = [[math.cos(math.radians(angle)), math.sin(math.radians(angle))] for angle in (45, *degrees)]
    k = torch.tensor(rows, dtype=torch.float64)[None, None]
    return dataclasses.replace(make_context(len(rows), 1, r, batch=1), heads=Heads(k, k, k))


@pytest.mark.parametrize(
    ("linkage", "third", "fourth"),
    [
        ("average", [[1, 2, 3], [4], [5, 6]], [[1, 2, 3], [4, 5, 6]]),
        ("single", [[1, 2, 3], [4], [5, 6]], [[1, 2, 3, 4], [5, 6]]),
        ("complete", [[1, 2], [3, 4], [5, 6]], [[1, 2, 3, 4], [5, 6]]),
    ],
)
def test_worked_by_hand(linkage: str, third: list[list[int]], fourth: list[list[int]]) -> None:
    """Patches 1 to 6 at 0, 10, 30, 58, 100 and 105 degrees.

    First 5 and 6 are joined (5 degrees), then 1 and 2 (10). The third: {1, 2} and 3 are 20 and 30 degrees apart, 3 and
    4 are 28: cosines .903 on average, .940 at best and .866 at worst, against .883. The fourth: on average {1, 2, 3}
    and 4 have .694, 4 and {5, 6} .713; at best .883 and .743; {1, 2} and {3, 4} at worst .530, {3, 4} and {5, 6} .259.
    """
    expected = [[[1], [2], [3], [4], [5, 6]], [[1, 2], [3], [4], [5, 6]], third, fourth, [[1, 2, 3, 4, 5, 6]]]
    for r, clusters in enumerate(expected, 1):
        plan = Atc(linkage=linkage).choose(at_angles(0, 10, 30, 58, 100, 105, r=r))  # type: ignore[arg-type]
        assert groups(plan) == [[0], *clusters]


@pytest.mark.parametrize("linkage", LINKAGES)
def test_ties_go_to_the_lower_index(linkage: str) -> None:
    """Every pair is as similar: the second joins the first, then the third does."""
    for r in range(1, 4):
        plan = Atc(linkage=linkage).choose(at_angles(0, 0, 0, 0, r=r))  # type: ignore[arg-type]
        assert groups(plan) == [[0], list(range(1, r + 2)), *([patch] for patch in range(r + 2, 5))]


def test_a_merged_token_counts_as_one_patch_and_its_mean_by_size() -> None:
    """Sizes leave the clusters as they are: {1, 2} are averaged as (3 · 1 + 1 · 5) / 4."""
    ctx = at_angles(0, 10, 90, r=1)
    x = torch.tensor([[[0.0], [1.0], [5.0], [9.0]]], dtype=torch.float64)
    out, size = merge(Atc().choose(ctx), x, torch.tensor([[1.0, 3.0, 1.0, 1.0]]))
    assert out.flatten().tolist() == [0, 2, 9]
    assert size.tolist() == [[1, 4, 1]]


def test_a_layer_can_leave_one_patch() -> None:
    assert [Atc().cap(n, prefix) for n, prefix in ((197, 1), (2, 1), (1, 1), (16, 0))] == [195, 0, 0, 15]
