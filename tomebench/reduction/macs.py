"""Counting of MACs: multiply-accumulates of a ViT's matmuls, and of the matching, from shapes.

The ToMe paper (arXiv 2210.09461) prints the MACs of a model as GFLOPs. Norms, softmax and activations are not counted;
the matching is counted apart (:meth:`MacTerms.gmacs_matching`). Nothing is traced, because tracing counters miss fused
attention in some releases.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tomebench.reduction.method import BlockSize, Method


@dataclass(frozen=True)
class BlockMacs:
    """MACs of one block, per token and per pair of tokens."""

    attention_per_token: int  # qkv, output projection, gate
    attention_per_pair: int  # q kᵀ and the weighted sum of values, per pair of tokens
    mlp_per_token: int
    metric_dim: int  # d of the keys, which matching compares by default
    width: int  # channels of a token


@dataclass(frozen=True)
class MacTerms:
    """MACs of a model, in terms per image, per token and per pair of tokens."""

    embed: int  # per image
    blocks: tuple[BlockMacs, ...]
    pool_per_token: int  # attention pooling, per token left at the end
    head: int  # per image
    class_token: bool = True  # whether a class token ranks the others, for methods that go by its attention

    def size(self, block: BlockMacs) -> BlockSize:
        """What the MACs of choosing a plan in a block depend on."""
        heads_dim = block.attention_per_pair // 2
        return BlockSize(block.metric_dim, heads_dim, block.width, block.mlp_per_token, self.class_token)

    def gmacs(self, tokens_in: int, tokens: Sequence[int]) -> float:
        """GMACs (1e9 multiply-accumulates) of the model for one image.

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
        """GMACs that a method takes to choose its plans for one image, over all blocks that lose tokens."""
        total = 0.0
        for block, before, after in zip(self.blocks, (tokens_in, *tokens[:-1]), tokens, strict=True):
            if after < before:
                total += method.cost(before, before - after, self.size(block))
        return total / 1e9
