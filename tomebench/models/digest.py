"""What tells one model's weights from another's: a digest of its tensors."""

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
