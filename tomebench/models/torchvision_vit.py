"""torchvision's Vision Transformers (SWAG among them) as timm models: the same tensors under other names.

The SWAG weights (``ViT_B_16_Weights.IMAGENET1K_SWAG_E2E_V1`` and those of L/16 and H/14) are those that the ToMe paper
merges off the shelf; timm does not have them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import timm
import torchvision
from torch import Tensor, nn

from tomebench.models.aliases import TorchvisionViT

NUM_CLASSES = 1000
_LAYER = re.compile(r"encoder\.layers\.encoder_layer_(\d+)\.(.+?)[._](weight|bias)")
_OUTSIDE = {
    "class_token": "cls_token",
    "conv_proj.weight": "patch_embed.proj.weight",
    "conv_proj.bias": "patch_embed.proj.bias",
    "encoder.pos_embedding": "pos_embed",
    "encoder.ln.weight": "norm.weight",
    "encoder.ln.bias": "norm.bias",
    "heads.head.weight": "head.weight",
    "heads.head.bias": "head.bias",
}
_INSIDE = {
    "ln_1": "norm1",
    "ln_2": "norm2",
    "self_attention.in_proj": "attn.qkv",  # its parameters end in _weight and _bias
    "self_attention.out_proj": "attn.proj",
    "mlp.0": "mlp.fc1",
    "mlp.3": "mlp.fc2",
    "mlp.linear_1": "mlp.fc1",  # as torchvision called them at first
    "mlp.linear_2": "mlp.fc2",
}


def create_model(preset: TorchvisionViT, img_size: int | None = None, num_classes: int = NUM_CLASSES) -> nn.Module:
    """Build a timm model with random weights for a torchvision checkpoint, with that checkpoint's preprocessing."""
    published: Any = torchvision.models.get_weight(preset.weights).transforms()
    size, resized = int(published.crop_size[0]), int(published.resize_size[0])
    preprocessing = {
        "input_size": (3, size, size),
        "crop_pct": size / resized,
        "crop_mode": "center",
        "interpolation": published.interpolation.value,
        "mean": tuple(published.mean),
        "std": tuple(published.std),
    }
    return timm.create_model(
        preset.architecture,
        img_size=img_size or size,
        num_classes=num_classes,
        pretrained_cfg_overlay={**preprocessing, "test_input_size": None},
    )


def file_name(preset: TorchvisionViT) -> str:
    """Name of the file that torchvision publishes a preset's weights in."""
    return str(torchvision.models.get_weight(preset.weights).url).rpartition("/")[2]


def is_torchvision(state: Mapping[str, Tensor]) -> bool:
    """Whether tensors are named as in ``torchvision.models.VisionTransformer``."""
    return "encoder.pos_embedding" in state and "conv_proj.weight" in state


def to_timm(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename tensors of a ``torchvision.models.VisionTransformer`` to timm's names; unknown names stay."""
    return {_renamed(name): tensor for name, tensor in state.items()}


def _renamed(name: str) -> str:
    if name in _OUTSIDE:
        return _OUTSIDE[name]
    match = _LAYER.fullmatch(name)
    if match is None:
        return name
    layer, module, kind = match.groups()
    return f"blocks.{layer}.{_INSIDE.get(module, module)}.{kind}"
