"""Models that merging does not know are refused, with the class and the attribute that is unknown."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
from timm.layers import Attention
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from tomebench.backbones.apply import apply
from tomebench.backbones.timm_vit import TimmViT
from tomebench.errors import UnsupportedModelError


def assert_refused(model: nn.Module, *says: str) -> None:
    """Refused in one line that holds all of these words and what to do."""
    with pytest.raises(UnsupportedModelError) as caught:
        TimmViT(model)
    message = str(caught.value)
    assert [word for word in says if word not in message] == []
    assert "\n" not in message
    assert "tomebench list models --all says which" in message


def small(**arguments: Any) -> VisionTransformer:
    """A VisionTransformer without storage."""
    with torch.device("meta"):
        return VisionTransformer(img_size=32, embed_dim=24, num_heads=2, depth=2, num_classes=5, **arguments)


def test_the_helper_notices_a_model_that_is_accepted_or_a_word_that_is_missing() -> None:
    with pytest.raises(pytest.fail.Exception):
        assert_refused(small())
    with pytest.raises(AssertionError):
        assert_refused(nn.Linear(2, 2), "Linear", "no such word")


@pytest.mark.parametrize(
    ("name", "owner", "attribute"),
    [
        ("swin_tiny_patch4_window7_224", "SwinTransformer", "'layers'"),
        ("swinv2_tiny_window8_256", "SwinTransformerV2", "'layers'"),
        ("vit_dwee_patch16_reg1_gap_256", "DiffAttention", "'sub_norm'"),
        ("vit_dpwee_patch16_reg1_gap_256", "DiffParallelScalingBlock", "'in_norm'"),
        ("beit_base_patch16_224", "Beit", "'gamma_1'"),
        ("cait_xxs24_224", "Cait", "'blocks_token_only'"),
        ("vit_relpos_small_patch16_224", "VisionTransformerRelPos", "'rel_pos'"),
        ("vit_srelpos_small_patch16_224", "VisionTransformerRelPos", "'shared_rel_pos'"),
        ("naflexvit_base_patch16_gap", "NaFlexVit", "'embeds'"),
        ("samvit_base_patch16", "VisionTransformerSAM", "'neck'"),
        ("xcit_nano_12_p16_224", "Xcit", "'cls_attn_blocks'"),
        ("mixer_s32_224", "MlpMixer", "'stem'"),
        ("crossvit_9_240", "CrossVit", "'pos_embed_0'"),
        ("resnet18", "ResNet", "'conv1'"),
        ("convnext_atto", "ConvNeXt", "'stem'"),
    ],
)
def test_other_architectures(name: str, owner: str, attribute: str) -> None:
    with torch.device("meta"):
        model = timm.create_model(name)
    assert_refused(model, owner, attribute)


def add_to_block(value: object) -> Callable[[VisionTransformer], None]:
    return lambda model: setattr(model.blocks[1], "extra", value)


def add_to_attention(value: object) -> Callable[[VisionTransformer], None]:
    return lambda model: setattr(model.blocks[1].attn, "extra", value)


class OwnLinear(nn.Module):
    """What nobody counts the multiply-accumulates of."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(outputs, inputs))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight.T


CHANGES: dict[str, tuple[Callable[[VisionTransformer], None], tuple[str, ...]]] = {
    "attribute of a block": (add_to_block(3), ("Block", "'extra'")),
    "module of a block": (add_to_block(nn.Identity()), ("Block", "'extra'")),
    "parameter of a block": (add_to_block(nn.Parameter(torch.ones(1))), ("Block", "'extra'")),
    "buffer of a block": (lambda m: m.blocks[1].register_buffer("extra", torch.ones(1)), ("Block", "'extra'")),
    "forward of a block": (lambda m: setattr(m.blocks[1], "forward", lambda x: x), ("Block", "'forward'")),
    "attribute of attention": (add_to_attention("x"), ("Attention", "'extra'")),
    "module of attention": (add_to_attention(nn.Identity()), ("Attention", "'extra'")),
    "parameter of attention": (add_to_attention(nn.Parameter(torch.ones(1))), ("Attention", "'extra'")),
    "buffer of attention": (
        lambda m: m.blocks[1].attn.register_buffer("extra", torch.ones(1)),
        ("Attention", "'extra'"),
    ),
    "forward of attention": (lambda m: setattr(m.blocks[1].attn, "forward", lambda x: x), ("Attention", "'forward'")),
    "scale of attention": (lambda m: setattr(m.blocks[1].attn, "scale", 1.0), ("Attention", "'scale'")),
    "module of the model": (lambda m: setattr(m, "extra", nn.Identity()), ("VisionTransformer", "'extra'")),
    "parameter of the model": (
        lambda m: setattr(m, "extra", nn.Parameter(torch.ones(1))),
        ("VisionTransformer", "'extra'"),
    ),
    "buffer of the model": (lambda m: m.register_buffer("extra", torch.ones(1)), ("VisionTransformer", "'extra'")),
    "forward of the model": (lambda m: setattr(m, "forward", lambda x: x), ("VisionTransformer", "'forward'")),
    "pool of the model": (lambda m: setattr(m, "pool", lambda x: x[:, 0]), ("VisionTransformer", "'pool'")),
    "an MLP that multiplies in its own way": (
        lambda m: setattr(m.blocks[1], "mlp", nn.Sequential(OwnLinear(24, 24))),
        ("OwnLinear", "'mlp'", "besides those of nn.Linear"),
    ),
    "a linear layer with more weights": (
        lambda m: m.blocks[1].attn.qkv.register_parameter("low_rank", nn.Parameter(torch.ones(2, 24))),
        ("Linear", "'attn'", "besides those of nn.Linear"),
    ),
    "a head of its own": (lambda m: setattr(m, "head", OwnLinear(24, 5)), ("OwnLinear", "'head'")),
    "no blocks": (lambda m: setattr(m, "blocks", nn.Sequential()), ("VisionTransformer", "'blocks'")),
    "a hook on a block": (lambda m: m.blocks[1].register_forward_hook(lambda *_: None), ("Block", "hook")),
    "a hook on attention": (
        lambda m: m.blocks[1].attn.register_forward_pre_hook(lambda *_: None),
        ("Attention", "hook"),
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_model_with_something_added(change: str) -> None:
    model = small()
    alter, says = CHANGES[change]
    alter(model)
    assert_refused(model, *says)


class OwnForward(VisionTransformer):
    """A subclass may do anything in its forward."""


class OwnBlock(Block):
    """So may a subclass of a block."""


class OwnAttention(Attention):
    """And one of attention."""


def test_subclasses_are_refused() -> None:
    with torch.device("meta"):
        assert_refused(OwnForward(img_size=32, embed_dim=24, num_heads=2, depth=1), "OwnForward", "'forward'")
    assert_refused(small(block_fn=OwnBlock), "OwnBlock", "'blocks'", "VisionTransformer")
    assert_refused(small(attn_layer=OwnAttention), "OwnAttention", "'attn'", "Block")


def test_pooling_that_is_not_known() -> None:
    assert_refused(small(global_pool="prr"), "VisionTransformer", "'global_pool'", "'prr'")


def test_attention_pooling_with_positions() -> None:
    model = small(global_pool="map", class_token=False)
    model.attn_pool.pos_embed = nn.Parameter(torch.zeros(1))
    assert_refused(model, "AttentionPoolLatent", "'pos_embed'")


@pytest.mark.parametrize("model", [nn.Linear(2, 2), nn.Sequential(nn.Conv2d(3, 8, 3)), nn.Identity()])
def test_modules_that_are_no_vit_at_all(model: nn.Module) -> None:
    assert_refused(model, type(model).__name__)


def test_a_reduced_model_is_not_reduced_again() -> None:
    assert_refused(apply(small(), 2), "ReducedViT", "'model'")
