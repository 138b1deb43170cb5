"""Class heads on image features: zero-shot by class embeddings, k nearest neighbours, linear probe."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ClassEmbeddings(nn.Module):
    """Zero-shot class head: image features [B, D] to scores [B, classes], their scaled cosines with class embeddings.

    Args:
        embeddings: of the classes [classes, D]; they need not be of length one.
        scale: what cosines are multiplied by.
        bias: what is added then.
    """

    weight: Tensor

    def __init__(self, embeddings: Tensor, scale: float = 1.0, bias: float = 0.0) -> None:
        super().__init__()
        self.register_buffer("weight", embeddings / embeddings.norm(dim=-1, keepdim=True))
        self.scale, self.bias = scale, bias

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return int(self.weight.shape[0])

    def forward(self, features: Tensor) -> Tensor:
        """[B, D] -> [B, classes]."""
        cosines = (features / features.norm(dim=-1, keepdim=True)) @ self.weight.t()
        return cosines * self.scale + self.bias


class NearestNeighbours(nn.Module):
    """k-NN class head: image features [B, D] to the votes [B, classes] of the k most similar features of known class.

    A neighbour votes for its class with exp((cosine - 1) / temperature) (Wu et al., CVPR 2018).

    Args:
        features: of images [n, D]; they need not be of length one.
        labels: their classes, int64 [n], each in [0, classes).
        num_classes: number of classes.
        k: neighbours that vote, in [1, n].
        temperature: above 0.
    """

    weight: Tensor
    labels: Tensor

    def __init__(self, features: Tensor, labels: Tensor, num_classes: int, k: int, temperature: float) -> None:
        super().__init__()
        self.register_buffer("weight", F.normalize(features, dim=-1))
        self.register_buffer("labels", labels)
        self.num_classes, self.k, self.temperature = num_classes, k, temperature

    def forward(self, features: Tensor) -> Tensor:
        """[B, D] -> [B, classes], float32."""
        near, which = (F.normalize(features, dim=-1) @ self.weight.t()).float().topk(self.k, dim=1)
        votes = ((near - 1) / self.temperature).exp()
        of_class = self.labels[which][:, :, None] == torch.arange(self.num_classes, device=features.device)
        # A product, since scatter_add on a GPU adds in an order of its own, and equal passes would differ in bits.
        return (votes[:, None] @ of_class.to(votes.dtype))[:, 0]


class LinearProbe(nn.Linear):
    """Linear probe: image features [B, D] to logits [B, classes].

    Args:
        weight: [classes, D].
        bias: [classes].
    """

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__(weight.shape[1], weight.shape[0], device="meta")
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias)

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return self.out_features


AnyHead = ClassEmbeddings | NearestNeighbours | LinearProbe
