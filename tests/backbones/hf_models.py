"""Small transformers models of every class that is adapted, with redrawn weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

SIZE = 32
_VIT = {
    "hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 3, "intermediate_size": 96, "image_size": SIZE,
    "patch_size": 4,
}  # fmt: skip
_DINOV2 = {**{name: value for name, value in _VIT.items() if name != "intermediate_size"}, "mlp_ratio": 2}
LABELS = {"num_labels": 7}


def _of(config: str, **settings: Any) -> Any:
    import transformers

    return getattr(transformers, config)(**settings)


def _build(kind: str, config: str, **settings: Any) -> nn.Module:
    import transformers

    return getattr(transformers, kind)._from_config(_of(config, **settings), attn_implementation="sdpa")


def _with_tower(kind: str, config: str, tower: str, **settings: Any) -> nn.Module:
    return _build(kind, config, vision_config=_of(tower, **_VIT).to_dict(), **settings)


MODELS: dict[str, Callable[[], nn.Module]] = {
    "vit": lambda: _build("ViTForImageClassification", "ViTConfig", **_VIT, **LABELS),
    "vit-encoder": lambda: _build("ViTModel", "ViTConfig", **_VIT),
    "deit": lambda: _build("DeiTForImageClassification", "DeiTConfig", **_VIT, **LABELS),
    "deit-distilled": lambda: _build("DeiTForImageClassificationWithTeacher", "DeiTConfig", **_VIT, **LABELS),
    "deit-encoder": lambda: _build("DeiTModel", "DeiTConfig", **_VIT),
    "dinov2": lambda: _build("Dinov2ForImageClassification", "Dinov2Config", **_DINOV2, **LABELS),
    "dinov2-swiglu": lambda: _build("Dinov2Model", "Dinov2Config", **_DINOV2, use_swiglu_ffn=True),
    "dinov2-registers": lambda: _build(
        "Dinov2WithRegistersForImageClassification", "Dinov2WithRegistersConfig", **_DINOV2, **LABELS
    ),
    "dinov2-registers-encoder": lambda: _build(
        "Dinov2WithRegistersModel", "Dinov2WithRegistersConfig", **_DINOV2, num_register_tokens=2
    ),
    "dinov3": lambda: _build("DINOv3ViTModel", "DINOv3ViTConfig", **_VIT, num_register_tokens=4),
    "dinov3-gated": lambda: _build("DINOv3ViTModel", "DINOv3ViTConfig", **_VIT, use_gated_mlp=True),
    "siglip": lambda: _with_tower("SiglipForImageClassification", "SiglipConfig", "SiglipVisionConfig", **LABELS),
    "siglip-encoder": lambda: _build("SiglipVisionModel", "SiglipVisionConfig", **_VIT),
    "clip": lambda: _with_tower("CLIPForImageClassification", "CLIPConfig", "CLIPVisionConfig", **LABELS),
    "clip-encoder": lambda: _build("CLIPVisionModel", "CLIPVisionConfig", **_VIT),
    "clip-projection": lambda: _build("CLIPVisionModelWithProjection", "CLIPVisionConfig", **_VIT, projection_dim=24),
    "beit": lambda: _build(
        "BeitForImageClassification", "BeitConfig", **_VIT, **LABELS, use_relative_position_bias=True
    ),
    "beit-shared": lambda: _build(
        "BeitModel", "BeitConfig", **_VIT, use_shared_relative_position_bias=True, use_relative_position_bias=True,
        use_mean_pooling=False, use_absolute_position_embeddings=True, layer_scale_init_value=0.0,
    ),
}  # fmt: skip
"""Models by a short name."""


def build(name: str, seed: int = 0) -> nn.Module:
    """A model in evaluation mode whose every parameter, norms and scales and heads included, is drawn anew."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = MODELS[name]().eval()
        with torch.no_grad():
            for parameter in filter(torch.Tensor.numel, model.parameters()):
                spread = 0.2 if parameter.ndim < 2 else 1.5 * parameter[0].numel() ** -0.5
                parameter.copy_(torch.randn(parameter.shape) * spread + (1 if parameter.ndim == 1 else 0))
    return model


def output(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Logits of transformers' own pass; of a model without classes, what it pools."""
    found: Any = model(pixel_values=images)
    names = ("logits", "image_embeds", "pooler_output")
    return next(found[name] for name in names if found.get(name) is not None)
