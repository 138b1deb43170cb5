"""Backbone: interface of an adapter, by which a model's blocks are run one by one."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from tomebench.reduction.macs import MacTerms
from tomebench.reduction.method import Heads
from tomebench.reduction.positions import Rotary
from tomebench.reduction.tokens import Tokens
from tomebench.schema import Route


class Backbone(Protocol):
    """Interface of an adapter: the parts of a ViT. :func:`tomebench.backbones.adapt.adapt` gives that of a model."""

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
    def class_token(self) -> bool:
        """True if token 0 is a class token."""

    @property
    def rotary(self) -> Rotary:
        """Whether queries and keys are rotated by their place, and by which angles."""

    @property
    def mlp_first(self) -> bool:
        """True if blocks add their MLP together with their attention: :meth:`attention` has both, :meth:`mlp` none."""

    @property
    def tokens(self) -> int:
        """Tokens before the first block at the model's own image size, prefix included."""

    def embed(self, images: Tensor) -> Tokens:
        """[B, 3, H, W] -> tokens [B, N, C], of size one: everything before the first block."""

    @property
    def head_reads_prefix_only(self) -> bool:
        """True if the class head reads class and distillation tokens only."""

    def attention(self, layer: int, tokens: Tokens, route: Route) -> tuple[Tensor, Heads]:
        """Tokens [B, N, C] -> (x plus its attention branch [B, N, C], queries, keys and values of the heads).

        Proportional attention where the tokens have sizes: each key counts as often as its size.
        """

    def attention_kernel(
        self, layer: int, route: Route, *, batch: int, n: int, biased: bool, dtype: torch.dtype, device: torch.device
    ) -> str:
        """Name of the kernel that :meth:`attention` runs on ``batch`` images of ``n`` tokens."""

    def mlp(self, layer: int, x: Tensor) -> Tensor:
        """[B, N, C] -> x plus its MLP branch [B, N, C]."""

    def norm(self, x: Tensor) -> Tensor:
        """[B, N, C] -> features [B, N, C]: the norm after the last block."""

    def head_counts_sizes(self, prop_attn: bool) -> bool:
        """True if the class head pools over tokens, each weighted by its size."""

    def head(self, features: Tensor, size: Tensor | None, prop_attn: bool, *, pre_logits: bool = False) -> Tensor:
        """Class head: features [B, N, C] -> logits, or with ``pre_logits`` what its last layer maps to them.

        Pooling weights each token by its size.
        """

    def macs(self) -> MacTerms:
        """MACs of the model's matmuls, in terms per image, per token and per pair of tokens."""
