"""ViTs with a bias by relative position: r = 0 is the model itself; merged tokens keep the place of one of theirs."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from backbones import relative_reference
from backbones.zoo import images_for, prepare
from timm.models.beit import Beit
from timm.models.vision_transformer_relpos import ResPostRelPosBlock, VisionTransformerRelPos
from torch import nn

from tomebench.backbones.apply import apply
from tomebench.errors import DeviceError, UnsupportedModelError

SMALL: dict[str, Any] = {
    "img_size": (20, 16), "patch_size": 4, "embed_dim": 16, "num_heads": 2, "depth": 3, "num_classes": 5,
}  # fmt: skip
KINDS: dict[str, tuple[type[nn.Module], dict[str, Any]]] = {
    "BEiT": (Beit, {"use_rel_pos_bias": True, "use_abs_pos_emb": False, "init_values": 0.1}),
    "BEiT, class token": (Beit, {"use_rel_pos_bias": True, "global_pool": "token", "qkv_bias": False}),
    "a table": (VisionTransformerRelPos, {"rel_pos_type": "bias", "init_values": 0.1, "class_token": True}),
    "an MLP": (VisionTransformerRelPos, {"rel_pos_type": "mlp", "qk_norm": True, "fc_norm": True}),
    "one MLP": (VisionTransformerRelPos, {"rel_pos_type": "mlp-swin", "rel_pos_dim": 8, "shared_rel_pos": True}),
    "a table, norms after": (VisionTransformerRelPos, {"rel_pos_type": "bias", "block_fn": ResPostRelPosBlock}),
}


def build(kind: str, **more: Any) -> Any:
    """A small model of one kind in float64, all its parameters random."""
    cls, arguments = KINDS[kind]
    return prepare(cls(**{**SMALL, **arguments, **more}).double(), seed=3)


@pytest.mark.parametrize("kind", KINDS)
def test_equals_the_model_written_in_loops(kind: str) -> None:
    model = build(kind)
    images = images_for(model)
    with torch.no_grad():
        plain = model(images)
    for r in ([0, 0, 0], [3, 0, 5], [4, 4, 4]):
        for fused in (True, False):
            for block in model.blocks:
                block.attn.fused_attn = fused
            with torch.no_grad():
                got = apply(model, r)(images)
            for image, row in zip(images, got, strict=True):
                torch.testing.assert_close(row, relative_reference.logits(model, image, r), rtol=0, atol=1e-10)
        assert torch.allclose(got, plain, atol=1e-10) == (not any(r))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_r_0_is_the_model_itself(kind: str, fused: bool, dtype: torch.dtype) -> None:
    model = prepare(build(kind).to(dtype), fused=fused)
    images = images_for(model)
    with torch.no_grad():
        expected, got, merged = model(images), apply(model, 0)(images), apply(model, 3)(images)
    assert expected.isfinite().all()
    assert expected.std() > 1e-3
    assert torch.equal(got, expected)
    assert (merged - expected).abs().max() > 1e-3


@pytest.mark.parametrize(
    "name",
    [
        *("beit_base_patch16_224", "beitv2_base_patch16_224", "vit_relpos_small_patch16_224"),
        *("vit_srelpos_small_patch16_224", "vit_relpos_medium_patch16_cls_224", "vit_relpos_medium_patch16_rpn_224"),
    ],
)
def test_registered_models_keep_their_bits_at_r_0(name: str) -> None:
    model = timm.create_model(name, depth=2, embed_dim=48, num_heads=3, num_classes=5, img_size=112)
    for dtype in (torch.float32, torch.bfloat16):
        prepare(model.to(dtype))
        images = images_for(model)
        with torch.no_grad():
            expected, got, merged = model(images), apply(model, 0)(images), apply(model, 8)(images)
        assert torch.equal(got, expected)
        assert (merged - expected).abs().max() > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_the_bias_counts_where_tokens_are(kind: str) -> None:
    """Without it the logits are others, with merged tokens, too."""
    model = build(kind)
    images = images_for(model)
    merged = apply(model, 3)
    with torch.no_grad():
        before = merged(images)
        for name, tensor in model.named_parameters():
            if "relative_position" in name or "rel_pos.mlp" in name:
                tensor.zero_()
        assert (merged(images) - before).abs().max() > 1e-3


@pytest.mark.parametrize("kind", ["BEiT", "one MLP"])
def test_compiles_to_one_graph(kind: str) -> None:
    model = build(kind).float()
    images = images_for(model)
    merged = apply(model, 4)
    compiled = torch.compile(merged, fullgraph=True, dynamic=False, backend="eager")
    with torch.no_grad():
        assert torch.equal(compiled(images), merged(images))


def test_pruning_by_attention_counts_the_bias() -> None:
    """A bias against one patch as a key makes it go first."""
    model = build("a table")
    images = images_for(model, batch=1)
    merged = apply(model, [1, 0, 0], method="topk")
    bias = model.blocks[0].attn.rel_pos.get_bias
    for patch in (3, 11):

        def against(patch: int = patch) -> torch.Tensor:
            found = bias().clone()
            found[:, :, 0, patch] = -100.0
            return found

        model.blocks[0].attn.rel_pos.get_bias = against
        source = merged.source_map(images)[0]
        assert (source == -1).nonzero().flatten().tolist() == [patch]


@pytest.mark.parametrize("route", ["padded", "augmented"])
def test_routes_without_such_a_bias_are_refused(route: Any) -> None:
    model = build("a table")
    merged = apply(model, 2, attention=route)
    says = f"attention {route} does not take the position bias of this model"
    with pytest.raises(DeviceError, match=says):
        merged.attention_kernels(2, torch.float32, torch.device("cpu"))
    with pytest.raises(DeviceError, match=says):
        merged(images_for(model))


def test_kernels_say_that_there_is_a_bias_without_merging_too() -> None:
    kernels = apply(build("a table"), 0).attention_kernels(2, torch.float32, torch.device("cpu"))
    assert all(name.endswith("+bias") for name in kernels)


def test_what_is_not_known_is_refused() -> None:
    model = build("BEiT", use_rel_pos_bias=False, use_shared_rel_pos_bias=True)
    with pytest.raises(UnsupportedModelError, match="Beit has 'rel_pos_bias'"):
        apply(model, 2)
    model = build("a table")
    model.blocks[1].attn.rel_pos = nn.Identity()
    with pytest.raises(UnsupportedModelError, match="Identity in 'rel_pos' of RelPosAttention"):
        apply(model, 2)
    model = build("one MLP")
    model.shared_rel_pos = nn.Identity()
    with pytest.raises(UnsupportedModelError, match="Identity in 'shared_rel_pos' of VisionTransformerRelPos"):
        apply(model, 2)
