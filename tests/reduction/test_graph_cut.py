"""graph-cut: equal to a reference of Jacobi's rotations where the cut is well defined, and to examples by hand."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from reduction import graph_reference as reference
from reduction.contexts import contexts, make_context
from reduction.test_atc import groups

from tomebench.reduction.clusters import lloyd
from tomebench.reduction.method import BlockSize, Context, Heads
from tomebench.reduction.methods.graph_cut import GraphCut, spectral_rows
from tomebench.reduction.plan import merge

CLEAR = 1e-7
"""Margin of every decision above which rounding cannot turn it."""


@st.composite
def cuts(draw: st.DrawFn) -> Context:
    """Contexts with any r down to one patch that is left."""
    ctx = draw(contexts())
    return dataclasses.replace(ctx, r=draw(st.integers(1, GraphCut().cap(ctx.x.shape[1], ctx.prefix))))


def compared(ctx: Context, method: GraphCut) -> int:
    """Compare with the reference; the images whose cut is well defined."""
    plan = method.choose(ctx)
    x, size = merge(plan, ctx.x, ctx.size)
    n, prefix, clear = ctx.x.shape[1], ctx.prefix, 0
    rows = {"k": ctx.heads.k.mean(dim=1), "v": ctx.heads.v.transpose(1, 2).flatten(2), "x": ctx.x}[method.metric]
    assert torch.equal(x[:, :prefix], ctx.x[:, :prefix])
    for image in range(2):
        k = n - prefix - ctx.r
        width = min(method.eigenvectors or k, k)
        cut = reference.Cut(rows[image, prefix:].tolist(), k, method.iterations, width)
        sizes = [1.0] * n if ctx.size is None else ctx.size[image].tolist()
        assert float(size[image].sum()) == sum(sizes)
        assert len(groups(plan, image)) == n - ctx.r
        if cut.margin < CLEAR:
            continue
        clear += 1
        expected = [[t] for t in range(prefix)] + [[patch + prefix for patch in group] for group in cut.groups]
        assert groups(plan, image) == expected
        means, totals = reference.means(expected, ctx.x[image].tolist(), sizes)
        assert size[image].tolist() == totals
        torch.testing.assert_close(x[image], torch.tensor(means, dtype=torch.float64), rtol=0, atol=1e-9)
    return clear


@given(cuts(), st.sampled_from([("k", "mean"), ("v", "concat"), ("x", "mean")]), st.integers(1, 5), st.integers(0, 4))
def test_equals_its_reference(ctx: Context, metric: tuple[str, str], iterations: int, eigenvectors: int) -> None:
    options = {"metric": metric[0], "heads": metric[1], "iterations": iterations, "eigenvectors": eigenvectors}
    compared(ctx, GraphCut(**options))  # type: ignore[arg-type]


def test_most_cuts_are_well_defined() -> None:
    """Or the comparison above would compare nothing."""
    assert sum(compared(make_context(12, 1, r, seed=r), GraphCut()) for r in range(1, 11)) >= 15


@given(cuts())
def test_images_of_a_batch_do_not_meet(ctx: Context) -> None:
    heads = Heads(*(each.flip(0) for each in ctx.heads[:3]))
    turned = dataclasses.replace(ctx, heads=heads, x=ctx.x.flip(0), x_pre=ctx.x_pre.flip(0))
    assert torch.equal(GraphCut().choose(turned).dest.flip(0), GraphCut().choose(ctx).dest)


def in_plane(keys: list[list[float]], r: int) -> Context:
    k = torch.tensor([[0.0] * len(keys[0]), *keys], dtype=torch.float64)[None, None]
    return dataclasses.replace(make_context(len(keys) + 1, 1, r, batch=1), heads=Heads(k, k, k))


def test_three_patches_worked_by_hand() -> None:
    """Keys a = (1, 0), b = (.8, .6), c = (0, 1): W = [1 .8 0; .8 1 .6; 0 .6 1], whose rows add up to 1.8, 2.4, 1.6.

    W maps (.8, -1, .6) to zero, so the eigenvector that is left out is D^1/2 times it, (1.073, -1.549, .759). What the
    other two span projects by I - vvᵀ/4.128: cosines of the rows are .733 (a, b), .475 (b, c) and -.250 (a, c). So a
    and c are seeds, being least like any before them, and b goes to a.
    """
    ctx = in_plane([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]], 1)
    rows = spectral_rows(ctx.heads.k[:, 0, 1:], 2)[0]
    expected = torch.tensor([[1, 0.7332, -0.2505], [0.7332, 1, 0.4745], [-0.2505, 0.4745, 1]], dtype=torch.float64)
    torch.testing.assert_close(rows @ rows.T, expected, rtol=0, atol=1e-4)
    assert groups(GraphCut().choose(ctx)) == [[0], [1, 2], [3]]


def test_two_groups_worked_by_hand() -> None:
    """Patches 1, 2, 5 and 3, 4, 6 share nothing: two eigenvalues are 0, all others 1.

    Any basis of those two gives all patches of a group one row, and the seeds are the first of each, 1 and 3.
    """
    keys = [[1.0, 0.0], [2.0, 0.0], [0.0, 1.0], [0.0, 3.0], [0.5, 0.0], [0.0, 1.0]]
    ctx = in_plane(keys, 4)
    assert groups(GraphCut().choose(ctx)) == [[0], [1, 2, 5], [3, 4, 6]]


def test_patches_that_look_away_from_each_other_are_as_far_as_ones_at_right_angles() -> None:
    """Negative cosines count as zero: 3 and 4 have nothing in common with anyone."""
    keys = [[1.0, 0.0, 0.0], [1.0, 0.1, 0.0], [-1.0, -0.1, 0.0], [0.0, 0.0, 1.0]]
    assert groups(GraphCut().choose(in_plane(keys, 1))) == [[0], [1, 2], [3], [4]]


def test_signs_and_the_basis_of_equal_eigenvalues_do_not_matter() -> None:
    """K-means sees distances of rows only."""
    points = torch.randn(2, 9, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    turn, _ = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1)))
    seeds = torch.tensor([[0, 2, 5, 6]] * 2)
    assert torch.equal(lloyd(points, seeds, 5), lloyd(points @ turn, seeds, 5))


@pytest.mark.parametrize("value", [0.0, float("nan"), float("inf")])
def test_keys_without_direction_are_cut_all_the_same(value: float) -> None:
    """A key of zeros is like none but itself; what is not finite stops no pass."""
    ctx = make_context(9, 1, 3, dtype=torch.float32)
    ctx.heads.k[0, :, 4] = value
    plan = GraphCut().choose(ctx)
    assert torch.equal(plan.dest.sort(dim=1).values.unique(), torch.arange(6))


def test_cap_and_cost() -> None:
    block = BlockSize(head_dim=4, heads_dim=8, token_dim=8)
    assert GraphCut().cap(13, 1) == 11
    assert GraphCut(iterations=2).cost(10, 3, block) == 100 * 4 + 4.5 * 1000 + 100 * 7 + 5 * 10 * 7 * 7
    assert GraphCut(iterations=2, eigenvectors=3).cost(10, 3, block) == 100 * 4 + 4.5 * 1000 + 100 * 3 + 5 * 10 * 7 * 3
