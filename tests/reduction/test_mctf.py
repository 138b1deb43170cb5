"""MCTF: equal to a reference of Python loops, and to an example worked by hand."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from hypothesis import given
from reduction.contexts import contexts
from reduction.groups import (
    Groups,
    Rows,
    bias_of,
    check_against,
    groups_of,
    mean_of,
    on_a_line,
    sizes_of,
)
from reduction.options_reference import attention, dot

from tomebench.reduction.method import Context
from tomebench.reduction.methods.mctf import Mctf
from tomebench.reduction.plan import merge

CAP = Mctf().cap


def matching(rows: Rows, received: list[float], size: list[float], r: int, prefix: int) -> Groups:
    patches = range(prefix, len(rows))
    of_a, of_b = [t for t in patches if t % 2 == 0], [t for t in patches if t % 2 == 1]
    rare = {t: (1 / received[t]) / max(1 / received[j] for j in patches) for t in patches}
    small = {t: (1 / size[t]) / max(1 / size[j] for j in patches) for t in patches}

    def attraction(i: int, j: int) -> float:
        cosine = dot(rows[i], rows[j]) / math.sqrt(dot(rows[i], rows[i]) * dot(rows[j], rows[j]))
        return (cosine + 1) / 2 * (rare[i] * rare[j]) ** (1 / 20) * (small[i] * small[j]) ** (1 / 40)

    def match(sources: list[int], others: list[int], count: int) -> dict[int, int]:
        best = {i: min((-attraction(i, j), j) for j in others) for i in sources} if count else {}
        return {i: best[i][1] for i in sorted(best, key=lambda i: (best[i][0], i))[:count]}

    from_a = match(of_a, of_b, math.ceil(r / 2))
    from_b = match(of_b, [t for t in of_a if t not in from_a], r // 2)
    groups = {t: [t] for t in range(len(rows)) if t not in from_a and t not in from_b}
    for i, j in from_b.items():
        groups[j].append(i)
    for i, j in from_a.items():
        groups[from_b.get(j, j)].append(i)
    return groups


@given(contexts(CAP))
def test_it_equals_its_reference(ctx: Context) -> None:
    def expected(image: int) -> tuple[Groups, Rows]:
        rows, size = ctx.x[image].tolist(), sizes_of(ctx, image)
        q, k = ctx.heads.q[image].tolist(), ctx.heads.k[image].tolist()
        received = attention(q, k, bias_of(ctx, image), range(len(rows)))
        groups = matching(rows, received, size, ctx.r, ctx.prefix)
        weight = [a * s for a, s in zip(received, size, strict=True)]
        return groups, [mean_of(rows, group, weight) for group in groups.values()]

    check_against(Mctf(), ctx, expected)


def turned(r: int, parts: list[int], size: list[float] | None = None) -> Context:
    """A class token and six patches that point 0, 10, 40, 90, 120 and 55 degrees up, attended to by these parts.

    Two patches an angle apart are (cos + 1)/2 = cos² of half of it alike.
    """
    ctx = on_a_line([0.0] * 7, r, queries=[math.log(part) for part in parts])
    angles = torch.tensor([0, 0, 10, 40, 90, 120, 55], dtype=torch.float64).deg2rad()
    x = torch.stack([angles.cos(), angles.sin()], dim=1)[None]
    return dataclasses.replace(ctx, x=x, size=None if size is None else torch.tensor([size]))


@pytest.mark.parametrize(
    ("r", "groups"),
    [
        (1, {1: {1, 2}}),  # of A, 2 is 10 degrees from 1, 6 is 15 from 3, and 4 is 30 from 5
        (2, {1: {1, 2}, 6: {3, 6}}),  # back: 3 is 15 from 6, 5 is 30 from 4, and 1 is 55 from 6, for 2 is gone
        (3, {1: {1, 2}, 3: {3, 6}, 4: {4, 5}}),  # two of A; then only 4 is left of it
        (4, {1: {1, 2}, 4: {3, 4, 5, 6}}),  # 3 is 50 from 4, and takes 6 along
    ],
)
def test_matching_worked_by_hand(r: int, groups: dict[int, set[int]]) -> None:
    found = groups_of(Mctf().choose(turned(r, [1] * 7)))
    assert {token: group for token, group in found.items() if len(group) > 1} == groups


def test_criteria_worked_by_hand() -> None:
    """Alike are 2 and 1 by cos² 5° = 0.992, 6 and 3 by cos² 7.5° = 0.983.

    With twice the attention 2 is attracted by (1/2)^(1/20) = 0.966 of that: 0.959, and 6 goes first. With four times
    the size 6 is attracted by (1/4)^(1/40) = 0.966 of that: 0.949, and 2 goes first again, with the weight of two.
    """
    parts = [1, 1, 2, 1, 1, 1, 1]
    ctx = turned(1, parts)
    plan = Mctf().choose(ctx)
    assert groups_of(plan)[3] == {3, 6}
    torch.testing.assert_close(merge(plan, ctx.x, None)[0][0, 3], (ctx.x[0, 3] + ctx.x[0, 6]) / 2)
    ctx = turned(1, parts, [1, 1, 1, 1, 1, 1, 4])
    plan = Mctf().choose(ctx)
    assert groups_of(plan)[1] == {1, 2}
    torch.testing.assert_close(merge(plan, ctx.x, ctx.size)[0][0, 1], (ctx.x[0, 1] + 2 * ctx.x[0, 2]) / 3)
    ctx = turned(1, [1] * 7, [1, 1, 1, 1, 1, 1, 4])
    ctx = dataclasses.replace(ctx, r=3)
    plan = Mctf().choose(ctx)
    assert groups_of(plan)[3] == {3, 6}
    torch.testing.assert_close(merge(plan, ctx.x, ctx.size)[0][0, 2], (ctx.x[0, 3] + 4 * ctx.x[0, 6]) / 5)


@pytest.mark.parametrize("prefix", range(4))
def test_the_cap_is_the_most_that_leaves_a_patch_of_a(prefix: int) -> None:
    for n in range(prefix, prefix + 8):
        in_a = len([t for t in range(prefix, n) if t % 2 == 0])
        in_b = n - prefix - in_a
        fits = [r for r in range(1, n) if r - r // 2 <= in_a - (r > 1) and in_b >= max(r // 2, 1)]
        assert CAP(n, prefix) == max(fits, default=0)
