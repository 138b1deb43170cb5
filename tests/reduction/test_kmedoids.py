"""K-medoids: equal to a reference of Python loops, and to an example worked by hand."""

from __future__ import annotations

import dataclasses
import math

import torch
from hypothesis import given
from hypothesis import strategies as st
from reduction.clusters_reference import kmedoids
from reduction.contexts import contexts
from reduction.groups import Groups, Rows, bias_of, check_against, groups_of, on_a_line
from reduction.options_reference import attention

from tomebench.reduction.method import Context
from tomebench.reduction.methods.kmedoids import Kmedoids
from tomebench.reduction.plan import merge


@given(contexts(Kmedoids.cap), st.sampled_from([1, 2, 3]), st.sampled_from(["cluster", "all"]))
def test_it_equals_its_reference(ctx: Context, iterations: int, medoid: str) -> None:
    def expected(image: int) -> tuple[Groups, Rows]:
        rows = ctx.x[image].tolist()
        q, k = ctx.heads.q[image].tolist(), ctx.heads.k[image].tolist()
        weight = attention(q, k, bias_of(ctx, image), range(len(rows)))
        groups = kmedoids(rows, weight, ctx.r, ctx.prefix, iterations, medoid)
        return groups, [rows[token] for token in groups]

    check_against(Kmedoids(iterations=iterations, medoid=medoid), ctx, expected)  # type: ignore[arg-type]


@given(contexts(Kmedoids.cap))
def test_what_is_left_is_left_bit_for_bit(ctx: Context) -> None:
    plan = Kmedoids().choose(ctx)
    x, _ = merge(plan, ctx.x, ctx.size)
    assert torch.equal(x, ctx.x.gather(1, plan.kept.unsqueeze(2).expand_as(x)))


def test_worked_by_hand() -> None:
    """A class token and six patches at 0, 3, 4, 7, 20 and 22, attended to by 6, 1, 1, 2, 3 and 1 parts of 15.

    From 0 and 20: {0, 3, 4, 7} and {20, 22}. Sums of w d² there: 0 has 9 + 16 + 98 = 123, 3 has 54 + 1 + 32 = 87,
    4 has 96 + 1 + 18 = 115, 7 has 294 + 16 + 9 = 319, so 3 is its medoid; in the second 20 has 4 and 22 has 12. The
    clusters stay as they are.
    """
    parts = [1, 6, 1, 1, 2, 3, 1]
    ctx = on_a_line([50, 0, 3, 4, 7, 20, 22], 4, queries=[math.log(part) for part in parts])
    plan = Kmedoids().choose(ctx)
    assert groups_of(plan) == {0: {0}, 2: {1, 2, 3, 4}, 5: {5, 6}}
    x, size = merge(plan, ctx.x, None)
    assert x.tolist() == [[[50], [3], [20]]]
    assert size.tolist() == [[1, 4, 2]]
    # Over all six: sums of d² are 958 at 0, 676 at 3, 606 at 4, 468 at 7, and times w 5748, 676, 606 and 936: 4 it is.
    # At 20 and 22: 1118 · 3 and 1398 · 1, so 22.
    assert groups_of(Kmedoids(medoid="all").choose(ctx)) == {0: {0}, 3: {1, 2, 3, 4}, 6: {5, 6}}


def test_equal_tokens_worked_by_hand() -> None:
    """Patches at 0, 0, 0, 1, 5, all attended to alike; the first three are the medoids, and the first gets 1 and 5.

    Its medoid is 1: 1 + 16 against 26 and 41. Then the first patch goes to the next cluster, as near as the third is.
    """
    ctx = on_a_line([0, 0, 0, 1, 5], 2, prefix=0)
    assert groups_of(Kmedoids(iterations=1).choose(ctx)) == {1: {1}, 2: {2}, 3: {0, 3, 4}}
    assert groups_of(Kmedoids().choose(ctx)) == {0: {0, 1}, 2: {2}, 3: {3, 4}}
    one = dataclasses.replace(ctx, r=4)
    assert groups_of(Kmedoids().choose(one)) == {3: {0, 1, 2, 3, 4}}  # 3 + 16 against 26 and 91


def test_attention_ignores_sizes_as_its_authors_do() -> None:
    assert not Kmedoids().counts_sizes
    assert Kmedoids(count_sizes=True).counts_sizes
