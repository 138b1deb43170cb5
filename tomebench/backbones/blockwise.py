"""Base of all adapters: a ViT as blocks, each as its two halves: the attention, after which tokens merge, and the MLP.

An adapter calls the model's own modules in the model's own order, so it keeps every feature they have (LayerScale, q/k
norm, registers, gates, drop-path, ...), and r = 0 gives the same bits as the model itself. Every attribute of every
part is checked against a list; a model with an unknown one is refused rather than run without it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from tomebench.backbones.parts import refuse_hooks
from tomebench.reduction.attention import kernel_name
from tomebench.reduction.macs import BlockMacs
from tomebench.reduction.method import Heads
from tomebench.reduction.positions import Rotary
from tomebench.reduction.tokens import Tokens
from tomebench.schema import Route


class Place(NamedTuple):
    """What attention has to know of where tokens are."""

    rotation: Tensor | None = None  # sines and cosines of patches, to be broadcast to [B, heads, N - P, 2 d]
    bias: Tensor | None = None  # added to the scores [B or 1, heads, N, N]


class HeadShape(NamedTuple):
    """Attention heads of a block, and how the model itself computes them."""

    heads: int
    width: int  # d, channels of a query
    fused: bool  # by PyTorch's fused attention


class Block(ABC):
    """One block of a model; nothing is stored on it.

    Args:
        block: of a class that the adapter runs.

    Raises:
        UnsupportedModelError: it has a part that is not run; names its class and attribute.
    """

    def __init__(self, block: nn.Module) -> None:
        # Any: torch types every attribute of a module as Tensor | Module.
        self.block: Any = block
        refuse_hooks(block)
        self.check()

    @abstractmethod
    def check(self) -> None:
        """Raise unless the parts of the block are ones that are run."""

    @property
    @abstractmethod
    def shape(self) -> HeadShape:
        """The heads of its attention; of several side by side, those of the first."""

    @property
    def mlp_first(self) -> bool:
        """Whether :meth:`attention` adds the MLP branch, too."""
        return False

    @property
    def biased(self) -> bool:
        """Whether the block has a bias of its own for each head and pair of tokens."""
        return False

    def position_bias(self) -> Tensor | None:
        """The block's own bias for each head and pair of all tokens, [1, heads, N, N]; None where there is none."""
        return None

    @abstractmethod
    def attention(self, x: Tensor, size: Tensor | None, route: Route, place: Place) -> tuple[Tensor, Heads]:
        """Tokens [B, N, C] -> (x plus its attention branch [B, N, C], queries, keys and values of the heads)."""

    @abstractmethod
    def mlp(self, x: Tensor) -> Tensor:
        """[B, N, C] -> x plus its MLP branch."""

    @abstractmethod
    def macs(self) -> BlockMacs:
        """MACs of the block's matmuls."""


class Blockwise:
    """Adapter of a model as blocks: that half of a :class:`tomebench.reduction.backbone.Backbone` that they make up.

    Args:
        model: used as it is, nothing is stored on it.
        blocks: of the model.
    """

    def __init__(self, model: nn.Module, blocks: Sequence[Block]) -> None:
        # Any: torch types every attribute of a module as Tensor | Module.
        self._model: Any = model
        self._blocks = tuple(blocks)

    @property
    def model(self) -> nn.Module:
        """The wrapped model."""
        return self._model

    @property
    def depth(self) -> int:
        """Number of blocks."""
        return len(self._blocks)

    @property
    def rotary(self) -> Rotary:
        """Whether queries and keys are rotated by their place, and by which angles."""
        return "no"

    @property
    def mlp_first(self) -> bool:
        """True if blocks add their MLP together with their attention."""
        return any(block.mlp_first for block in self._blocks)

    def attention_kernel(
        self, layer: int, route: Route, *, batch: int, n: int, biased: bool, dtype: torch.dtype, device: torch.device
    ) -> str:
        """Name of the kernel that :meth:`attention` runs on ``batch`` images of ``n`` tokens."""
        heads, width, fused = self._blocks[layer].shape
        shape, own = (batch, heads, n, width), self.own_bias(layer)
        return kernel_name(route, shape=shape, biased=biased, fused=fused, dtype=dtype, device=device, own_bias=own)

    def own_bias(self, layer: int) -> bool:
        """Whether the attention of a block adds a bias by position to its scores."""
        return self._blocks[layer].biased

    def attention(self, layer: int, tokens: Tokens, route: Route = "auto") -> tuple[Tensor, Heads]:
        """Tokens [B, N, C] -> (x plus its attention branch [B, N, C], queries, keys and values of the heads).

        Proportional attention where the tokens have sizes: each key counts as often as its size.
        """
        return self._blocks[layer].attention(tokens.x, tokens.size, route, self.place(layer, tokens))

    def place(self, layer: int, tokens: Tokens) -> Place:
        """What the attention of a block has to know of where tokens are."""
        return Place()

    def mlp(self, layer: int, x: Tensor) -> Tensor:
        """[B, N, C] -> x plus its MLP branch."""
        return self._blocks[layer].mlp(x)
