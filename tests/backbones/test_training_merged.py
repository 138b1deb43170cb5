"""Training through merging: gradients are exact for every option, and a model that merges learns."""

from __future__ import annotations

import itertools

import pytest
import torch
from backbones.zoo import images_for, prepare
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from tomebench.backbones.apply import apply
from tomebench.datasets.digits.data import INK_MAX, load_digits, split_indices
from tomebench.reduction import vit
from tomebench.reduction.matching import bipartite_soft_matching
from tomebench.reduction.plan import MergePlan
from tomebench.schema import Route

ROUTES: tuple[Route, ...] = ("auto", "sdpa", "padded", "matmul", "augmented")


def tiny() -> VisionTransformer:
    sizes = {"img_size": 20, "patch_size": 4, "embed_dim": 12, "num_heads": 2, "depth": 3, "num_classes": 5}
    return prepare(VisionTransformer(**sizes).double(), seed=3)


def dense_merge(plan: MergePlan, x: Tensor, size: Tensor | None, constants: object) -> tuple[Tensor, Tensor]:
    """The plain form: one weight matrix, differentiated by autograd alone."""
    assert plan.combine == "weighted"
    size = torch.ones(x.shape[:2]) if size is None else size
    weight = F.one_hot(plan.dest, plan.n_out).transpose(1, 2).to(x.dtype) * size.to(x.dtype).unsqueeze(1)
    total = weight.sum(dim=2, keepdim=True)
    return (weight / total) @ x, total.squeeze(2).float()


def gradients(model: nn.Module, run: nn.Module, images: Tensor) -> list[Tensor]:
    images = images.clone().requires_grad_(True)
    loss = run(images).square().sum()
    return list(torch.autograd.grad(loss, [images, *model.parameters()]))


def assert_same_gradients(one: list[Tensor], other: list[Tensor]) -> None:
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-9)


@pytest.mark.parametrize(("route", "prop_attn"), list(itertools.product(ROUTES, [True, False])))
@pytest.mark.parametrize("prefix_only", [False, True])
def test_gradients_equal_those_of_the_plain_form(
    route: Route, prop_attn: bool, prefix_only: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny()
    images = images_for(model)
    merged = apply(model, [5, 4, 3], attention=route, prop_attn=prop_attn, prefix_only=prefix_only)
    found = gradients(model, merged, images)
    assert all(grad.abs().max() > 0 for grad in found)
    monkeypatch.setattr(vit, "merge", dense_merge)
    assert_same_gradients(found, gradients(model, merged, images))


def test_the_comparison_notices_a_gradient_that_misses_the_merge(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny()
    images, merged = images_for(model), apply(model, [5, 4, 3])
    found = gradients(model, merged, images)
    monkeypatch.setattr(
        vit, "merge", lambda *a: tuple(t.detach() if i else t * 1.01 for i, t in enumerate(dense_merge(*a)))
    )
    with pytest.raises(AssertionError):
        assert_same_gradients(found, gradients(model, merged, images))


@pytest.mark.parametrize("route", ROUTES)
def test_gradients_equal_finite_differences(route: Route) -> None:
    model = tiny()
    merged = apply(model, [5, 4, 3], attention=route)
    images = images_for(model, batch=1).requires_grad_(True)
    assert torch.autograd.gradcheck(merged, (images,), fast_mode=True)


def test_autocast_trains_the_tokens_it_would_choose_without() -> None:
    """Matching happens in fp32 under autocast too, and the gradients arrive in the dtype of the weights."""
    model = tiny().float()
    merged, images = apply(model, 4), images_for(model)
    with torch.autocast("cpu", torch.bfloat16):
        loss = merged(images).square().sum()
    loss.backward()
    assert all(
        p.grad is not None and p.grad.dtype == torch.float32 and p.grad.isfinite().all() for p in model.parameters()
    )
    metric = torch.randn(2, 26, 6)
    with torch.autocast("cpu", torch.bfloat16):
        inside = bipartite_soft_matching(metric, 4, 1)
    assert torch.equal(inside.dest, bipartite_soft_matching(metric, 4, 1).dest)


def digits(split: str) -> tuple[Tensor, Tensor]:
    """The digits of a split as images [n, 3, 28, 28] around 0, and their classes."""
    cells, labels = load_digits()
    places = split_indices(split)  # type: ignore[arg-type]
    images = torch.from_numpy(cells[places]).float() / INK_MAX * 2 - 1
    images = F.interpolate(images[:, None], size=28, mode="bilinear", align_corners=False)
    return images.expand(-1, 3, -1, -1).contiguous(), torch.from_numpy(labels[places])


@pytest.mark.slow
def test_a_model_that_merges_learns_the_digits(record_property: pytest.RecordProperty) -> None:
    """300 steps with 18 of 50 tokens merged away: the loss falls under 0.5 and over half are right held out."""
    torch.manual_seed(0)
    model = VisionTransformer(
        img_size=28, patch_size=4, embed_dim=48, num_heads=3, depth=3, mlp_ratio=2.0, num_classes=10
    )
    merged = apply(model, 6)
    assert merged.token_counts == [44, 38, 32]
    images, labels = digits("train")
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    losses = []
    model.train()
    for step in range(300):
        picked = torch.randint(len(images), (64,), generator=torch.Generator().manual_seed(step))
        loss = F.cross_entropy(merged(images[picked]), labels[picked])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    model.eval()
    with torch.inference_mode():
        held_out, truth = digits("test")
        accuracy = (merged(held_out).argmax(dim=1) == truth).float().mean().item()
    record_property("last 20 losses", sum(losses[-20:]) / 20)
    record_property("held-out accuracy", accuracy)
    print(f"loss {sum(losses[:20]) / 20:.2f} -> {sum(losses[-20:]) / 20:.3f}, held-out {accuracy:.1%}")
    assert sum(losses[:20]) / 20 > 1.5
    assert sum(losses[-20:]) / 20 < 0.5
    assert accuracy > 0.5  # chance is 0.1; where in 0.7 to 0.9 it ends depends on the kernels of the processor
