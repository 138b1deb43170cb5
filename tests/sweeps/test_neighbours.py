"""What a search tries next: what is cheaper and not known, the same for a seed; and what a staircase says of it."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tomebench.reduction.schedule import half_of_patches
from tomebench.runs.stairs import BlockTimes, Stair
from tomebench.sweeps.neighbours import LEAST_SAVED, Space, changes, propose

TOKENS, DEPTH = 65, 6


def space(cost=sum) -> Space:
    return Space(TOKENS, 1, DEPTH, half_of_patches, False, cost)


def asked(of: Space, layers, step, *, tried=(), rejected=(), count=8, seed="0"):
    return propose(of, layers, step, tried=tried, rejected=rejected, count=count, seed=seed)


def test_changes_by_hand():
    assert {*changes((2, 0), 1)} == {(3, 0), (2, 1), (1, 1), (1, 2), (0, 1)}
    assert {*changes((2, 0), 2)} == {(4, 0), (2, 2), (0, 2), (0, 4)}


layers = st.lists(st.integers(0, 8), min_size=DEPTH, max_size=DEPTH).map(tuple)


@settings(max_examples=60, deadline=None)
@given(layers, st.sampled_from([1, 2, 4]), st.lists(layers, max_size=3), st.integers(1, 12))
def test_every_proposal_is_cheaper_new_and_not_below_a_rejected_one(start, step, known, count):
    where = space()
    rejected = [where.trace(each).tokens for each in known]
    found = asked(where, start, step, tried=known, rejected=rejected, count=count)
    assert len(found) == len({*found}) <= count
    assert found == asked(where, start, step, tried=known, rejected=rejected, count=count)
    costs = [where.cost(where.trace(each).tokens) for each in found]
    assert costs == sorted(costs, reverse=True)
    for each, cost in zip(found, costs, strict=True):
        trace = where.trace(each)
        assert trace.r_layers == each != start
        assert each not in known
        assert cost < (1 - LEAST_SAVED) * where.cost(where.trace(start).tokens)
        assert not any(all(a <= b for a, b in zip(trace.tokens, other, strict=True)) for other in rejected)


def test_a_generation_goes_from_little_to_much_cheaper():
    where, start = space(), (4,) * DEPTH
    every = asked(where, start, 2, count=10_000)
    some = asked(where, start, 2, count=4)
    ranks = [every.index(each) for each in some]
    assert [rank * 4 // len(every) for rank in ranks] == [0, 1, 2, 3]
    assert {tuple(asked(where, start, 2, count=4, seed=str(seed))) for seed in range(5)} != {tuple(some)}


def test_what_the_last_block_slices_off_is_no_change():
    where = Space(TOKENS, 1, DEPTH, half_of_patches, True, sum)
    found = asked(where, where.asked((4,) * DEPTH), 2, count=1000)
    assert found
    assert {each[-1] for each in found} == {0}
    assert {len({*found})} == {len(found)}


def test_steps_of_the_hardware_are_used():
    """Where a block of more than 48 tokens takes as long as one of 64, only what gets below it is proposed."""
    stepped = space(lambda tokens: sum(64 if each > 48 else each for each in tokens))
    start = (0, 0, 0, 14, 0, 0)  # 51 tokens left
    found = asked(stepped, start, 3, count=1000)
    assert found
    assert all(min(stepped.trace(each).tokens) <= 48 for each in found)
    assert all(min(stepped.trace(each).tokens) > 48 for each in asked(space(), start, 1, count=1000) if sum(each) < 17)


@pytest.mark.parametrize("rounds", [1, 3])
def test_the_time_of_a_pass_by_hand(rounds):
    def times(ms):
        return (ms,) * rounds

    stairs = [
        Stair(n, times(1.0 * n), times(0.1 * n), sized=times(2.0 * n), removal=times(0.01 * n)) for n in (10, 20, 30)
    ]
    blocks = BlockTimes(stairs, 30)
    assert blocks.ms([30, 30]) == pytest.approx(2 * (30 + 3))
    # 30 to 20: attention and removal at 30, MLP at 20; then attention of merged tokens at 20, MLP at 20.
    assert blocks.ms([20, 20]) == pytest.approx((30 + 0.3 + 2) + (40 + 2))
    assert blocks.ms([15]) == pytest.approx(30 + 0.3 + 1.5)  # between two stairs
    assert blocks.ms([5]) == pytest.approx(30 + 0.3 + 1)  # as the lowest stair
    sliced = BlockTimes(stairs, 30, prefix_only=True)  # by the last block, at no cost
    assert sliced.ms([20, 10]) == pytest.approx((30 + 0.3 + 2) + (40 + 1))
    after = BlockTimes(stairs, 30, after_mlp=True)
    assert after.ms([20, 20]) == pytest.approx((30 + 0.3 + 3) + (40 + 2))
    assert all(a > b for a, b in pairwise(blocks.ms([n]) for n in (29, 25, 21, 15)))
