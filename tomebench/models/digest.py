"""What tells one model from another: digests of its tensors and of its layers."""

from __future__ import annotations

import hashlib

import torch
from torch import nn


def tensors_digest(model: nn.Module) -> str:
    """Sixteen hex digits of all parameters and buffers, by name."""
    found = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        found.update(name.encode())
        tensor = value.detach().cpu().contiguous()
        found.update(tensor.flatten().view(torch.uint8).numpy().tobytes())  # numpy has no bfloat16
    return found.hexdigest()[:16]


def layers_digest(model: nn.Module) -> str:
    """Sixteen hex digits of a model's layers and their settings, which no tensor says.

    Of two models with the same tensors one may take the class token and the other the mean, or have other heads.
    """
    found = hashlib.sha256(repr(model).encode())
    for name, layer in model.named_modules():
        settings = {key: value for key, value in vars(layer).items() if isinstance(value, str | int | float)}
        settings.pop("training", None)
        found.update(f"{name} {sorted(settings.items())}\n".encode())
    return found.hexdigest()[:16]
