"""Short model names: torchvision-style aliases of timm ids, and presets (SWAG, MAE, digits_vit) that are no timm id.

An alias always stands for a full timm id with its tag, because the tag decides the weights: timm's own default tag of
``vit_base_patch16_224`` is a different training from the one the ToMe paper uses.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Alias:
    """What a short name stands for: a timm id with its tag, and a line about the weights."""

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


@dataclass(frozen=True)
class TorchvisionViT:
    """A ViT of torchvision: its architecture in timm, and the name of torchvision's weights."""

    architecture: str
    weights: str
    note: str


_SWAG = "SWAG, fine-tuned end to end: weights of the ToMe paper, published by torchvision"
_TORCHVISION = "torchvision's own training on ImageNet-1k"
_E2E = "Weights.IMAGENET1K_SWAG_E2E_V1"

TORCHVISION: Mapping[str, TorchvisionViT] = {
    "swag_vit_b_16": TorchvisionViT("vit_base_patch16_224", f"ViT_B_16_{_E2E}", _SWAG),
    "swag_vit_l_16": TorchvisionViT("vit_large_patch16_224", f"ViT_L_16_{_E2E}", _SWAG),
    "swag_vit_h_14": TorchvisionViT("vit_huge_patch14_224", f"ViT_H_14_{_E2E}", _SWAG),
    "tv_vit_b_16": TorchvisionViT("vit_base_patch16_224", "ViT_B_16_Weights.IMAGENET1K_V1", _TORCHVISION),
    "tv_vit_l_16": TorchvisionViT("vit_large_patch16_224", "ViT_L_16_Weights.IMAGENET1K_V1", _TORCHVISION),
}
"""Presets whose weights come from a file; size and preprocessing are those of torchvision's weights."""


@dataclass(frozen=True)
class MaeViT:
    """A ViT fine-tuned after MAE pre-training: its architecture in timm, and the file that its authors publish."""

    architecture: str
    file: str
    note: str

    @property
    def url(self) -> str:
        """Where the file is published."""
        return f"https://dl.fbaipublicfiles.com/mae/finetune/{self.file}"


_MAE = "MAE, fine-tuned on ImageNet-1k: averages all patches; proportional attention is off unless asked for"

MAE: Mapping[str, MaeViT] = {
    "mae_vit_b_16": MaeViT("vit_base_patch16_224", "mae_finetuned_vit_base.pth", _MAE),
    "mae_vit_l_16": MaeViT("vit_large_patch16_224", "mae_finetuned_vit_large.pth", _MAE),
    "mae_vit_h_14": MaeViT("vit_huge_patch14_224", "mae_finetuned_vit_huge.pth", _MAE),
}
"""Presets for official MAE files and for those that were fine-tuned with ToMe, which turn proportional attention on."""

PRESETS: Mapping[str, str] = {
    "digits_vit": "a small ViT trained on the embedded digits; its weights are part of the package",
    "digits_rope": "the same with rotary positions instead of learned ones (timm's Eva); its weights, too",
    **{name: preset.note for name, preset in TORCHVISION.items()},
    **{name: preset.note for name, preset in MAE.items()},
}
"""Names of models that are no timm id, each with a line about it."""


def default_prop_attn(name: str) -> bool:
    """Whether proportional attention is on by default for a model: for all but MAE's own weights."""
    return name not in MAE
