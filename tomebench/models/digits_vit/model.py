"""Architecture and weights file of the demo model digits_vit: a plain timm ``VisionTransformer``.

56 x 56 pixels in patches of 4 x 4 give 196 patches and a class token, as many tokens as ViT-B/16 has at 224 x 224.
Eight blocks of width 64 keep the weights under 2 MiB.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from timm.models.vision_transformer import VisionTransformer

NAME = "digits_vit"
"""Name of the preset."""
WEIGHTS = Path(__file__).with_name("digits_vit.safetensors")
"""The trained weights, fp32."""
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
    "architecture": NAME,
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


def create_model(**kwargs: Any) -> VisionTransformer:
    """Build the untrained model; :data:`WEIGHTS` fits it when no argument changes a shape.

    Args:
        kwargs: arguments of timm's ``VisionTransformer`` that replace the preset's own, such as ``drop_path_rate``.
    """
    model: Any = VisionTransformer(**{**_ARCHITECTURE, **kwargs})
    model.pretrained_cfg = model.default_cfg = dict(_PRETRAINED_CFG)
    assert isinstance(model, VisionTransformer)
    return model
