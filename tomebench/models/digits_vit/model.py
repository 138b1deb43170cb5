"""Architectures and weights files of the demo models: digits_vit, a plain timm ``VisionTransformer``, and digits_rope.

56 x 56 pixels in patches of 4 x 4 give 196 patches and a class token, as many tokens as ViT-B/16 has at 224 x 224.
Eight blocks of width 64 keep the weights under 2 MiB. digits_rope is timm's ``Eva`` of the same size, which knows
places by axial rotation of queries and keys alone (RoPE-ViT, Heo et al., arXiv 2403.13298).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer

NAME = "digits_vit"
"""Name of the preset with learned positions."""
ROTARY = "digits_rope"
"""Name of the preset with rotary positions."""
IMG_SIZE = 56
NUM_CLASSES = 10

_ARCHITECTURE: dict[str, Any] = {
    "img_size": IMG_SIZE,
    "patch_size": 4,
    "embed_dim": 64,
    "depth": 8,
    "num_heads": 2,
    "num_classes": NUM_CLASSES,
}
_PRETRAINED_CFG: dict[str, Any] = {
    "input_size": (3, IMG_SIZE, IMG_SIZE),
    "fixed_input_size": True,
    "crop_pct": 1.0,
    "interpolation": "bicubic",
    "mean": (0.5, 0.5, 0.5),
    "std": (0.5, 0.5, 0.5),
    "num_classes": NUM_CLASSES,
    "first_conv": "patch_embed.proj",
    "classifier": "head",
}


_ROTARY: dict[str, Any] = {
    "global_pool": "token",
    "use_abs_pos_emb": False,
    "use_rot_pos_emb": True,
    "rope_temperature": 100.0,  # as RoPE-ViT: from 1 to 0.018 radians a patch
}


def weights_of(name: str) -> Path:
    """File of a preset's trained weights, fp32."""
    return Path(__file__).with_name(f"{name}.safetensors")


def create_model(name: str = NAME, **kwargs: Any) -> VisionTransformer | Eva:
    """Build an untrained model; the file of :func:`weights_of` fits it when no argument changes a shape.

    Args:
        name: :data:`NAME` or :data:`ROTARY`.
        kwargs: arguments of timm's class that replace the preset's own, such as ``drop_path_rate``.
    """
    model: VisionTransformer | Eva
    if name == ROTARY:
        model = Eva(**{**_ARCHITECTURE, **_ROTARY, **kwargs})
    else:
        model = VisionTransformer(**{**_ARCHITECTURE, **kwargs})
    settings: Any = model
    settings.pretrained_cfg = settings.default_cfg = {**_PRETRAINED_CFG, "architecture": name}
    return model
