"""Adapter of timm's ``Eva``, mostly rotary ViTs: EVA, EVA-02, DINOv3, Perception Encoder, RoPE-ViT, SBB, Sapiens2."""

from __future__ import annotations

from typing import ClassVar

from timm.layers.pos_embed_sincos import (
    RotaryEmbeddingCat,
    RotaryEmbeddingDinoV3,
    RotaryEmbeddingMixed,
    RotaryEmbeddingMRope,
)
from timm.models.eva import Eva
from torch import Tensor, nn

from tomebench.backbones.blockwise import Place
from tomebench.backbones.parts import refusal
from tomebench.backbones.timm_model import TimmModel
from tomebench.reduction.positions import Rotary, Rotations
from tomebench.reduction.tokens import Tokens

_ROPES = (RotaryEmbeddingCat, RotaryEmbeddingDinoV3, RotaryEmbeddingMixed, RotaryEmbeddingMRope)


class TimmEva(TimmModel):
    """Adapter of one timm Eva (a :class:`tomebench.reduction.backbone.Backbone`).

    The model's own table of rotations is asked for once in every pass, and goes from block to block with the tokens.

    Args:
        model: used as it is; nothing is stored on it.

    Raises:
        UnsupportedModelError: the model has a part that merging does not know; names its class and attribute.
    """

    KINDS: ClassVar[tuple[type[nn.Module], ...]] = (Eva,)
    PARTS: ClassVar[set[str]] = {
        *("patch_embed", "cls_token", "reg_token", "pos_embed", "pos_drop", "rope", "norm_pre"),
        *("blocks", "norm", "attn_pool", "fc_norm", "head_drop", "head"),
    }

    @property
    def rotary(self) -> Rotary:
        """Whether queries and keys are rotated by their place, and by which angles."""
        if (rope := self._model.rope) is None:
            return "no"
        return "by head" if isinstance(rope, RotaryEmbeddingMixed) else "shared"

    def check(self) -> None:
        """Raise unless the positions are of a kind that is known."""
        rope = self._model.rope
        if rope is not None and type(rope) not in _ROPES:
            raise refusal(f"{type(rope).__name__} in 'rope' of {type(self._model).__name__}")

    def embed(self, images: Tensor) -> Tokens:
        """[B, 3, H, W] -> tokens [B, N, C], of size one, and their rotations."""
        model = self._model
        x, table = model._pos_embed(model.patch_embed(images))
        return Tokens(model.norm_pre(x), position=None if table is None else Rotations(table, self.prefix))

    def place(self, layer: int, tokens: Tokens) -> Place:
        """What the attention of a block has to know of where tokens are: the rotations of patches."""
        return Place(tokens.position.at(layer)) if isinstance(tokens.position, Rotations) else Place()

    @property
    def first_pooled(self) -> int:
        """The first token that the class head pools over: attention pooling reads the prefix, too."""
        return self.prefix if self._model.attn_pool is None else 0
