"""DPC-KNN: equal to a reference of Python loops, and to an example worked by hand."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from reduction.contexts import contexts
from reduction.groups import Groups, Rows, check_against, groups_of, mean_of, on_a_line, sizes_of

from tomebench.reduction.method import Context
from tomebench.reduction.methods.dpc_knn import DpcKnn
from tomebench.reduction.plan import merge


def clusters(rows: Rows, r: int, prefix: int, neighbours: int) -> Groups:
    patches = range(prefix, len(rows))
    d = {(i, j): math.dist(rows[i], rows[j]) / math.sqrt(len(rows[0])) for i in patches for j in patches}
    density, score = {}, {}
    for i in patches:
        near = sorted(d[i, j] for j in patches)[:neighbours]
        density[i] = math.exp(-sum(each**2 for each in near) / len(near))
    for i in patches:
        to_denser = [d[i, j] for j in patches if density[j] > density[i]]
        score[i] = density[i] * min(to_denser or d.values())
        if not to_denser:
            score[i] = density[i] * max(d.values())
    centres = sorted(sorted(patches, key=lambda i: (-score[i], i))[: len(patches) - r])
    groups = {t: [t] for t in [*range(prefix), *centres]}
    for i in patches:
        if i not in centres:
            groups[min(centres, key=lambda centre: (d[i, centre], centre))].append(i)
    return groups


@given(contexts(DpcKnn.cap), st.sampled_from([1, 2, 5]), st.sampled_from(["plain", "size"]))
def test_it_equals_its_reference(ctx: Context, neighbours: int, mean: str) -> None:
    def expected(image: int) -> tuple[Groups, Rows]:
        rows = ctx.x[image].tolist()
        weight = sizes_of(ctx, image) if mean == "size" else [1.0] * len(rows)
        groups = clusters(rows, ctx.r, ctx.prefix, neighbours)
        return groups, [mean_of(rows, group, weight) for group in groups.values()]

    check_against(DpcKnn(neighbours=neighbours, mean=mean), ctx, expected)  # type: ignore[arg-type]


def test_worked_by_hand() -> None:
    """A class token at 50, and patches 1 to 7 at 0, 1, 2, 10, 11, 20, 3; two neighbours, one of them itself.

    Mean D²: 0.5 for 1, 2, 3, 4, 5 and 7, and 40.5 for 6, which is 9 from patch 5. The six are equally dense, and for
    each of them the distance is the largest of all, 20; to 6 it is 9. So of equals the first are centres.
    """
    ctx = on_a_line([50, 0, 1, 2, 10, 11, 20, 3], 5)
    assert groups_of(DpcKnn(neighbours=2).choose(ctx)) == {0: {0}, 1: {1}, 2: {2, 3, 4, 5, 6, 7}}
    # With three neighbours mean D²: 5/3 at 0 and 3, 2/3 at 1 and 2, 65/3 at 10, 82/3 at 11, 181/3 at 20. The densest, 1
    # and 2, have distance 20: exp(-2/3) 20 = 10.3. 0 and 3 are 1 from them: 0.19. The others: below 1e-8.
    assert groups_of(DpcKnn(neighbours=3).choose(ctx)) == {0: {0}, 2: {1, 2}, 3: {3, 4, 5, 6, 7}}
    three = dataclasses.replace(ctx, r=4)
    plan = DpcKnn(neighbours=3).choose(three)
    assert groups_of(plan) == {0: {0}, 1: {1}, 2: {2}, 3: {3, 4, 5, 6, 7}}
    assert merge(plan, three.x, None)[0][0, :, 0].tolist() == pytest.approx([50, 0, 1, (2 + 10 + 11 + 20 + 3) / 5])


def test_a_mean_by_size_worked_by_hand() -> None:
    ctx = on_a_line([0, 0, 1, 9], 1, prefix=0)  # 0 and 1 are the same token: the second is no further from the first
    ctx = dataclasses.replace(ctx, size=torch.tensor([[1.0, 1, 3, 1]]), r=2)
    by_size = merge(DpcKnn(neighbours=2, mean="size").choose(ctx), ctx.x, ctx.size)
    plain = merge(DpcKnn(neighbours=2).choose(ctx), ctx.x, ctx.size)
    # Mean D²: 0, 0, 0.5 and 32. Distance 9 for the first two, which are the centres; the others join the first.
    assert by_size[0][0, :, 0].tolist() == pytest.approx([12 / 5, 0])
    assert plain[0][0, :, 0].tolist() == pytest.approx([10 / 3, 0])
    assert by_size[1].tolist() == plain[1].tolist() == [[5, 1]]


def test_tokens_far_from_all_others_are_ranked_though_their_density_is_next_to_nothing() -> None:
    """exp(-D²) of distances in the hundreds is zero in every dtype; patch 3 is nearest to another, and 4 next."""
    ctx = on_a_line([0, 300, 700, 800, 1000], 3, prefix=0)
    # Mean D² of two: 45000, 45000, 5000, 5000, 20000; 2 and 3 come first, both with the largest distance, 1000.
    assert groups_of(DpcKnn(neighbours=2).choose(ctx)) == {2: {0, 1, 2}, 3: {3, 4}}


def test_attention_ignores_sizes_as_its_authors_do() -> None:
    assert not DpcKnn().counts_sizes
    assert DpcKnn(count_sizes=True).counts_sizes
