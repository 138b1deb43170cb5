"""Base of the adapters of timm's ViTs: what they share, from the number of tokens to the class head."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

import torch
from timm.layers import Attention, AttentionPoolLatent
from torch import Tensor, nn

from tomebench.backbones.blockwise import Blockwise
from tomebench.backbones.parts import (
    embedding_macs,
    first_unknown,
    linear_macs,
    parts_of,
    refusal,
    refuse_hooks,
    refuse_uncounted,
    replaced_methods,
)
from tomebench.backbones.timm_attention import ATTENTIONS
from tomebench.backbones.timm_blocks import PreNorm, TimmBlock, adapt_block
from tomebench.reduction.attention import log_size_bias
from tomebench.reduction.macs import MacTerms
from tomebench.reduction.tokens import Tokens

_POOLS = ("", "token", "avg", "avgmax", "max", "map")


class TimmModel(Blockwise):
    """Adapter of one of timm's ViTs (a :class:`tomebench.reduction.backbone.Backbone`).

    Args:
        model: of one of ``KINDS``; used as it is, nothing is stored on it.

    Raises:
        UnsupportedModelError: the model has a part that merging does not know; names its class and attribute.
    """

    KINDS: ClassVar[tuple[type[nn.Module], ...]]
    """Classes of models that the adapter runs, not their subclasses, of which nothing says what they change."""
    PARTS: ClassVar[set[str]]
    """Names of all sub-modules, parameters and buffers of the model."""

    def __init__(self, model: nn.Module) -> None:
        self._model: Any = model
        super().__init__(model, self._checked())

    @property
    def prefix(self) -> int:
        """Class, distillation and register tokens at the front."""
        return int(self._model.num_prefix_tokens)

    @property
    def class_token(self) -> bool:
        """True if token 0 is a class token; registers may be there without one."""
        return self._model.cls_token is not None

    @property
    def tokens(self) -> int:
        """Tokens before the first block at the model's own image size, prefix included."""
        patch_embed = self._model.patch_embed
        height, width = patch_embed.dynamic_feat_size(patch_embed.img_size)  # unlike num_patches, knows about padding
        return int(height) * int(width) + self.prefix

    @property
    def head_reads_prefix_only(self) -> bool:
        """True if the class head reads class and distillation tokens only."""
        return self._model.global_pool == "token" and self._attn_pool is None

    @property
    def _attn_pool(self) -> Any:
        """The attention pooling of the class head; None where there is none."""
        return getattr(self._model, "attn_pool", None)

    @abstractmethod
    def embed(self, images: Tensor) -> Tokens:
        """[B, 3, H, W] -> tokens [B, N, C], of size one."""

    def norm(self, x: Tensor) -> Tensor:
        """[B, N, C] -> features [B, N, C]: the norm after the last block."""
        return self._model.norm(x)

    def head_counts_sizes(self, prop_attn: bool) -> bool:
        """True if the class head pools over tokens, each weighted by its size."""
        model = self._model
        return prop_attn if self._attn_pool is not None else model.global_pool in ("avg", "avgmax")

    def head(self, features: Tensor, size: Tensor | None, prop_attn: bool, *, pre_logits: bool = False) -> Tensor:
        """Class head: features [B, N, C] -> logits, or with ``pre_logits`` what its last layer maps to them.

        Averages weight tokens by size; attention pooling does so when ``prop_attn`` is on.
        """
        model = self._model
        if size is None:
            return model.forward_head(features, pre_logits=pre_logits)
        x = model.head_drop(model.fc_norm(self._pool(features, size, prop_attn)))
        return x if pre_logits else model.head(x)

    @property
    def first_pooled(self) -> int:
        """The first token that the class head pools over; those before it, of the prefix, are left out."""
        return self.prefix

    def _pool(self, x: Tensor, size: Tensor, prop_attn: bool) -> Tensor:
        kind, first = self._model.global_pool, self.first_pooled
        if self._attn_pool is not None:
            bias = log_size_bias(size[:, first:], x.dtype) if prop_attn else None
            return self._attn_pool(x[:, first:], attn_mask=bias)
        if kind in ("", "token"):
            return x[:, 0] if kind else x
        x, weight = x[:, first:], size[:, first:, None]
        if kind in ("max", "avgmax"):  # padding, of size 0, is no maximum
            largest = x.masked_fill(weight == 0, -torch.inf).amax(dim=1)
            if kind == "max":
                return largest
        mean = ((x * weight).sum(dim=1) / weight.sum(dim=1)).to(x.dtype)
        return 0.5 * (largest + mean) if kind == "avgmax" else mean

    def embedding_macs(self) -> int:
        """MACs of the patch embedding."""
        return embedding_macs(self._model)

    @torch.no_grad()
    def macs(self) -> MacTerms:
        """MACs of the model's matmuls, in terms per image, per token and per pair of tokens."""
        model = self._model
        pool_per_token, pool_fixed = 0, 0
        if (pool := self._attn_pool) is not None:
            pool_per_token = linear_macs(pool.kv) + 2 * pool.num_heads * pool.head_dim
            pool_fixed = linear_macs(pool) - linear_macs(pool.kv)
        heads = [model.head, getattr(model, "head_dist", None)]
        return MacTerms(
            embed=self.embedding_macs(),
            blocks=tuple(block.macs() for block in self._blocks),
            pool_per_token=pool_per_token,
            head=pool_fixed - pool_per_token * self.first_pooled + sum(linear_macs(h) for h in heads if h is not None),
            class_token=self.class_token,
        )

    def check(self) -> None:
        """Raise unless the parts that are the adapter's own are ones that it runs."""

    def _checked(self) -> tuple[TimmBlock, ...]:
        """The adapters of the blocks; raises unless every part of the model is one that is run."""
        model, name = self._model, type(self._model).__name__
        if type(model) not in self.KINDS:
            raise refusal(f"{name} {self._what_is_new()}")
        if unknown := first_unknown([*parts_of(model), *replaced_methods(model)], self.PARTS):
            raise refusal(f"{name} has {unknown!r}")
        if len(model.blocks) == 0:
            raise refusal(f"{name} has an empty 'blocks'")
        refuse_hooks(model)
        refuse_hooks(model.blocks)
        blocks = tuple(adapt_block(block, name) for block in model.blocks)
        for part in ("head", "head_dist"):
            refuse_uncounted(getattr(model, part, None) or nn.Identity(), f"{part!r} of {name}")
        if model.global_pool not in _POOLS:
            raise refusal(f"{name} has 'global_pool' {model.global_pool!r}")
        if (pool := self._attn_pool) is not None:
            if type(pool) is not AttentionPoolLatent:
                raise refusal(f"{type(pool).__name__} in 'attn_pool' of {name}")
            if pool.pos_embed is not None:
                raise refusal("AttentionPoolLatent has 'pos_embed'")
        self.check()
        return blocks

    def _what_is_new(self) -> str:
        """The first part, from the outside in, that a model of standard blocks does not have."""
        model = self._model
        if unknown := first_unknown(parts_of(model), self.PARTS):
            return f"has {unknown!r}"
        blocks = getattr(model, "blocks", None)
        if isinstance(blocks, (nn.Sequential, nn.ModuleList)) and len(blocks):
            block = blocks[0]
            if unknown := first_unknown(parts_of(block), PreNorm.PARTS):
                return f"has blocks with {unknown!r}"
            attn = getattr(block, "attn", None)
            if isinstance(attn, nn.Module) and (unknown := first_unknown(parts_of(attn), ATTENTIONS[Attention])):
                return f"has attention with {unknown!r}"
        return "has a 'forward' of its own"
