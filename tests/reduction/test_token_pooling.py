"""Token pooling: equal to a reference of Python loops, and to examples worked by hand."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from reduction.clusters_reference import kmeans
from reduction.contexts import contexts
from reduction.groups import Groups, Rows, bias_of, check_against, groups_of, mean_of, on_a_line
from reduction.options_reference import attention

from tomebench.reduction.method import Context
from tomebench.reduction.methods.token_pooling import TokenPooling
from tomebench.reduction.plan import merge


def check(ctx: Context, iterations: int) -> None:
    def expected(image: int) -> tuple[Groups, Rows]:
        rows = ctx.x[image].tolist()
        q, k = ctx.heads.q[image].tolist(), ctx.heads.k[image].tolist()
        weight = attention(q, k, bias_of(ctx, image), range(len(rows)))
        groups = kmeans(rows, weight, ctx.r, ctx.prefix, iterations)
        return groups, [mean_of(rows, group, weight) for group in groups.values()]

    check_against(TokenPooling(iterations=iterations), ctx, expected)


@given(contexts(TokenPooling.cap), st.sampled_from([1, 2, 5]))
def test_it_equals_its_reference(ctx: Context, iterations: int) -> None:
    check(ctx, iterations)


@given(contexts(TokenPooling.cap), st.integers(1, 5))
def test_no_cluster_is_empty_though_few_tokens_differ(ctx: Context, distinct: int) -> None:
    x = ctx.x.clone()
    x[:, ctx.prefix + distinct :] = x[:, ctx.prefix : ctx.prefix + 1]
    plan = TokenPooling().choose(dataclasses.replace(ctx, x=x))
    for image in range(2):
        groups = groups_of(plan, image)
        assert len(groups) == plan.n_out
        assert sorted(token for group in groups.values() for token in group) == list(range(plan.n_in))


def test_worked_by_hand() -> None:
    """A class token and six patches at 0, 1, 4, 5, 9, 10, attended to by weights of 4, 1, 3, 1, 1 and 2 parts.

    The three heaviest, at 0, 4 and 10, are the centres: {0, 1}, {4, 5} and {9, 10}, whose means (4·0 + 1)/5 = 0.2,
    (3·4 + 5)/4 = 4.25 and (9 + 2·10)/3 = 9.67 keep them. With two centres, 0 and 4: {0, 1} and {4, 5, 9, 10}, whose
    mean is (12 + 5 + 9 + 20)/7 = 6.57; then 4 is nearer to it, too.
    """
    parts = [1, 4, 1, 3, 1, 1, 2]
    ctx = on_a_line([50, 0, 1, 4, 5, 9, 10], 3, queries=[math.log(part) for part in parts])
    plan = TokenPooling().choose(ctx)
    assert groups_of(plan) == {0: {0}, 1: {1, 2}, 3: {3, 4}, 6: {5, 6}}
    x, size = merge(plan, ctx.x, None)
    assert x[0, :, 0].tolist() == pytest.approx([50, 0.2, 4.25, 29 / 3])
    assert size.tolist() == [[1, 2, 2, 2]]
    two = dataclasses.replace(ctx, r=4)
    x, size = merge(TokenPooling().choose(two), two.x, None)
    assert x[0, :, 0].tolist() == pytest.approx([50, 0.2, 46 / 7])
    assert size.tolist() == [[1, 2, 4]]


def test_iterations_worked_by_hand() -> None:
    """Patches at 0, 2, 3 and 9, the first two heaviest: {0} and {2, 3, 9}, with a mean of 14/3 from which 2 goes to 0.

    Then the means are 1 and 6, and 3 goes to the first: {0, 2, 3}, {9}.
    """
    ctx = on_a_line([0, 2, 3, 9], 2, prefix=0)
    assert groups_of(TokenPooling(iterations=1).choose(ctx)) == {0: {0}, 1: {1, 2, 3}}
    assert groups_of(TokenPooling(iterations=2).choose(ctx)) == {0: {0, 1}, 2: {2, 3}}
    assert groups_of(TokenPooling(iterations=3).choose(ctx)) == {0: {0, 1, 2}, 3: {3}}
    x, _ = merge(TokenPooling().choose(ctx), ctx.x, None)
    assert x[0, :, 0].tolist() == pytest.approx([5 / 3, 9])


def test_an_empty_cluster_takes_the_farthest_patch() -> None:
    """Of three equal centres the first gets all patches; 5 and then 4 are farthest from it and fill the other two."""
    ctx = on_a_line([0, 0, 0, 1, 5], 2, prefix=0)
    assert groups_of(TokenPooling(iterations=1).choose(ctx)) == {0: {0, 1, 2}, 3: {3}, 4: {4}}
    ctx = on_a_line([0, 0, 0, 0, 0], 2, prefix=0)  # nothing is farther than anything: the lower index goes
    plan = TokenPooling(iterations=1).choose(ctx)
    assert groups_of(plan) == {0: {0, 3, 4}, 1: {1}, 2: {2}}
    assert torch.equal(merge(plan, ctx.x, None)[0], torch.zeros(1, 3, 1, dtype=torch.float64))


def test_attention_ignores_sizes_as_its_authors_do() -> None:
    assert not TokenPooling().counts_sizes
    assert TokenPooling(count_sizes=True).counts_sizes
