"""Class heads on image features: zero-shot by class embeddings, k nearest neighbours, linear probe.

All compute in fp32 on features of any dtype: a sweep in bf16 is to show what bf16 does to the model, and cosines of
eight bits would tie.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class FeatureHead(nn.Module, ABC):
    """A class head whose tensors stay in fp32, whatever the dtype of the model.

    Args:
        weight: float32 [rows, D].
        num_classes: number of classes.
    """

    KIND: ClassVar[str]
    """What it is called in results."""
    weight: Tensor

    def __init__(self, weight: Tensor, num_classes: int) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.num_classes = num_classes

    @abstractmethod
    def scores(self, features: Tensor) -> Tensor:
        """Float32 [B, D] -> float32 [B, classes]."""

    def forward(self, features: Tensor) -> Tensor:
        """[B, D] -> float32 [B, classes]."""
        with torch.autocast(features.device.type, enabled=False):
            return self.scores(features.float())

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        """Follow a model to its device, and not to its dtype."""
        return super()._apply(lambda tensor: tensor.to(fn(tensor.new_empty(0)).device), recurse)


class ClassEmbeddings(FeatureHead):
    """Zero-shot class head: scores are the scaled cosines of image features and an embedding of each class.

    Args:
        embeddings: of the classes [classes, D]; they need not be of length one.
        scale: what cosines are multiplied by.
        bias: what is added then.
    """

    KIND: ClassVar[str] = "zero-shot"

    def __init__(self, embeddings: Tensor, scale: float = 1.0, bias: float = 0.0) -> None:
        super().__init__(embeddings / embeddings.norm(dim=-1, keepdim=True), len(embeddings))
        self.scale, self.bias = scale, bias

    def scores(self, features: Tensor) -> Tensor:
        """Float32 [B, D] -> float32 [B, classes]."""
        cosines = (features / features.norm(dim=-1, keepdim=True)) @ self.weight.t()
        return cosines * self.scale + self.bias


class NearestNeighbours(FeatureHead):
    """k-NN class head: the votes of the k most similar features of known class.

    A neighbour votes for its class with exp(cosine / temperature) (Wu et al., CVPR 2018), here in terms of the vote of
    the nearest.

    Args:
        features: of images [n, D]; they need not be of length one.
        labels: their classes, int64 [n], each in [0, classes).
        num_classes: number of classes.
        k: neighbours that vote, in [1, n].
        temperature: above 0.
    """

    KIND: ClassVar[str] = "k-NN"
    labels: Tensor

    def __init__(self, features: Tensor, labels: Tensor, num_classes: int, k: int, temperature: float) -> None:
        super().__init__(F.normalize(features, dim=-1), num_classes)
        self.register_buffer("labels", labels)
        self.k, self.temperature = k, temperature

    def scores(self, features: Tensor) -> Tensor:
        """Float32 [B, D] -> float32 [B, classes]."""
        near, which = (F.normalize(features, dim=-1) @ self.weight.t()).topk(self.k, dim=1)
        votes = ((near - near[:, :1]) / self.temperature).exp()
        of_class = self.labels[which][:, :, None] == torch.arange(self.num_classes, device=features.device)
        # A product, since scatter_add on a GPU adds in an order of its own, and equal passes would differ in bits.
        return (votes[:, None] @ of_class.to(votes.dtype))[:, 0]


class LinearProbe(FeatureHead):
    """Linear probe: logits are a linear map of image features.

    Args:
        weight: [classes, D].
        bias: [classes].
    """

    KIND: ClassVar[str] = "linear"
    bias: Tensor

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__(weight, len(weight))
        self.register_buffer("bias", bias)

    def scores(self, features: Tensor) -> Tensor:
        """Float32 [B, D] -> float32 [B, classes]."""
        return F.linear(features, self.weight, self.bias)
