"""r = 0 gives the bits of the unwrapped model, for every feature a supported model can have."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from backbones.zoo import ARCHITECTURES, NARROW, architecture_id, build, features, images_for, prepare
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.layers import Attention, GluMlp, Mlp, RmsNorm, SwiGLU, SwiGLUPacked
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from tomebench.backbones.apply import apply

REQUIRED = {
    *("class token", "distillation token", "registers", "class token and registers"),
    *("no class token, average pooling", "no class token, attention pooling", "class token, average pooling"),
    *("LayerScale", "q/k norm", "fused attention", "unfused attention", "norm before the blocks"),
    *("patch 8", "patch 14", "patch 16", "patch 32", "224 px", "384 px", "images that are not square"),
    *("norm of the attention output", "norm before pooling", "norm after pooling", "RMS norm", "gated MLP"),
    *("convolutional stem", "any image size at run time", "pooling over the prefix too"),
    *("no position for the class token", "no bias of q, k, v"),
}


def assert_same_bits(model: VisionTransformer, images: Tensor) -> None:
    """The model and its wrapper at r = 0 give equal logits, bit for bit."""
    with torch.no_grad():
        expected, got = model(images), apply(model, 0)(images)
    assert expected.isfinite().all()
    assert expected.std() > 1e-3, "logits that do not depend on anything prove nothing"
    assert torch.equal(got, expected)


@pytest.mark.parametrize("entry", ARCHITECTURES, ids=architecture_id)
def test_r_0_is_the_model_itself(entry: tuple[str, dict[str, Any], set[str]]) -> None:
    name, arguments, here_for = entry
    for fused in (True, False):
        model = build(name, arguments, fused=fused)
        assert here_for <= features(model)
        assert_same_bits(model, images_for(model))


def test_the_architectures_cover_every_feature() -> None:
    covered = set()
    for name, arguments, _ in ARCHITECTURES:
        for fused in (True, False):
            covered |= features(build(name, arguments, fused=fused))
    assert covered >= REQUIRED, f"no architecture has {sorted(REQUIRED - covered)}"
    assert len({name for name, _, _ in ARCHITECTURES}) >= 30


PARTS = ["norm1", "norm2", "ls1", "ls2", "attn.q_norm", "attn.k_norm", "attn.proj"]


@pytest.mark.parametrize("part", PARTS)
def test_the_bit_comparison_notices_a_part_that_is_left_out(part: str) -> None:
    model = build("deit3_small_patch16_224", {**NARROW, "qk_norm": True})
    images = images_for(model)
    merged = apply(model, 0)
    with torch.no_grad():
        expected = merged(images)
        owner_name, _, attribute = f"blocks.1.{part}".rpartition(".")
        setattr(model.get_submodule(owner_name), attribute, nn.Identity())
        assert not torch.equal(model(images), expected)


VITS = st.fixed_dictionaries(
    {
        "pool": st.sampled_from(["token", "avg", "avgmax", "max", "map", ""]),
        "class_token": st.booleans(),
        "reg_tokens": st.integers(0, 4),
        "no_embed_class": st.booleans(),
        "pool_include_prefix": st.booleans(),
        "pre_norm": st.booleans(),
        "final_norm": st.booleans(),
        "fc_norm": st.sampled_from([None, True, False]),
        "qk_norm": st.booleans(),
        "scale_attn_norm": st.booleans(),
        "scale_mlp_norm": st.booleans(),
        "qkv_bias": st.booleans(),
        "proj_bias": st.booleans(),
        "init_values": st.sampled_from([None, 0.1]),
        "pos_embed": st.sampled_from(["learn", "none"]),
        "dynamic_img_size": st.booleans(),
        "norm_layer": st.sampled_from([None, RmsNorm]),
        "mlp_layer": st.sampled_from([Mlp, SwiGLU, SwiGLUPacked, partial(GluMlp, gate_last=False)]),
        "attention": st.sampled_from([{}, {"gated": True}, {"attn_head_dim": 10}]),
        "depth": st.integers(1, 2),
        "img_size": st.sampled_from([16, (24, 16), 30]),
        "patch_size": st.sampled_from([4, 8, (8, 4)]),
        "fused": st.booleans(),
    }
)


def build_vit(options: dict[str, Any]) -> VisionTransformer:
    """A small VisionTransformer with these options, a few of them adjusted where they contradict each other."""
    options = dict(options)
    pool, fused, attention = options.pop("pool"), options.pop("fused"), options.pop("attention")
    if pool == "token" and not options["class_token"]:
        pool = "avg"
    if options["dynamic_img_size"] and options["img_size"] == 30:
        options["img_size"] = 32
    model = VisionTransformer(global_pool=pool, embed_dim=24, num_heads=2, num_classes=5, weight_init="skip", **options)
    for block in model.blocks if attention else ():
        # VisionTransformer has no argument for these options of its attention layer.
        block.attn = Attention(
            24,
            num_heads=2,
            qkv_bias=options["qkv_bias"],
            qk_norm=options["qk_norm"],
            scale_norm=options["scale_attn_norm"],
            norm_layer=options["norm_layer"] or nn.LayerNorm,
            **attention,
        )
    return prepare(model, fused=fused)


@settings(max_examples=120)
@given(VITS)
def test_r_0_is_the_model_itself_for_any_combination(options: dict[str, Any]) -> None:
    model = build_vit(options)
    assert_same_bits(model, images_for(model))
