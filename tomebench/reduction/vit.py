"""ReducedViT: a Vision Transformer run block by block, with fewer tokens after each block.

It wraps a model and changes nothing on it. Tokens and their sizes are passed from block to block as values; the model's
own modules do all the arithmetic. How a concrete model library exposes its parts is the business of a ``Backbone``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from tomebench.reduction.attention import log_size_bias
from tomebench.reduction.plan import MergePlan, compose_sources, merge
from tomebench.reduction.registry import Context, Method
from tomebench.reduction.schedule import TokenTrace, token_trace


class Backbone(Protocol):
    """The parts of a ViT that a reduction runs between. Adapters live in ``tomebench.backbones``."""

    @property
    def model(self) -> nn.Module:
        """The wrapped model."""

    @property
    def depth(self) -> int:
        """Number of blocks."""

    @property
    def prefix(self) -> int:
        """Class, distillation and register tokens at the front."""

    @property
    def tokens(self) -> int:
        """Tokens before the first block at the model's own image size, prefix included."""

    def embed(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] -> [B, N, C]: everything before the first block."""

    def attention(self, layer: int, x: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
        """[B, N, C] -> (x plus its attention branch [B, N, C], its keys [B, heads, N, d])."""

    def mlp(self, layer: int, x: Tensor) -> Tensor:
        """[B, N, C] -> x plus its MLP branch [B, N, C]."""

    def head(self, x: Tensor, size: Tensor | None, prop_attn: bool) -> Tensor:
        """[B, N, C] -> logits; pooling counts each token as often as its size says."""


class ReducedViT(nn.Module):
    """A ViT that removes tokens in its blocks, over the weights of the model it was given.

    Args:
        backbone: the model's parts.
        method: decides which tokens go where.
        r_layers: tokens to remove in each block, before the cap.
        prop_attn: let attention count a token as often as its size says.
    """

    def __init__(self, backbone: Backbone, method: Method, r_layers: Sequence[int], *, prop_attn: bool = True) -> None:
        super().__init__()
        if len(r_layers) != backbone.depth:
            raise ValueError(f"{len(r_layers)} values of r for {backbone.depth} blocks")
        self.model = backbone.model  # registered, so that .to(), .eval() and .parameters() reach the shared weights
        self.backbone = backbone
        self.method = method
        self.r_layers = tuple(r_layers)
        self.prop_attn = prop_attn
        self.training = self.model.training

    @property
    def trace(self) -> TokenTrace:
        """Tokens removed and left in every block at the model's own image size."""
        return token_trace(self.r_layers, self.backbone.tokens, self.backbone.prefix)

    @property
    def token_counts(self) -> list[int]:
        """Tokens after each block at the model's own image size."""
        return list(self.trace.tokens)

    def forward(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] -> logits [B, classes]."""
        x = self.backbone.embed(images)
        size: Tensor | None = None
        for layer, r in enumerate(self._applied(x)):
            x, size, _ = self._block(layer, r, x, size)
        return self.backbone.head(x, size, self.prop_attn)

    @torch.no_grad()
    def source_map(self, images: Tensor) -> Tensor:
        """The final token that each embedded token ended in, int64 [B, N]; -1 where it was dropped."""
        x = self.backbone.embed(images)
        size: Tensor | None = None
        source = torch.arange(x.shape[1], device=x.device).expand(x.shape[:2])
        for layer, r in enumerate(self._applied(x)):
            x, size, plan = self._block(layer, r, x, size)
            if plan is not None:
                source = compose_sources(source, plan)
        return source

    def _applied(self, x: Tensor) -> tuple[int, ...]:
        """Tokens to remove in each block from these [B, N, C] tokens, after the cap."""
        return token_trace(self.r_layers, x.shape[1], self.backbone.prefix).r_layers

    def _block(
        self, layer: int, r: int, x: Tensor, size: Tensor | None
    ) -> tuple[Tensor, Tensor | None, MergePlan | None]:
        """Run one block on [B, N, C]; the size of the tokens is None for as long as all are one."""
        bias = log_size_bias(size, x.dtype) if self.prop_attn else None
        x, keys = self.backbone.attention(layer, x, bias)
        plan = None
        if r > 0:
            metric = keys.mean(dim=1)
            plan = self.method(Context(x, metric, size, r, self.backbone.prefix, layer, self.backbone.depth))
            x, size = merge(plan, x, size)
        return self.backbone.mlp(layer, x), size, plan
