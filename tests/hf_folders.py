"""Folders as transformers saves them: small models of random weights, and the real DeiT-Tiny under its names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
PROCESSORS: dict[str, dict[str, Any]] = {
    "squash": {"image_processor_type": "ViTImageProcessor", "size": {"height": 32, "width": 32}, "resample": 2},
    "crop": {
        "image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 36},
        "crop_size": {"height": 32, "width": 32}, "do_center_crop": True, "resample": 3,
    },
    "floats": {"image_processor_type": "DINOv3ViTImageProcessor", "size": {"height": 32, "width": 32}, "resample": 2},
}  # fmt: skip
"""Settings of image processors."""


def save(model: torch.nn.Module, folder: Path, processor: str | dict[str, Any] | None = "squash") -> Path:
    """Save a model of transformers, with the settings of an image processor beside it."""
    saved: Any = model
    saved.save_pretrained(folder)
    if processor is not None:
        put_processor(folder, PROCESSORS[processor] if isinstance(processor, str) else processor)
    return folder


def put_processor(folder: Path, settings: dict[str, Any]) -> None:
    """Write the settings of an image processor."""
    whole = {"do_resize": True, "do_rescale": True, "do_normalize": True, **IMAGENET, **settings}
    (folder / "preprocessor_config.json").write_text(json.dumps(whole))


def change(path: Path, **values: Any) -> None:
    """Change settings in a file of JSON."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def deit_tiny(weights: Path, folder: Path) -> Path:
    """Save timm's DeiT-Tiny as the ``ViTForImageClassification`` that transformers has of it."""
    from transformers import ViTConfig, ViTForImageClassification

    sizes = {"hidden_size": 192, "num_attention_heads": 3, "intermediate_size": 768, "layer_norm_eps": 1e-6}
    model = ViTForImageClassification(ViTConfig(**sizes, num_labels=1000))
    model.save_pretrained(folder)
    old = load_file(weights)
    new: dict[str, torch.Tensor] = {
        "vit.embeddings.cls_token": old["cls_token"],
        "vit.embeddings.position_embeddings": old["pos_embed"],
        "classifier.weight": old["head.weight"],
        "classifier.bias": old["head.bias"],
    }
    names = {
        "norm1": "layernorm_before", "norm2": "layernorm_after", "attn.proj": "attention.output.dense",
        "mlp.fc1": "intermediate.dense", "mlp.fc2": "output.dense",
    }  # fmt: skip
    for kind in ("weight", "bias"):
        new[f"vit.embeddings.patch_embeddings.projection.{kind}"] = old[f"patch_embed.proj.{kind}"]
        new[f"vit.layernorm.{kind}"] = old[f"norm.{kind}"]
        for layer in range(12):
            there = f"vit.encoder.layer.{layer}"
            for timm, hub in names.items():
                new[f"{there}.{hub}.{kind}"] = old[f"blocks.{layer}.{timm}.{kind}"]
            for name, part in zip(
                ("query", "key", "value"), old[f"blocks.{layer}.attn.qkv.{kind}"].chunk(3), strict=True
            ):
                new[f"{there}.attention.attention.{name}.{kind}"] = part.contiguous()
    save_file(new, folder / "model.safetensors", metadata={"format": "pt"})
    processor = {
        "image_processor_type": "ViTImageProcessor", "size": {"height": 224, "width": 224}, "resample": 3,
    }  # fmt: skip
    put_processor(folder, processor)
    return folder
