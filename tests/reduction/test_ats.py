"""ATS: equal to a reference of Python loops and to an example by hand; padding changes nothing that is computed."""

from __future__ import annotations

import dataclasses
import itertools
import math

import pytest
import torch
from backbones.zoo import build
from hypothesis import given
from hypothesis import strategies as st
from reduction import options_reference as reference
from reduction.contexts import contexts, make_context
from torch import Tensor, nn

from tomebench.backbones.adapt import adapt
from tomebench.backbones.apply import apply
from tomebench.errors import SpecError
from tomebench.reduction.constants import Constants
from tomebench.reduction.method import Context, Heads
from tomebench.reduction.methods.ats import Ats
from tomebench.reduction.plan import MergePlan, merge
from tomebench.reduction.registry import get_method
from tomebench.reduction.schedule import all_but_one_patch
from tomebench.reduction.tokens import Tokens
from tomebench.reduction.vit import ReducedViT
from tomebench.schema import Route

NORMS = ("token", "head")


def scores(ctx: Context, image: int, norm: str) -> list[float]:
    """Score of every token."""
    n, heads = ctx.x.shape[1], ctx.heads.q.shape[1]
    size = [1.0] * n if ctx.bias_size is None else ctx.bias_size[image].tolist()
    asking = [0] if ctx.class_token else [i for i in range(n) if ctx.size is None or ctx.size[image, i] > 0]
    q, k, v = (each[image].tolist() for each in ctx.heads[:3])
    a = [reference.attention(q[h : h + 1], k[h : h + 1], size, asking) for h in range(heads)]
    length = [[math.hypot(*v[h][i]) for i in range(n)] for h in range(heads)]
    if norm == "head":
        return [sum(a[h][i] * length[h][i] for h in range(heads)) for i in range(n)]
    whole = [math.hypot(*(length[h][i] for h in range(heads))) for i in range(n)]
    return [sum(a[h][i] for h in range(heads)) * whole[i] for i in range(n)]


def sampled(score: list[float], samples: int) -> list[int]:
    """Patches at the middles of so many equal parts of the scores' sum, in ascending order of score."""
    total, order, found = sum(score), sorted(range(len(score)), key=lambda i: (score[i], i)), set()
    for i in range(samples):
        reached = 0.0
        for patch in order:
            reached += score[patch]
            if reached / total >= (2 * i + 1) / (2 * samples):
                found.add(patch)
                break
    return sorted(found)


def masked(ctx: Context, seed: int) -> Context:
    """The same with some patches padding."""
    size = torch.randint(0, 2, ctx.x.shape[:2], generator=torch.Generator().manual_seed(seed)).float()
    size[:, : ctx.prefix + 1] = 1  # a patch at least is always left
    return dataclasses.replace(ctx, size=size, bias_size=size)


@given(contexts(all_but_one_patch), st.sampled_from(NORMS), st.none() | st.integers(0, 99))
def test_equals_the_reference(ctx: Context, norm: str, padding: int | None) -> None:
    ctx = dataclasses.replace(ctx, size=None, bias_size=None) if padding is None else masked(ctx, padding)
    plan = get_method("ats", {"norm": norm}).choose(ctx)
    x, size = merge(plan, ctx.x, ctx.size)
    n, prefix = ctx.x.shape[1], ctx.prefix
    for image in range(2):
        kept = sampled(scores(ctx, image, norm)[prefix:], n - prefix - ctx.r)
        expected = [*range(prefix), *(patch + prefix for patch in kept)]
        assert torch.equal(x[image, : len(expected)], ctx.x[image, expected])
        assert size[image].tolist() == [1.0] * len(expected) + [0.0] * (n - ctx.r - len(expected))
        assert (plan.dest[image] >= 0).nonzero().flatten().tolist() == expected
        assert len({*plan.kept[image].tolist()}) == n - ctx.r, "no token is in two slots"


def example(r: int, size: list[float] | None = None) -> Context:
    """Two heads, whose class tokens attend to the class token and patches 1 to 6 alike: of each head 1/7.

    Values are 3 and 4 times 1, 2, 3, 4, 5, 5 long in the two heads, and so 5, 10, 15, 20, 25, 25 side by side.
    """
    length = torch.tensor([9.0, 1, 2, 3, 4, 5, 5], dtype=torch.float64)
    v = torch.stack([3 * length, -4 * length])[None, :, :, None]
    q = torch.zeros_like(v)
    x = torch.arange(7, dtype=torch.float64)[None, :, None]
    sizes = None if size is None else torch.tensor([size])
    return Context(x, x, Heads(q, q, v), sizes, sizes, r, 1, 0, 1, Constants(), True)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(
    ("r", "left"),
    [
        # Shares 1, 2, 3, 4, 5, 5 of 20: F is 0.05, 0.15, 0.3, 0.5, 0.75, 1. Samples of the five in tenths: 1, 3, 5, ...
        (1, [2, 3, 4, 5, 6]),
        (2, [2, 4, 5, 6]),  # 1/8, 3/8, 5/8, 7/8
        (3, [3, 4, 6]),  # 1/6, 3/6, 5/6
        (4, [3, 5]),  # 1/4, 3/4
        (5, [4]),  # 1/2
    ],
)
def test_worked_by_hand(r: int, norm: str, left: list[int]) -> None:
    plan = get_method("ats", {"norm": norm}).choose(example(r))
    assert plan.kept[0, : len(left) + 1].tolist() == [0, *left]
    assert plan.n_out == 7 - r
    assert plan.size is not None
    assert plan.size.tolist() == [1.0] * (len(left) + 1) + [0.0] * (6 - r - len(left))


def test_padding_is_never_sampled() -> None:
    """Without patches 2 and 5 shares are 1, 3, 4, 5 of 13; the samples are at 1/10 to 9/10 in fifths."""
    plan = get_method("ats").choose(example(1, [1, 1, 0, 1, 1, 0, 1]))
    assert plan.kept[0, :4].tolist() == [0, 3, 4, 6]
    assert plan.size is not None
    assert plan.size.tolist() == [1, 1, 1, 1, 0, 0]


def test_where_nothing_scores_a_patch_is_left() -> None:
    """Values of length zero: no sample falls on any patch, and the last one is padding."""
    ctx = example(1, [1, 1, 1, 1, 1, 0, 0])
    ctx.heads.v.zero_()
    assert get_method("ats").choose(ctx).dest.tolist() == [[0, -1, -1, -1, 1, -1, -1]]


class Ragged(nn.Module):
    """The pass of one image whose tokens are really gone, in loops over blocks: no padding, no mask."""

    def __init__(self, vit: nn.Module, r_layers: tuple[int, ...]) -> None:
        super().__init__()
        self.backbone, self.r_layers = adapt(vit), r_layers

    def features(self, image: Tensor) -> Tensor:
        x, prefix = self.backbone.embed(image).x, self.backbone.prefix
        slots = x.shape[1]
        for layer, r in enumerate(self.r_layers):
            x, (q, k, v, *_) = self.backbone.attention(layer, Tokens(x), "auto")
            if r:
                slots -= r
                attention = (q @ k.transpose(2, 3) / math.sqrt(q.shape[3])).softmax(dim=3)[0]
                received = attention[:, 0] if self.backbone.class_token else attention.mean(dim=1)
                score = received.sum(dim=0) * v[0].square().sum(dim=(0, 2)).sqrt()
                kept = sampled(score[prefix:].tolist(), slots - prefix)
                x = x[:, [*range(prefix), *(patch + prefix for patch in kept)]]
            x = self.backbone.mlp(layer, x)
        return self.backbone.norm(x)

    def forward(self, images: Tensor) -> Tensor:
        return torch.cat([self.backbone.head(self.features(image[None]), None, True) for image in images])


R = (0, 5, 3, 4, 0, 2)
ROUTES: tuple[Route, ...] = ("auto", "padded", "matmul", "augmented")
MODELS = {
    "class token": {},
    "registers": {"reg_tokens": 4, "global_pool": "avg", "class_token": False, "fc_norm": True},
    "max": {"global_pool": "max"},
    "avgmax": {"global_pool": "avgmax"},
    "attention pooling": {"class_token": False, "global_pool": "map"},
}


def pictures() -> Tensor:
    return torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


@pytest.mark.parametrize("kind", MODELS)
@torch.no_grad()
def test_padding_changes_nothing(kind: str) -> None:
    vit = build("test_vit", {"img_size": 64, "patch_size": 8, "depth": 6, **MODELS[kind]}).double()
    ragged = Ragged(vit, R)
    expected, left = ragged(pictures()), [ragged.features(image[None]).shape[1] for image in pictures()]
    assert len({*left}) > 1, "or images would not differ"
    for route, prop_attn in itertools.product(ROUTES, (True, False)):
        padded = apply(vit, R, method="ats", attention=route, prop_attn=prop_attn)
        torch.testing.assert_close(padded(pictures()), expected, rtol=1e-9, atol=1e-9)
        assert padded.tokens_left(pictures()).tolist() == left
    sources = padded.source_map(pictures())
    assert (sources >= 0).sum(dim=1).tolist() == left
    features, size = padded.features_and_sizes(pictures())
    assert torch.equal(padded.forward_head(features, size=size), padded(pictures()))
    if not padded.backbone.head_reads_prefix_only:
        with pytest.raises(SpecError, match="which features do not say"):
            padded.forward_head(features)


@dataclasses.dataclass(frozen=True)
class Undeclared(Ats):
    """Pads its plans and does not say so."""

    pads = False


@torch.no_grad()
def test_padding_that_is_not_declared_is_refused() -> None:
    """Without it nothing would mask padding, and it would count as a token."""
    reduced = ReducedViT(adapt(build("test_vit", {})), Undeclared(), [4] * 6)
    with pytest.raises(SpecError, match="method Undeclared pads its plans; declare pads = True"):
        reduced(torch.zeros(1, 3, 160, 160))


@torch.no_grad()
def test_other_methods_leave_as_many_tokens_in_every_image() -> None:
    vit = build("test_vit", {"img_size": 64, "patch_size": 8, "depth": 6}).double()
    for method in ("tome", "topk"):
        assert apply(vit, R, method=method).tokens_left(pictures()).tolist() == [65 - sum(R)] * 4


def test_a_plan_without_padding_says_so() -> None:
    plan = MergePlan.sampling(torch.tensor([[True, False, True, True]]), 3)
    assert plan.kept.tolist() == [[0, 2, 3]]
    assert plan.dest.tolist() == [[0, -1, 1, 2]]
    ctx = make_context(4, 1, 1, batch=1)
    assert torch.equal(merge(plan, ctx.x, None)[1], torch.ones(1, 3))
