"""The one door to adapters: what runs a model block by block."""

from __future__ import annotations

from torch import nn

from tomebench.backbones.timm_vit import TimmViT
from tomebench.reduction.vit import Backbone


def adapt(model: nn.Module) -> Backbone:
    """The adapter of a model, which is used as it is: nothing is stored on it.

    Raises:
        UnsupportedModelError: the model has a part that merging does not know; names its class and attribute.
    """
    return TimmViT(model)
