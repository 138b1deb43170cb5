"""Reduced models give the logits of a slow model written from the formulas, for every kind of head and block."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from backbones import vit_reference
from backbones.zoo import images_for, prepare
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import VisionTransformer

from tomebench.backbones.apply import apply

KINDS: dict[str, dict[str, Any]] = {
    "class token": {"global_pool": "token"},
    "class token and registers": {"global_pool": "token", "reg_tokens": 3, "no_embed_class": True},
    "average": {"global_pool": "avg", "class_token": False},
    "average, norm before": {"global_pool": "avg", "class_token": False, "fc_norm": False},
    "average beside a class token": {"global_pool": "avg"},
    "average with the prefix": {"global_pool": "avg", "reg_tokens": 1, "pool_include_prefix": True},
    "average and maximum": {"global_pool": "avgmax", "reg_tokens": 1},
    "maximum": {"global_pool": "max", "class_token": False},
    "attention": {"global_pool": "map", "class_token": False},
    "attention without registers": {"global_pool": "map", "class_token": False, "reg_tokens": 2},
    "attention with registers": {"global_pool": "map", "reg_tokens": 2, "pool_include_prefix": True},
    "q/k norm and LayerScale": {"global_pool": "token", "qk_norm": True, "init_values": 0.1},
    "norm before the blocks, no biases": {
        "global_pool": "avg",
        "pre_norm": True,
        "qkv_bias": False,
        "proj_bias": False,
    },
    "distilled": {"distilled": True},
}
SMALL = {"img_size": (20, 16), "patch_size": 4, "embed_dim": 12, "num_heads": 2, "depth": 3, "num_classes": 5}


def build(kind: str, *, fused: bool) -> VisionTransformer:
    options = dict(KINDS[kind])
    cls = VisionTransformerDistilled if options.pop("distilled", False) else VisionTransformer
    return prepare(cls(**SMALL, **options).double(), fused=fused, seed=3)


@pytest.mark.parametrize("kind", KINDS)
def test_equals_the_model_written_in_loops(kind: str) -> None:
    for fused, prop_attn, r in ((True, True, [3, 0, 5]), (False, False, [4, 4, 4]), (False, True, [9, 9, 9])):
        model = build(kind, fused=fused)
        images = images_for(model)
        merged = apply(model, r, prop_attn=prop_attn)
        with torch.no_grad():
            got = merged(images)
        for image, row in zip(images, got, strict=True):
            expected = vit_reference.logits(model, image, r, prop_attn=prop_attn)
            torch.testing.assert_close(row, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_the_model_written_in_loops_is_the_model_at_r_0(kind: str) -> None:
    model = build(kind, fused=True)
    (image,) = images_for(model, batch=1)
    with torch.no_grad():
        expected = model(image[None])[0]
    torch.testing.assert_close(
        vit_reference.logits(model, image, [0] * 3, prop_attn=True), expected, rtol=0, atol=1e-10
    )


@pytest.mark.parametrize("kind", ["class token", "average", "attention", "distilled"])
def test_merging_and_proportional_attention_change_the_logits(kind: str) -> None:
    """The comparison above would mean nothing if the options made no difference."""
    model = build(kind, fused=True)
    images = images_for(model)
    with torch.no_grad():
        results = [model(images), apply(model, 3)(images), apply(model, 3, prop_attn=False)(images)]
    for i, one in enumerate(results):
        for other in results[i + 1 :]:
            assert (one - other).abs().max() > 1e-4


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", ["class token", "average", "attention", "average and maximum"])
def test_half_precision_models_run_and_stay_near(kind: str, dtype: torch.dtype) -> None:
    model = build(kind, fused=True).to(dtype)
    images = images_for(model)
    merged = apply(model, 3)
    with torch.no_grad():
        half = merged(images)
        exact = apply(model.float(), 3)(images.float())
    assert half.dtype == dtype
    assert half.isfinite().all()
    # A few choices may differ; what may not is the scale.
    assert (half.float() - exact).abs().max() < 0.5 * exact.abs().max()
