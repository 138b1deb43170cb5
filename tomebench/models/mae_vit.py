"""MAE's fine-tuned Vision Transformers: timm's ViT with average pooling over the patches, without the class token.

Their files name tensors as timm does; the norm between the last block and the class head is ``fc_norm``.
"""

from __future__ import annotations

import timm
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import nn

from tomebench.models.aliases import MaeViT

NUM_CLASSES = 1000
_PREPROCESSING = {
    "input_size": (3, 224, 224),
    "crop_pct": 224 / 256,
    "crop_mode": "center",
    "interpolation": "bicubic",
    "mean": IMAGENET_DEFAULT_MEAN,
    "std": IMAGENET_DEFAULT_STD,
    "test_input_size": None,
}


def create_model(preset: MaeViT, img_size: int | None = None, num_classes: int = NUM_CLASSES) -> nn.Module:
    """Build a timm model with random weights for a fine-tuned MAE file, with the preprocessing of MAE's evaluation."""
    return timm.create_model(
        preset.architecture,
        img_size=img_size or 224,
        num_classes=num_classes,
        global_pool="avg",
        pretrained_cfg_overlay=_PREPROCESSING,
    )
