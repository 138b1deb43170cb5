"""The two controls of ToMe: its matching without merging, and its merging without matching."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from reduction.contexts import contexts, make_context

from tomebench.reduction.matching import random_numbers
from tomebench.reduction.method import Context, Heads
from tomebench.reduction.plan import merge
from tomebench.reduction.registry import get_method

CPU = torch.device("cpu")


@given(contexts(), st.sampled_from([{}, {"metric": "x"}, {"distance": "dot"}, {"partition": "random"}]))
def test_tome_drop_keeps_what_tome_keeps_bit_for_bit(ctx: Context, options: dict[str, str]) -> None:
    ours, tome = (get_method(name, options).choose(ctx) for name in ("tome-drop", "tome"))
    assert torch.equal(ours.kept, tome.kept)
    assert ours.moved.numel() == 0
    x, size = merge(ours, ctx.x, ctx.size)
    assert torch.equal(x, ctx.x.gather(1, tome.kept.unsqueeze(-1).expand_as(x)))
    if ctx.size is not None:
        assert torch.equal(size, ctx.size.gather(1, tome.kept)), "nothing grows"


def test_tome_drop_worked_by_hand() -> None:
    """Of A (2, 4, 6) token 6 points where 3 of B does, 2 nearly where 1 does; 4 is far from all."""
    keys = [[0.0, 0.0], [1.0, 0.0], [10.0, 1.0], [0.0, 1.0], [1.0, 1.0], [2.0, 0.5], [0.0, 3.0]]
    k = torch.tensor(keys, dtype=torch.float64)[None, None]
    x = torch.arange(7, dtype=torch.float64)[None, :, None]
    for r, left in ((1, [0, 2, 4, 1, 3, 5]), (2, [0, 4, 1, 3, 5])):
        ctx = make_context(7, 1, r)
        ctx = Context(x, x, Heads(k, k, k), None, None, r, 1, 0, 1, ctx.constants, True)
        assert get_method("tome-drop").choose(ctx).kept.tolist() == [left]


@given(contexts(), st.integers(0, 10))
def test_random_merge_is_the_mean_by_size_of_groups_of_a_and_b(ctx: Context, seed: int) -> None:
    plan = get_method("random-merge", {"seed": seed}).choose(ctx)
    x, size = merge(plan, ctx.x, ctx.size)
    n = ctx.x.shape[1]
    sizes = torch.ones(2, n) if ctx.size is None else ctx.size
    assert torch.equal(plan.kept[0], plan.kept[1])
    assert torch.equal(plan.moved[0], plan.moved[1])
    groups: dict[int, list[int]] = {slot: [token] for slot, token in enumerate(plan.kept[0].tolist())}
    for token, slot in zip(plan.moved[0].tolist(), plan.into[0].tolist(), strict=True):
        assert token % 2 == 0, "a source is of A"
        assert groups[slot][0] % 2 == 1, "a destination is of B"
        groups[slot].append(token)
    assert sorted(token for group in groups.values() for token in group) == list(range(n))
    for image, (slot, group) in itertools.product(range(2), groups.items()):
        total = sum(float(sizes[image, token]) for token in group)
        mean = sum(float(sizes[image, token]) * ctx.x[image, token] for token in group) / total
        assert float(size[image, slot]) == total
        torch.testing.assert_close(x[image, slot], mean, rtol=0, atol=1e-9)


def test_random_merge_draws_every_source_and_destination_about_as_often() -> None:
    method, sources, destinations = get_method("random-merge"), Counter[int](), Counter[int]()
    for layer in range(600):
        plan = method.choose(make_context(25, 1, 3, batch=1, layer=layer))
        sources.update(plan.moved[0].tolist())
        destinations.update(plan.kept[0].gather(0, plan.into[0]).tolist())
    assert {*sources} == {*range(2, 25, 2)}
    assert {*destinations} == {*range(1, 25, 2)}
    for found in (sources, destinations):  # 150 expected of each of twelve, 12 being a standard deviation
        assert 100 < min(found.values()) <= max(found.values()) < 200


@pytest.mark.parametrize("name", ["random-merge", "random-prune"])
def test_seeds_and_layers_draw_others(name: str) -> None:
    plans = [
        get_method(name, {"seed": seed}).choose(make_context(65, 1, 16, layer=layer))
        for seed, layer in itertools.product(range(4), range(4))
    ]
    assert len({(*plan.kept[0].tolist(), *plan.moved[0].tolist()) for plan in plans}) == 16


def test_random_numbers_are_those_of_their_seed_and_within_range() -> None:
    found = random_numbers(1000, "a", CPU)
    assert torch.equal(found, random_numbers(1000, "a", CPU))
    assert not torch.equal(found, random_numbers(1000, "b", CPU))
    assert 0 <= int(found.min()) < 2**24 < 2**30 < int(found.max()) < 2**31 - 1
    assert len({*found.tolist()}) > 990
