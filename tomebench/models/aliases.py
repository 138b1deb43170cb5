"""Short names for models: torchvision-style aliases of timm models, and the presets this package ships.

An alias always stands for a full timm id with its tag, because the tag decides the weights: timm's own default tag of
``vit_base_patch16_224`` is a different training from the one the ToMe paper uses.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Alias:
    """A short name and what it stands for."""

    timm_id: str
    note: str


_AUGREG = "AugReg, ImageNet-21k then 1k: the weights of the ToMe paper"
_DEIT = "DeiT, ImageNet-1k"

ALIASES: Mapping[str, Alias] = {
    "vit_ti_16": Alias("vit_tiny_patch16_224.augreg_in21k_ft_in1k", _AUGREG),
    "vit_s_16": Alias("vit_small_patch16_224.augreg_in21k_ft_in1k", _AUGREG),
    "vit_b_16": Alias("vit_base_patch16_224.augreg_in21k_ft_in1k", _AUGREG),
    "vit_l_16": Alias("vit_large_patch16_224.augreg_in21k_ft_in1k", _AUGREG),
    "vit_b_16_384": Alias("vit_base_patch16_384.augreg_in21k_ft_in1k", _AUGREG),
    "vit_l_16_384": Alias("vit_large_patch16_384.augreg_in21k_ft_in1k", _AUGREG),
    "vit_b_32": Alias("vit_base_patch32_224.augreg_in21k_ft_in1k", _AUGREG),
    "vit_h_14": Alias("vit_huge_patch14_224.mae", "MAE pre-training; the paper fine-tunes it, timm has no head for it"),
    "deit_ti_16": Alias("deit_tiny_patch16_224.fb_in1k", _DEIT),
    "deit_s_16": Alias("deit_small_patch16_224.fb_in1k", _DEIT),
    "deit_b_16": Alias("deit_base_patch16_224.fb_in1k", _DEIT),
}

PRESETS: Mapping[str, str] = {
    "digits_vit": "a small ViT trained on the embedded digits; its weights are part of the package",
}
