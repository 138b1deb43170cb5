"""Adapters of timm's ViTs that add a bias by relative position: ``Beit`` and ``VisionTransformerRelPos``.

The bias of each head and pair of tokens depends on how they lie to each other. A merged token lies where the token lies
that stays, so that the bias of the tokens left is rows and columns of the model's own, another for every image. With it
attention reads N² numbers for each head and image, and no flash kernel of CUDA takes it.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from timm.models.beit import Beit
from timm.models.vision_transformer_relpos import VisionTransformerRelPos
from torch import Tensor, nn

from tomebench.backbones.blockwise import Place
from tomebench.backbones.parts import refusal, refuse_hooks
from tomebench.backbones.timm_attention import RELATIVE
from tomebench.backbones.timm_model import TimmModel
from tomebench.reduction.positions import Places
from tomebench.reduction.tokens import Tokens


class TimmRelative(TimmModel):
    """Adapter of one timm Beit or VisionTransformerRelPos (a :class:`tomebench.reduction.backbone.Backbone`).

    Args:
        model: used as it is; nothing is stored on it.

    Raises:
        UnsupportedModelError: the model has a part that merging does not know; names its class and attribute.
    """

    KINDS: ClassVar[tuple[type[nn.Module], ...]] = (Beit, VisionTransformerRelPos)
    PARTS: ClassVar[set[str]] = {
        *("patch_embed", "cls_token", "pos_embed", "pos_drop", "shared_rel_pos"),
        *("blocks", "norm", "fc_norm", "head_drop", "head"),
    }

    @property
    def _shared(self) -> Any:
        """The module that makes one bias for all blocks; None where there is none."""
        return getattr(self._model, "shared_rel_pos", None)

    def check(self) -> None:
        """Raise unless a bias of all blocks is one that is known."""
        name = type(self._model).__name__
        if self._shared is not None:
            if type(self._shared) not in RELATIVE:
                raise refusal(f"{type(self._shared).__name__} in 'shared_rel_pos' of {name}")
            refuse_hooks(self._shared)
        if self._model.global_pool not in ("", "avg", "token"):
            raise refusal(f"{name} has 'global_pool' {self._model.global_pool!r}")

    def own_bias(self, layer: int) -> bool:
        """Whether the attention of a block adds a bias by position to its scores."""
        return self._shared is not None or super().own_bias(layer)

    def embed(self, images: Tensor) -> Tokens:
        """[B, 3, H, W] -> tokens [B, N, C], of size one, and their places."""
        model = self._model
        x = model.patch_embed(images)
        if model.cls_token is not None:
            x = torch.cat((model.cls_token.expand(x.shape[0], -1, -1), x), dim=1)
        if isinstance(model, Beit):
            x = model.pos_drop(x if model.pos_embed is None else x + model.pos_embed)
        return Tokens(x, position=Places(None if self._shared is None else self._shared.get_bias()))

    def place(self, layer: int, tokens: Tokens) -> Place:
        """What the attention of a block has to know of where tokens are: the bias of each pair of them."""
        assert isinstance(tokens.position, Places)
        bias = self._blocks[layer].position_bias()
        bias = tokens.position.shared if bias is None else bias
        return Place() if bias is None else Place(bias=tokens.position.of_pairs(bias, tokens.x.shape[1]))
