"""NaFlexVit on images of one size: r = 0 is the model itself, and its twin of fixed size merges alike."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from backbones.zoo import prepare
from timm.models.naflexvit import NaFlexVit, NaFlexVitCfg
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from tomebench.backbones.adapt import adapt
from tomebench.backbones.apply import apply
from tomebench.errors import ModelError, UnsupportedModelError
from tomebench.models.create import build_model, load_model
from tomebench.models.preprocess import Preprocessing

SMALL: dict[str, Any] = {"patch_size": 4, "embed_dim": 24, "depth": 3, "num_heads": 3}
KINDS: dict[str, dict[str, Any]] = {
    "average": {"global_pool": "avg", "reg_tokens": 2},
    "class token": {"class_token": True, "global_pool": "token", "init_values": 0.1},
    "attention pooling": {"global_pool": "map", "class_token": True, "pool_include_prefix": True},
    "convolution": {"embed_proj_type": "conv", "pre_norm": True},
    "factorized positions": {"pos_embed": "factorized"},
    "rotary": {"pos_embed": "none", "rope_type": "axial"},
    "rotary by head": {"pos_embed": "none", "rope_type": "mixed"},
    "rotary as DINOv3": {"pos_embed": "none", "rope_type": "dinov3", "rope_rotate_half": True},
    "rotary in parts": {
        "pos_embed": "none", "rope_type": "mrope", "rope_rotate_half": True, "rope_mrope_section": (2, 1, 1),
    },
    "grouped keys and gates": {
        "pos_embed": "none", "rope_type": "axial", "attn_type": "rope", "num_kv_heads": 1, "attn_gated": True,
        "qkv_fused": False,
    },
    "inner norms": {
        "rope_type": "axial", "attn_type": "eva", "qkv_fused": False, "scale_attn_inner_norm": True,
        "swiglu_mlp": True, "scale_mlp_norm": True,
    },
    "maximum": {"global_pool": "max"},
    "average and maximum": {"global_pool": "avgmax"},
}  # fmt: skip


def build(kind: str) -> NaFlexVit:
    cfg = NaFlexVitCfg(**SMALL, pos_embed_grid_size=(5, 5), **KINDS[kind])
    model: Any = NaFlexVit(cfg, num_classes=5)
    model.embeds.default_img_size = (20, 20)
    return prepare(model, seed=2)


def images(dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(3, 3, 20, 20, generator=torch.Generator().manual_seed(3)).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", KINDS)
def test_r_0_has_the_bits_of_the_model(kind: str, dtype: torch.dtype) -> None:
    model = build(kind).to(dtype)
    with torch.no_grad():
        assert torch.equal(apply(model, 0)(images(dtype)), model(images(dtype)))
        reduced = apply(model, 4)
        assert not torch.equal(reduced(images(dtype)), model(images(dtype)))
    assert reduced.token_counts[-1] == 25 + model.num_prefix_tokens - 12


@pytest.mark.parametrize("pool", ["token", "avg", "map"])
def test_merges_as_its_twin_of_fixed_size(pool: str) -> None:
    """timm's own VisionTransformer with the same weights."""
    shared = {"class_token": True, "global_pool": pool, "fc_norm": False}
    twin = prepare(VisionTransformer(img_size=20, num_classes=5, **SMALL, **shared), seed=4).double()
    cfg = NaFlexVitCfg(**SMALL, pos_embed_grid_size=(5, 5), embed_proj_type="conv", **shared)
    model: Any = NaFlexVit(cfg, num_classes=5).double().eval()
    model.embeds.default_img_size = (20, 20)
    state = {}
    for name, each in twin.state_dict().items():
        if name == "pos_embed":  # of the class token: added to it
            state["embeds.pos_embed"] = each[:, 1:].reshape(1, 5, 5, -1)
        elif name == "cls_token":
            state["embeds.cls_token"] = each + twin.pos_embed[:, :1]
        else:
            state[name.replace("patch_embed.", "embeds.")] = each
    model.load_state_dict(state)
    with torch.no_grad():
        for r in (0, 4):
            expected = apply(twin, r)(images(torch.float64))
            torch.testing.assert_close(apply(model, r)(images(torch.float64)), expected, rtol=0, atol=1e-10)
    counts = [adapt(each).macs().gmacs(26, [26] * 3) for each in (model, twin)]
    assert counts[0] == counts[1]


def test_an_input_size_of_its_own() -> None:
    loaded = build_model("naflexvit_base_patch16_gap", meta=True)
    tokens = adapt(loaded.model).tokens
    size = Preprocessing.from_model(loaded.model).input_size[-1]
    assert tokens == (size // 16) ** 2 + loaded.model.num_prefix_tokens
    smaller = build_model("naflexvit_base_patch16_gap", meta=True, img_size=160)
    assert adapt(smaller.model).tokens == 100 + loaded.model.num_prefix_tokens
    assert Preprocessing.from_model(smaller.model).input_size == (3, 160, 160)


def test_the_size_asked_for_is_that_of_fetched_weights_too(monkeypatch: pytest.MonkeyPatch) -> None:
    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, pretrained=False, **more: create(name, **more))
    monkeypatch.setattr("tomebench.models.published.is_cached", lambda timm_id: True)
    loaded = load_model("naflexvit_base_patch16_gap", pretrained=True, img_size=160)
    assert "(pretrained)" in loaded.weights
    assert adapt(loaded.model).tokens == 100 + int(loaded.model.num_prefix_tokens)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [8, 200])
def test_a_size_that_is_no_number_of_patches_is_refused(size: int) -> None:
    with pytest.raises(ModelError, match=f"the model cannot take {size} pixels: its patches are of 16"):
        build_model("naflexvit_base_patch16_gap", meta=True, img_size=size)


def test_a_model_made_without_settings_has_the_size_of_its_grid() -> None:
    model: Any = NaFlexVit(NaFlexVitCfg(**SMALL, pos_embed_grid_size=(5, 5)), num_classes=5).eval()
    assert adapt(model).tokens == 25 + model.num_prefix_tokens
    assert Preprocessing.from_model(model).input_size == (3, 20, 20)
    with torch.no_grad():
        assert torch.equal(apply(model, 0)(images()), model(images()))


def test_images_are_padded_to_whole_patches() -> None:
    model: Any = NaFlexVit(NaFlexVitCfg(**SMALL, pos_embed_grid_size=(5, 5), dynamic_img_pad=True), num_classes=5)
    prepare(model, seed=2).embeds.default_img_size = (18, 18)
    with torch.no_grad():
        assert torch.equal(apply(model, 0)(images()[..., :18, :18]), model(images()[..., :18, :18]))
    assert adapt(model).tokens == 25 + model.num_prefix_tokens


def test_patches_dropped_in_training_are_refused() -> None:
    model = timm.create_model("naflexvit_base_patch16_gap", depth=1, patch_drop_rate=0.1)
    with pytest.raises(UnsupportedModelError, match="NaFlexVit has 'patch_drop'"):
        adapt(model)
