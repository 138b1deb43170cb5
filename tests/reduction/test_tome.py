"""Bipartite soft matching: equal to the slow reference for any shape, and deterministic where scores tie."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from reduction import tome_reference as reference
from reduction.contexts import make_context
from torch import Tensor

from tomebench.reduction.matching import bipartite_soft_matching, split_by_rank, split_by_sort
from tomebench.reduction.methods.flags import Options
from tomebench.reduction.plan import MergePlan


@st.composite
def shapes(draw: st.DrawFn, max_tokens: int = 26) -> tuple[int, int, int]:
    """N tokens, P of them prefix, r within the cap."""
    n = draw(st.integers(1, max_tokens))
    prefix = draw(st.integers(0, min(n, 5)))
    return n, prefix, draw(st.integers(0, (n - prefix) // 2))


def exact_rows(rng: np.random.Generator, n: int, zeros: bool = False) -> list[list[float]]:
    """Rows [n][4] whose lengths are powers of two, so that similarities are exact in fp32 and often tie."""
    rows = []
    for _ in range(n):
        row = rng.choice([-1.0, 1.0], 4) if rng.random() < 0.6 else rng.choice([-2.0, 2.0]) * np.eye(4)[rng.integers(4)]
        scale = 0.0 if zeros and rng.random() < 0.2 else 2.0 ** rng.integers(-3, 4)
        rows.append([float(value) * scale for value in row])
    return rows


def reference_dest(groups: list[list[int]]) -> list[int]:
    """Output slot of every token."""
    slots = {token: slot for slot, group in enumerate(groups) for token in group}
    return [slots[token] for token in range(len(slots))]


def assert_same_plan(plan: MergePlan, image: int, groups: list[list[int]]) -> None:
    """The plan puts the tokens of one image into exactly these groups, in this order."""
    assert plan.n_out == len(groups)
    assert plan.kept[image].tolist() == [group[0] for group in groups]
    assert plan.dest[image].tolist() == reference_dest(groups)


def test_the_plan_comparison_notices_a_difference() -> None:
    plan = bipartite_soft_matching(torch.eye(4)[None, [0, 0, 1, 1]], 1, 0)
    assert_same_plan(plan, 0, [[2], [1, 0], [3]])
    for wrong in ([[2], [1], [3, 0]], [[0], [1, 2], [3]], [[1, 0], [2], [3]], [[2], [0, 1], [3]]):
        with pytest.raises(AssertionError):
            assert_same_plan(plan, 0, wrong)


@given(shapes(), st.integers(1, 3), st.integers(0, 2**32 - 1), st.booleans())
@example((2, 0, 1), 1, 0, False)
@example((3, 1, 1), 1, 0, False)
@example((5, 5, 0), 1, 0, False)
@example((26, 0, 13), 3, 1, True)
def test_equals_the_reference_where_scores_are_exact_and_tie(
    shape: tuple[int, int, int], batch: int, seed: int, zeros: bool
) -> None:
    n, prefix, r = shape
    rng = np.random.default_rng(seed)
    metric = [exact_rows(rng, n, zeros) for _ in range(batch)]
    plan = bipartite_soft_matching(torch.tensor(metric), r, prefix)
    assert (plan.n_in, plan.n_out) == (n, n - r)
    for image in range(batch):
        assert_same_plan(plan, image, reference.match(metric[image], r, prefix))


@given(shapes(20), st.integers(2, 9), st.integers(0, 2**32 - 1))
def test_equals_the_reference_on_random_numbers(shape: tuple[int, int, int], width: int, seed: int) -> None:
    """Where the reference's choice is not decided by less than float32 can resolve, the plan is the same."""
    n, prefix, r = shape
    metric = np.random.default_rng(seed).normal(size=(n, width)).tolist()
    plan = bipartite_soft_matching(torch.tensor([metric], dtype=torch.float64), r, prefix)
    if decided_by(metric, r, prefix) > 1e-5:
        assert_same_plan(plan, 0, reference.match(metric, r, prefix))


def decided_by(metric: list[list[float]], r: int, prefix: int) -> float:
    """The smallest difference of similarities that the outcome hangs on."""
    if r == 0:
        return math.inf
    ranked = [sorted(scores.values(), reverse=True) for scores in reference.similarities(metric, prefix).values()]
    best = sorted((row[0] for row in ranked), reverse=True)
    gaps = [row[0] - row[1] for row in ranked if len(row) > 1]
    if r < len(best):
        gaps.append(best[r - 1] - best[r])
    return min(gaps, default=math.inf)


def test_the_smallest_gap_is_found() -> None:
    metric = [[1.0, 0.0], [0.6, 0.8], [0.0, 1.0], [0.8, 0.6]]
    # Token 0: .8 with 3 and .6 with 1. Token 2: .8 with 1 and .6 with 3. Which of 0 and 2 moves is a tie.
    assert decided_by(metric, 1, 0) == pytest.approx(0.0)
    assert decided_by(metric, 2, 0) == pytest.approx(0.2)
    assert decided_by(metric, 0, 0) == math.inf


def test_random_numbers_at_a_real_size() -> None:
    generator = torch.Generator().manual_seed(0)
    metric = torch.randn(2, 197, 64, generator=generator, dtype=torch.float64)
    plan = bipartite_soft_matching(metric, 16, 1)
    for image in range(2):
        rows = metric[image].tolist()
        assert decided_by(rows, 16, 1) > 1e-6
        assert_same_plan(plan, image, reference.match(rows, 16, 1))


@pytest.mark.parametrize(("n", "prefix", "r"), [(8, 0, 3), (9, 1, 4), (12, 5, 2), (197, 1, 98)])
def test_ties_go_to_the_lower_index(n: int, prefix: int, r: int) -> None:
    plan = bipartite_soft_matching(torch.ones(1, n, 3), r, prefix)
    free_a = [i for i in range(prefix, n) if i % 2 == 0]
    first_b = next(j for j in range(prefix, n) if j % 2 == 1)
    assert sorted(plan.moved[0].tolist()) == free_a[:r]
    assert plan.kept[0, plan.into[0]].tolist() == [first_b] * r


def test_the_class_token_counts_when_tokens_are_dealt_into_halves() -> None:
    """With one class token, patches 2, 4, ... move into patches 1, 3, ...; without it, 0, 2, ... into 1, 3, ..."""
    metric = torch.eye(3)[[0, 1, 1, 2, 2]][None]
    assert bipartite_soft_matching(metric, 1, 1).moved.tolist() == [[2]]
    assert bipartite_soft_matching(metric[:, 1:], 1, 0).moved.tolist() == [[0]]


@pytest.mark.parametrize("prefix", [0, 1, 2, 5])
def test_at_the_cap_every_free_token_of_a_can_go(prefix: int) -> None:
    n = 13
    cap = (n - prefix) // 2
    metric = torch.randn(2, n, 4, generator=torch.Generator().manual_seed(1))
    plan = bipartite_soft_matching(metric, cap, prefix)
    assert plan.n_out == n - cap
    assert plan.kept[:, :prefix].tolist() == [list(range(prefix))] * 2


@pytest.mark.parametrize(("n", "prefix", "r"), [(8, 0, 5), (8, 1, 4), (8, 8, 1), (3, 5, 1), (8, 0, -1)])
def test_r_beyond_the_cap_is_an_error_of_the_caller(n: int, prefix: int, r: int) -> None:
    with pytest.raises(ValueError, match=r"\br\b"):
        bipartite_soft_matching(torch.ones(1, n, 2), r, prefix)


@given(shapes(), st.integers(0, 2**32 - 1), st.permutations(range(4)))
def test_permuting_the_batch_permutes_the_plan(shape: tuple[int, int, int], seed: int, order: list[int]) -> None:
    n, prefix, r = shape
    rng = np.random.default_rng(seed)
    metric = torch.tensor([exact_rows(rng, n) for _ in range(4)])
    plan = bipartite_soft_matching(metric, r, prefix)
    permuted = bipartite_soft_matching(metric[order], r, prefix)
    assert torch.equal(permuted.dest, plan.dest[order])
    assert torch.equal(permuted.kept, plan.kept[order])


def test_permuting_random_images_permutes_the_plan() -> None:
    generator = torch.Generator().manual_seed(5)
    metric = torch.randn(6, 197, 64, generator=generator)
    order = torch.randperm(6, generator=generator)
    plan, permuted = (bipartite_soft_matching(m, 20, 1) for m in (metric, metric[order]))
    assert torch.equal(permuted.dest, plan.dest[order])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_the_same_input_gives_the_same_plan(dtype: torch.dtype) -> None:
    metric = torch.randn(3, 50, 8, generator=torch.Generator().manual_seed(2)).to(dtype)
    first, second = (bipartite_soft_matching(metric.clone(), 9, 1) for _ in range(2))
    assert torch.equal(first.dest, second.dest)
    assert torch.equal(first.kept, second.kept)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_scores_of_half_precision_metrics_are_computed_in_float32(dtype: torch.dtype) -> None:
    """Keys of a real model are alike: in half precision many of their similarities round to the same number."""
    metric = (1 + 0.2 * torch.randn(4, 197, 64, generator=torch.Generator().manual_seed(3))).to(dtype)
    half, full = (bipartite_soft_matching(m, 16, 1) for m in (metric, metric.float()))
    assert torch.equal(half.dest, full.dest)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_large_and_small_half_precision_metrics_do_not_overflow(scale: float) -> None:
    """The squares of 60 000 do not fit into fp16; the norm must not be taken in it."""
    metric = (torch.randn(1, 30, 16, generator=torch.Generator().manual_seed(4)) * scale).to(torch.float16)
    rows = metric[0].tolist()
    assert decided_by(rows, 5, 1) > 1e-5
    assert_same_plan(bipartite_soft_matching(metric, 5, 1), 0, reference.match(rows, 5, 1))


def test_a_row_of_zeros_is_like_nothing_and_gives_a_plan() -> None:
    metric = torch.zeros(1, 10, 4)
    plan = bipartite_soft_matching(metric, 4, 1)
    assert_same_plan(plan, 0, reference.match(metric[0].tolist(), 4, 1))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_metric_that_is_not_finite_still_gives_a_partition(bad: float) -> None:
    """Such a model is reported as nonfinite; the plan must not read or write out of range on the way there."""
    metric = torch.randn(2, 21, 4, generator=torch.Generator().manual_seed(6))
    metric[0, 4:9] = bad
    metric[1] = bad
    plan = bipartite_soft_matching(metric, 6, 1)
    for image in range(2):
        assert sorted(plan.kept[image].tolist() + plan.moved[image].tolist()) == list(range(21))
        assert plan.kept[image, 0] == 0
        assert plan.into[image].min() >= 1
        assert plan.into[image].max() < 15


def test_the_method_reads_keys_prefix_and_r_from_its_context() -> None:
    context = make_context(12, 1, 3, seed=7)
    metric = context.heads.k.mean(dim=1)
    assert torch.equal(Options().method().choose(context).dest, bipartite_soft_matching(metric, 3, 1).dest)


def test_no_gradient_flows_into_the_choice() -> None:
    metric: Tensor = torch.randn(1, 8, 4, requires_grad=True)
    plan = bipartite_soft_matching(metric, 2, 0)
    assert not plan.kept.requires_grad
    assert not plan.into.requires_grad


def test_autocast_does_not_change_the_matching():
    metric = torch.randn(4, 65, 32, generator=torch.Generator().manual_seed(0))
    plain = bipartite_soft_matching(metric, 20, 1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = bipartite_soft_matching(metric, 20, 1)
    assert torch.equal(plain.dest, cast.dest)


@given(st.integers(1, 40), st.integers(0, 40), st.integers(0, 2**31))
def test_the_split_without_a_sort_is_the_split_with_one(k: int, r: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    best = torch.randint(-3, 4, (3, k), generator=generator).float()  # many ties
    best[best == 3] = -math.inf
    for found, expected in zip(split_by_rank(best, min(r, k)), split_by_sort(best, min(r, k)), strict=True):
        assert torch.equal(found, expected)


def test_the_split_without_a_sort_survives_what_is_no_number() -> None:
    best = torch.tensor([[0.5, math.nan, math.inf, math.nan, -math.inf]])
    moved, rest = split_by_rank(best, 3)
    assert moved.tolist() == [[1, 2, 3]]
    assert rest.tolist() == [[0, 4]]
