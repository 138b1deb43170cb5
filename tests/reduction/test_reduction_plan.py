"""Merge plans: what merging conserves, what it leaves alone, and how plans compose and are undone."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from reduction import tome_reference as reference
from torch import Tensor

from tomebench.reduction.matching import bipartite_soft_matching
from tomebench.reduction.plan import MergePlan, compose_sources, identity_plan, merge, unmerge


@st.composite
def plans(draw: st.DrawFn, drops: bool = False) -> MergePlan:
    """Any valid plan, of any method: tokens stay, move or (with ``drops``) vanish in any order, for 1 to 3 images."""
    n = draw(st.integers(1, 16))
    n_out = draw(st.integers(1, n))
    n_moved = draw(st.integers(0, n - n_out)) if drops else n - n_out
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    batch = draw(st.integers(1, 3))
    order = torch.tensor(np.stack([rng.permutation(n) for _ in range(batch)]))
    into = torch.tensor(rng.integers(0, n_out, (batch, n_moved)))
    return MergePlan.of(order[:, :n_out], order[:, n_out : n_out + n_moved], into, n)


def groups_of(plan: MergePlan, image: int) -> list[list[int]]:
    """Tokens of every output slot, the kept one first."""
    groups = [[token] for token in plan.kept[image].tolist()]
    for token, slot in zip(plan.moved[image].tolist(), plan.into[image].tolist(), strict=True):
        groups[slot].append(token)
    return groups


def tokens_and_sizes(plan: MergePlan, seed: int, channels: int = 3) -> tuple[Tensor, Tensor]:
    """Random float64 tokens [B, N, C] and whole sizes float32 [B, N] between 1 and 6."""
    generator = torch.Generator().manual_seed(seed)
    batch = plan.kept.shape[0]
    x = torch.randn(batch, plan.n_in, channels, dtype=torch.float64, generator=generator)
    size = torch.randint(1, 7, (batch, plan.n_in), generator=generator).float()
    return x, size


seeds = st.integers(0, 1000)


@given(plans(drops=True), seeds, st.booleans())
def test_equals_the_reference(plan: MergePlan, seed: int, sized: bool) -> None:
    x, size = tokens_and_sizes(plan, seed)
    merged, merged_size = merge(plan, x, size if sized else None)
    assert merged.dtype == torch.float64
    assert merged_size.dtype == torch.float32
    for image in range(len(x)):
        weights = size[image].tolist() if sized else [1.0] * plan.n_in
        rows, sizes = reference.merge(groups_of(plan, image), x[image].tolist(), weights)
        torch.testing.assert_close(merged[image], torch.tensor(rows, dtype=torch.float64), rtol=0, atol=1e-13)
        assert merged_size[image].tolist() == sizes


@given(plans(), seeds)
def test_conserves_the_number_of_patches_and_their_sum(plan: MergePlan, seed: int) -> None:
    x, size = tokens_and_sizes(plan, seed)
    merged, merged_size = merge(plan, x, size)
    assert torch.equal(merged_size.sum(1), size.sum(1))
    before, after = (size.double().unsqueeze(-1) * x).sum(1), (merged_size.double().unsqueeze(-1) * merged).sum(1)
    torch.testing.assert_close(after, before, rtol=0, atol=1e-12)
    _, from_ones = merge(plan, x, None)
    assert torch.equal(from_ones.sum(1), torch.full((len(x),), float(plan.n_in)))


@given(plans(), seeds)
def test_the_groups_partition_the_tokens(plan: MergePlan, seed: int) -> None:
    for image in range(plan.kept.shape[0]):
        assert sorted(token for group in groups_of(plan, image) for token in group) == list(range(plan.n_in))
        expected = {token: slot for slot, group in enumerate(groups_of(plan, image)) for token in group}
        assert plan.dest[image].tolist() == [expected[token] for token in range(plan.n_in)]


@given(plans(drops=True), seeds, st.sampled_from([torch.float32, torch.bfloat16, torch.float16]))
def test_a_token_that_nothing_joins_keeps_its_bits(plan: MergePlan, seed: int, dtype: torch.dtype) -> None:
    x, size = tokens_and_sizes(plan, seed)
    x = x.to(dtype)
    x[:, ::2, 0] = -0.0
    merged, _ = merge(plan, x, size)
    assert merged.dtype == dtype
    for image in range(len(x)):
        for slot, group in enumerate(groups_of(plan, image)):
            if len(group) == 1:
                bits = torch.int32 if dtype == torch.float32 else torch.int16
                assert torch.equal(merged[image, slot].view(bits), x[image, group[0]].view(bits))


@given(plans(), seeds)
def test_tokens_that_are_equal_merge_into_the_same_bits(plan: MergePlan, seed: int) -> None:
    x, size = tokens_and_sizes(plan, seed)
    x = x[:, :1].float().expand(-1, plan.n_in, -1)
    merged, _ = merge(plan, x, size)
    assert torch.equal(merged, x[:, : plan.n_out])


@given(plans(drops=True), seeds, st.permutations(range(3)))
def test_permuting_the_batch_permutes_the_result(plan: MergePlan, seed: int, order: list[int]) -> None:
    order = [image for image in order if image < plan.kept.shape[0]]
    x, size = tokens_and_sizes(plan, seed)
    permuted = MergePlan.of(plan.kept[order], plan.moved[order], plan.into[order], plan.n_in)
    for whole, part in zip(merge(plan, x, size), merge(permuted, x[order], size[order]), strict=True):
        assert torch.equal(part, whole[order])


def test_identity_is_the_plan_that_changes_nothing() -> None:
    plan = identity_plan(2, 5, torch.device("cpu"))
    x, size = tokens_and_sizes(plan, 0)
    merged, merged_size = merge(plan, x, size)
    assert torch.equal(merged, x)
    assert torch.equal(merged_size, size)
    assert torch.equal(unmerge(plan, x), x)
    assert plan.dest.tolist() == [[0, 1, 2, 3, 4]] * 2


def test_sizes_stay_exact_in_half_precision_models() -> None:
    """256 + 1 is 256 in bf16: sizes live in fp32 whatever the tokens are."""
    plan = MergePlan.of(torch.tensor([[1]]), torch.tensor([[0]]), torch.tensor([[0]]), 2)
    merged, size = merge(plan, torch.ones(1, 2, 4, dtype=torch.bfloat16), torch.tensor([[256.0, 1.0]]))
    assert merged.dtype == torch.bfloat16
    assert size.dtype == torch.float32
    assert size.tolist() == [[257.0]]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("n_moved", [1, 8, 60])
def test_half_precision_means_are_rounded_once(dtype: torch.dtype, n_moved: int) -> None:
    generator = torch.Generator().manual_seed(n_moved)
    x = torch.randn(1, n_moved + 1, 4096, generator=generator).to(dtype)
    size = torch.randint(1, 4, (1, n_moved + 1), generator=generator).float()
    into = torch.zeros(1, n_moved, dtype=torch.int64)
    plan = MergePlan.of(torch.tensor([[0]]), torch.arange(1, n_moved + 1)[None], into, n_moved + 1)
    exact = (x.double() * size.double().unsqueeze(-1)).sum(1) / size.double().sum(1, keepdim=True)
    error = (merge(plan, x, size)[0][:, 0].double() - exact).abs()
    # Rounded once: half a unit in the last place, and the fp32 sum's own error beside it.
    assert (error <= exact.abs() * torch.finfo(dtype).eps / 2 + 1e-5).all()


@given(plans(drops=True), seeds)
def test_unmerge_gives_every_token_the_value_of_its_slot(plan: MergePlan, seed: int) -> None:
    x, size = tokens_and_sizes(plan, seed)
    merged, _ = merge(plan, x, size)
    spread = unmerge(plan, merged)
    assert spread.shape == x.shape
    for image in range(len(x)):
        here = {token: slot for slot, group in enumerate(groups_of(plan, image)) for token in group}
        for token in range(plan.n_in):
            expected = merged[image, here[token]] if token in here else torch.zeros(3, dtype=torch.float64)
            assert torch.equal(spread[image, token], expected)
    if plan.kept.shape[1] + plan.moved.shape[1] == plan.n_in:
        again, _ = merge(plan, spread, size)
        torch.testing.assert_close(again, merged, rtol=0, atol=1e-13)


@given(st.integers(2, 24), st.integers(0, 3), st.integers(0, 2**32 - 1))
@example(24, 1, 0)
def test_merges_compose(n: int, prefix: int, seed: int) -> None:
    """After several layers the source map partitions the patches, sizes count them and values are their means."""
    prefix = min(prefix, n)
    generator = torch.Generator().manual_seed(seed)
    original = torch.randn(2, n, 4, dtype=torch.float64, generator=generator)
    x, size, source, plans_made = original, None, None, []
    while (x.shape[1] - prefix) // 2 > 0 and len(plans_made) < 4:
        r = int(torch.randint(1, (x.shape[1] - prefix) // 2 + 1, (), generator=generator))
        plan = bipartite_soft_matching(x, r, prefix)
        x, size = merge(plan, x, size)
        source = compose_sources(source, plan)
        plans_made.append(plan)
    if source is None or size is None:
        return
    back = x
    for plan in reversed(plans_made):
        back = unmerge(plan, back)
    for image in range(2):
        owner = source[image].tolist()
        assert set(owner) == set(range(x.shape[1]))
        assert owner[:prefix] == list(range(prefix))
        assert [owner.count(token) for token in range(x.shape[1])] == size[image].tolist()
        for token in range(x.shape[1]):
            members = original[image, [i for i, o in enumerate(owner) if o == token]]
            torch.testing.assert_close(x[image, token], members.mean(0), rtol=0, atol=1e-12)
        assert torch.equal(back[image], x[image, owner])
    assert torch.equal(x[:, :prefix], original[:, :prefix])


def test_sources_remember_what_was_dropped() -> None:
    drop = MergePlan.of(torch.tensor([[0, 2]]), torch.zeros(1, 0, dtype=torch.int64), torch.zeros(1, 0).long(), 3)
    join = MergePlan.of(torch.tensor([[1]]), torch.tensor([[0]]), torch.tensor([[0]]), 2)
    assert compose_sources(None, drop).tolist() == [[0, -1, 1]]
    assert compose_sources(compose_sources(None, drop), join).tolist() == [[0, -1, 0]]


def plain_merge(plan: MergePlan, x: Tensor, size: Tensor) -> Tensor:
    """The weighted means as one dense product that autograd knows how to differentiate."""
    weight = torch.zeros(len(x), plan.n_out, plan.n_in, dtype=x.dtype)
    for image, dest in enumerate(plan.dest.tolist()):
        for token, slot in enumerate(dest):
            if slot >= 0:
                weight[image, slot, token] = size[image, token]
    return (weight / weight.sum(dim=2, keepdim=True)) @ x


@given(plans(drops=True), seeds)
def test_gradients_are_those_of_the_plain_form(plan: MergePlan, seed: int) -> None:
    x, size = tokens_and_sizes(plan, seed)
    pull = torch.randn(plan.n_out, x.shape[2], dtype=x.dtype, generator=torch.Generator().manual_seed(seed))
    grads = []
    for form in (lambda t: merge(plan, t, size)[0], lambda t: plain_merge(plan, t, size)):
        tokens = x.clone().requires_grad_(True)
        out = form(tokens)
        grads.append((out.detach(), *torch.autograd.grad((out * pull).sum(), tokens)))
    torch.testing.assert_close(grads[0], grads[1], rtol=0, atol=1e-12)


@pytest.mark.parametrize("sized", [False, True])
def test_gradients_flow_through_the_merge(sized: bool) -> None:
    plan = bipartite_soft_matching(torch.randn(2, 9, 3, generator=torch.Generator().manual_seed(0)), 3, 1)
    x, size = tokens_and_sizes(plan, 1)
    x.requires_grad_(True)
    assert torch.autograd.gradcheck(lambda t: merge(plan, t, size if sized else None)[0], (x,))
    assert torch.autograd.gradgradcheck(lambda t: merge(plan, t, size)[0].square(), (x,))
    assert torch.autograd.gradcheck(lambda t: unmerge(plan, merge(plan, t, size)[0]), (x,))


def test_merging_is_the_same_from_run_to_run() -> None:
    plan = bipartite_soft_matching(torch.randn(4, 197, 8, generator=torch.Generator().manual_seed(0)), 60, 1)
    x = torch.randn(4, 197, 32, generator=torch.Generator().manual_seed(1))
    first, second = (merge(plan, x.clone(), None)[0] for _ in range(2))
    assert torch.equal(first, second)


def test_the_input_is_left_alone() -> None:
    plan = bipartite_soft_matching(torch.randn(2, 9, 3), 3, 1)
    x, size = tokens_and_sizes(plan, 1)
    before = x.clone(), size.clone()
    merged, merged_size = merge(plan, x, size)
    merged.zero_()
    merged_size.zero_()
    assert torch.equal(x, before[0])
    assert torch.equal(size, before[1])


def test_merging_away_from_the_cpu_has_the_same_shapes() -> None:
    """Other devices sum by a product; the meta device runs it without numbers."""
    plan = bipartite_soft_matching(torch.randn(2, 21, 3, generator=torch.Generator().manual_seed(0)), 8, 1)
    meta = MergePlan.of(plan.kept.to("meta"), plan.moved.to("meta"), plan.into.to("meta"), plan.n_in)
    merged, size = merge(meta, torch.empty(2, 21, 5, device="meta", dtype=torch.bfloat16), None)
    assert (merged.shape, merged.dtype) == ((2, 13, 5), torch.bfloat16)
    assert (size.shape, size.dtype) == ((2, 13), torch.float32)
    assert unmerge(meta, merged).shape == (2, 21, 5)


@pytest.mark.parametrize("images", [1, 3])
def test_sums_by_a_product_are_those_in_order(images: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What other devices do, with several tokens in a slot, and in no image the sums of another."""
    generator = torch.Generator().manual_seed(images)
    order = torch.stack([torch.randperm(41, generator=generator) for _ in range(images)])
    into = torch.randint(0, 6, (images, 12), generator=generator)
    plan = MergePlan.of(order[:, :29], order[:, 29:], into, 41)
    x = torch.randn(images, 41, 5, generator=generator)
    size = torch.randint(1, 9, (images, 41), generator=generator).float()
    in_order = merge(plan, x, size)
    monkeypatch.setattr("tomebench.reduction.plan._adds_in_order", lambda x: False)
    by_product = merge(plan, x, size)
    torch.testing.assert_close(by_product[0], in_order[0], rtol=1e-5, atol=1e-5)
    assert torch.equal(by_product[1], in_order[1])
    for image in range(images):
        alone = MergePlan.of(plan.kept[[image]], plan.moved[[image]], plan.into[[image]], 41)
        expected = merge(alone, x[[image]], size[[image]])[0]
        torch.testing.assert_close(by_product[0][[image]], expected, rtol=1e-5, atol=1e-5)


def test_cpu_and_cuda_make_the_same_plan_and_merge(accelerator: str) -> None:
    generator = torch.Generator().manual_seed(0)
    # Signs in sixteen dimensions: lengths of 4, so similarities are exact everywhere, and often tie.
    metric = torch.randint(0, 2, (8, 197, 16), generator=generator).float() * 2 - 1
    x, size = torch.randn(8, 197, 32, generator=generator), torch.randint(1, 9, (8, 197), generator=generator).float()
    here = bipartite_soft_matching(metric, 40, 1)
    there = [bipartite_soft_matching(metric.to(accelerator), 40, 1) for _ in range(3)]
    merged, merged_size = merge(here, x, size)
    for plan in there:
        assert torch.equal(plan.kept.cpu(), here.kept)
        assert torch.equal(plan.dest.cpu(), here.dest)
        first, again = (merge(plan, x.to(accelerator), size.to(accelerator)) for _ in range(2))
        assert torch.equal(first[0], again[0])
        assert torch.equal(first[1].cpu(), merged_size)
        torch.testing.assert_close(first[0].cpu(), merged, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_does_not_round_the_means(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tomebench.reduction.plan._adds_in_order", lambda x: False)  # as on other devices: by a product
    plan = bipartite_soft_matching(torch.randn(2, 21, 3, generator=torch.Generator().manual_seed(0)), 8, 1)
    x, size = (t.float() for t in tokens_and_sizes(plan, 1))
    expected = merge(plan, x, size)[0]
    with torch.autocast("cpu", dtype):
        assert torch.equal(merge(plan, x, size)[0], expected)


def _loop_sums(plan: MergePlan, x: torch.Tensor, weight: torch.Tensor, *, mean: bool) -> torch.Tensor:
    out = torch.zeros(x.shape[0], plan.n_out, x.shape[2], dtype=torch.float64)
    for image, dest in enumerate(plan.dest.tolist()):
        total = [0.0] * plan.n_out
        for token, slot in enumerate(dest):
            if slot >= 0:
                out[image, slot] += weight[image, token].double() * x[image, token].double()
                total[slot] += float(weight[image, token])
        if mean:
            out[image] /= torch.tensor(total, dtype=torch.float64).unsqueeze(1)
    return out


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("mean", [False, True])
def test_weights_of_a_plan_are_those_of_its_sums_and_means(dtype: torch.dtype, mean: bool) -> None:
    """Token 1 is dropped, 3 and 4 join slot 1, 5 joins slot 2, slots 0 and 3 keep a token as it is."""
    torch.manual_seed(0)
    kept, moved, into = [[0, 2, 6, 7]] * 2, [[3, 4, 5]] * 2, [[1, 1, 2]] * 2
    plan = MergePlan.of(torch.tensor(kept), torch.tensor(moved), torch.tensor(into), 8)
    x, weight = torch.randn(2, 8, 5).to(dtype), torch.rand(2, 8) + 0.1
    weight[:, [0, 7]] = weight[:, [0, 7]] if mean else 1.0
    ours = plan.averaged(weight) if mean else plan.summed(weight)
    out, size = merge(ours, x, None)
    expected = _loop_sums(plan, x, weight, mean=mean)
    torch.testing.assert_close(out.double(), expected, rtol=0, atol=2e-2 if dtype == torch.bfloat16 else 1e-6)
    assert torch.equal(out[:, [0, 3]], x[:, [0, 7]]), "a token alone is the token, bit for bit"
    assert size.tolist() == [[1.0, 3.0, 2.0, 1.0]] * 2


def test_weights_of_zero_are_a_plain_mean_and_growth_is_what_a_moved_token_adds() -> None:
    plan = MergePlan.of(torch.tensor([[0, 1]]), torch.tensor([[2]]), torch.tensor([[1]]), 3)
    x = torch.tensor([[[1.0], [2.0], [6.0]]])
    out, _ = merge(plan.averaged(torch.zeros(1, 3)), x, None)
    assert out.flatten().tolist() == [1.0, 4.0]
    grown = dataclasses.replace(plan, growth=torch.tensor([0.25]))
    out, size = merge(grown, x, torch.tensor([[1.0, 1.0, 3.0]]))
    assert size.tolist() == [[1.0, 1.25]]
    assert out.flatten().tolist() == [1.0, 5.0], "the mean is by size, whatever the size grows by"
