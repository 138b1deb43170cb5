"""Schedules: the linear family, lists, what the cap leaves, and the traces of tokens that are known."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tomebench.errors import SpecError
from tomebench.reduction.schedule import CONSTANT, Schedule, parse_schedule, token_trace

DECREASING, INCREASING = parse_schedule("decreasing"), parse_schedule("increasing")


@pytest.mark.parametrize(
    ("schedule", "layers"),
    [
        ("constant", [8] * 12),
        ("decreasing", [16, 14, 13, 11, 10, 8, 7, 5, 4, 2, 1, 0]),
        ("increasing", [0, 1, 2, 4, 5, 7, 8, 10, 11, 13, 14, 16]),
        ("inflect:-0.5", [12, 11, 10, 9, 9, 8, 7, 6, 6, 5, 4, 4]),
        ("inflect:0", [8] * 12),
        ("list:1,2,3,4,5,6,7,8,9,10,11,12", list(range(1, 13))),
    ],
)
def test_r_8_over_12_layers(schedule: str, layers: list[int]) -> None:
    assert list(parse_schedule(schedule).r_layers(8, 12)) == layers


@given(st.integers(0, 200), st.integers(1, 60), st.floats(-1, 1))
@example(25, 24, -1.0)
@example(7, 32, 1.0)
@example(8, 12, 0.1)
def test_the_linear_family(r: int, depth: int, inflect: float) -> None:
    layers = Schedule(inflect=inflect).r_layers(r, depth)
    assert len(layers) == depth
    assert all(0 <= value <= 2 * r for value in layers)
    steps = [b - a for a, b in itertools.pairwise(layers)]
    assert all(step <= 0 for step in steps) or all(step >= 0 for step in steps)
    # The mean is r up to rounding down in every layer.
    assert r * depth - depth < sum(layers) <= r * depth
    if depth > 1:
        lo = int(r * (1 - inflect))
        assert abs(layers[0] - lo) <= (0 if inflect in (-1, 0, 1) else 1)


@given(st.integers(0, 200), st.integers(2, 60))
def test_decreasing_runs_from_2r_to_0_and_increasing_back(r: int, depth: int) -> None:
    assert (DECREASING.r_layers(r, depth)[0], DECREASING.r_layers(r, depth)[-1]) == (2 * r, 0)
    assert (INCREASING.r_layers(r, depth)[0], INCREASING.r_layers(r, depth)[-1]) == (0, 2 * r)
    exact = [2 * r * layer / (depth - 1) for layer in range(depth)]
    assert all(
        got <= want + 1e-9 < got + 1 + 2e-9 for got, want in zip(INCREASING.r_layers(r, depth), exact, strict=True)
    )
    assert set(CONSTANT.r_layers(r, depth)) == {r}


@pytest.mark.parametrize("schedule", ["constant", "decreasing", "increasing", "inflect:0.3"])
def test_one_block_removes_r(schedule: str) -> None:
    assert parse_schedule(schedule).r_layers(8, 1) == (8,)
    assert parse_schedule("list:5").r_layers(8, 1) == (5,)


@given(st.lists(st.integers(0, 300), min_size=1, max_size=40))
def test_a_list_is_used_as_it_is(layers: list[int]) -> None:
    schedule = parse_schedule("list:" + ",".join(map(str, layers)))
    assert schedule.r_layers(99, len(layers)) == tuple(layers)
    for depth in (len(layers) - 1, len(layers) + 1):
        with pytest.raises(SpecError, match=rf"{len(layers)} values? but the model has {depth} blocks?"):
            schedule.r_layers(99, depth)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "cannot be read"),
        ("constnat", "use constant, decreasing"),
        ("Constant", "cannot be read"),
        ("inflect", "cannot be read"),
        ("inflect:", "cannot be read"),
        ("inflect:x", "cannot be read"),
        ("inflect:1.5", "outside"),
        ("inflect:-1.001", "outside"),
        ("inflect:nan", "outside"),
        ("inflect:inf", "outside"),
        ("list:", "cannot be read"),
        ("list:8,,8", "cannot be read"),
        ("list:8.5", "cannot be read"),
        ("list:8,-1", "r >= 0"),
        ("list:" + "9" * 6000, "cannot be read"),
        ("constant:8", "cannot be read"),
    ],
)
def test_refuses_in_one_line(text: str, says: str) -> None:
    with pytest.raises(SpecError, match=says) as caught:
        parse_schedule(text)
    assert "\n" not in str(caught.value)


def test_refuses_a_negative_r_and_an_empty_list() -> None:
    with pytest.raises(SpecError, match="negative"):
        CONSTANT.r_layers(-1, 12)
    with pytest.raises(SpecError, match="r >= 0"):
        Schedule(layers=())


# --- traces -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("layers_with_r", "left"), [(24, 8), (8, 377), (16, 177), (22, 27)])
def test_the_published_traces_of_vit_l_at_384(layers_with_r: int, left: int) -> None:
    trace = token_trace([25] * layers_with_r + [0] * (24 - layers_with_r), 577, 1)
    assert trace.tokens[-1] == left
    assert trace.clamped is (layers_with_r == 24)


def test_the_cap_bites_from_16_on_at_12_layers_and_197_tokens() -> None:
    left = {r: token_trace([r] * 12, 197, 1) for r in range(25)}
    assert [r for r, trace in left.items() if trace.clamped] == list(range(16, 25))
    assert left[0].tokens == (197,) * 12
    assert left[8].tokens == tuple(range(189, 100, -8))
    assert left[15].tokens[-1] == 197 - 12 * 15
    assert left[16].tokens[-1] == 11
    assert left[16].r_layers == (*[16] * 11, 10)
    assert left[24].tokens[-1] == 2


@given(st.lists(st.integers(0, 400), min_size=1, max_size=30), st.integers(0, 600), st.integers(0, 6))
def test_never_more_than_half_of_what_is_not_prefix(asked: list[int], tokens: int, prefix: int) -> None:
    trace = token_trace(asked, tokens, prefix)
    before = [tokens, *trace.tokens[:-1]]
    for ask, applied, n, after in zip(asked, trace.r_layers, before, trace.tokens, strict=True):
        assert applied == min(ask, max(0, math.floor((n - prefix) / 2)))
        assert after == n - applied
        assert after >= min(prefix, n)
    assert trace.clamped is (list(trace.r_layers) != asked)
