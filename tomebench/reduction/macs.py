"""Multiply-accumulates of a ViT's matmuls, counted from shapes.

This is what the ToMe paper (arXiv 2210.09461) prints as GFLOPs. Norms, softmax and activations are not counted, nor is
the matching, which is a column of its own. Nothing is traced: tracing counters miss fused attention in some releases.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tomebench.reduction.method import BlockSize, Method


@dataclass(frozen=True)
class BlockMacs:
    """Costs of one block."""

    attention_per_token: int  # qkv, output projection, gate
    attention_per_pair: int  # q kᵀ and the weighted sum of values, per pair of tokens
    mlp_per_token: int
    metric_dim: int  # d of the keys, which matching compares by default
    width: int  # channels of a token

    @property
    def size(self) -> BlockSize:
        """What the cost of choosing depends on."""
        return BlockSize(head=self.metric_dim, heads=self.attention_per_pair // 2, token=self.width)


@dataclass(frozen=True)
class MacTerms:
    """Costs of a model, split by what they scale with."""

    embed: int  # per image
    blocks: tuple[BlockMacs, ...]
    pool_per_token: int  # attention pooling, per token left at the end
    head: int  # per image

    def gmacs(self, tokens_in: int, tokens: Sequence[int]) -> float:
        """1e9 multiply-accumulates for one image.

        Args:
            tokens_in: tokens before the first block.
            tokens: tokens after each block; attention sees those before it, the MLP those after the merge.
        """
        total = self.embed + self.head + self.pool_per_token * tokens[-1]
        for block, before, after in zip(self.blocks, (tokens_in, *tokens[:-1]), tokens, strict=True):
            total += block.attention_per_token * before + block.attention_per_pair * before**2
            total += block.mlp_per_token * after
        return total / 1e9

    def gmacs_matching(self, tokens_in: int, tokens: Sequence[int], method: Method) -> float:
        """1e9 multiply-accumulates that a method takes to choose for one image, in every block that loses tokens."""
        total = 0.0
        for block, before, after in zip(self.blocks, (tokens_in, *tokens[:-1]), tokens, strict=True):
            if after < before:
                total += method.cost(before, before - after, block.size)
        return total / 1e9
