"""Adapter of a model with a class head of ours on its image features."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from tomebench.backbones.adapt import adapt
from tomebench.reduction.macs import MacTerms


class HeadedBackbone:
    """Adapter of a ``Headed`` (a :class:`tomebench.reduction.backbone.Backbone`): that of its model, with its head.

    Args:
        model: its ``model`` maps images to features, its ``class_head`` these to scores.

    Raises:
        UnsupportedModelError: as :func:`tomebench.backbones.adapt.adapt`.
    """

    _model: Any  # torch types every attribute of a module as Tensor | Module

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._inner = adapt(self._model.model)

    def __getattr__(self, name: str) -> Any:
        """What is not of the head is that of the adapter of the model."""
        if name == "_inner":  # while it is copied, there is none yet
            raise AttributeError(name)
        return getattr(self._inner, name)

    @property
    def model(self) -> nn.Module:
        """The wrapped model, with the head."""
        return self._model

    def head(self, features: Tensor, size: Tensor | None, prop_attn: bool, *, pre_logits: bool = False) -> Tensor:
        """Class head: features [B, N, C] -> scores, or with ``pre_logits`` the image features."""
        pooled = self._inner.head(features, size, prop_attn)
        return pooled if pre_logits else self._model.class_head(pooled)

    @torch.no_grad()
    def macs(self) -> MacTerms:
        """MACs of the model's matmuls, and of the head's."""
        found = self._inner.macs()
        return replace(found, head=found.head + self._model.class_head.weight.numel())
