"""Image size of a model of timm's: whether it is square, the grid of its positions, and the size that was asked for."""

from __future__ import annotations

from typing import Any

from timm.models.naflexvit import NaFlexVit
from torch import nn

from tomebench.datasets.decode import printable
from tomebench.errors import ModelError


def remember_size(model: nn.Module, size: int | None) -> nn.Module:
    """Remember the image size that a NaFlexVit was asked for: it takes images of any size, and forgets it.

    Raises:
        ModelError: it cannot cut such an image into patches.
    """
    if size is None or not isinstance(model, NaFlexVit):
        return model
    embeds: Any = model.embeds
    patch = max(embeds.patch_size)
    if size < patch or (embeds.is_linear and size % patch and not embeds.dynamic_img_pad):
        raise ModelError(f"the model cannot take {size} pixels: its patches are of {patch}; give a multiple of that")
    embeds.default_img_size = (size, size)
    return model


def check_square(name: str, model: Any) -> None:
    """Refuse a model of oblong images, whose position embedding would be loaded as if its patches filled a square.

    The number of patches alone cannot tell: 8 x 18 is 12 x 12.
    """
    height, width = getattr(getattr(model, "patch_embed", None), "grid_size", None) or (1, 1)
    if height != width:
        pixels = " x ".join(map(str, model.patch_embed.img_size))
        raise ModelError(
            f"model {printable(name)} takes images of {pixels} pixels; only models of square images are supported"
        )


def grid_of(model: Any) -> tuple[int, int] | None:
    """(Height, width) in patches of a model whose weights depend on it: positions, or biases by them; else None."""
    grid = getattr(getattr(model, "patch_embed", None), "grid_size", None)
    placed = getattr(model, "pos_embed", None) is not None
    placed = placed or any(name.endswith("relative_position_bias_table") for name, _ in model.named_parameters())
    return tuple(grid) if grid is not None and placed else None


def prefix_positions(model: Any) -> int:
    """Number of a model's position embeddings that belong to prefix tokens."""
    return 0 if getattr(model, "no_embed_class", False) else int(getattr(model, "num_prefix_tokens", 1))
