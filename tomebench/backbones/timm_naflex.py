"""Adapter of timm's ``NaFlexVit`` (SigLIP 2 NaFlex, RADIO, ...) on images of one size, whose tokens need no mask."""

from __future__ import annotations

from typing import Any, ClassVar

from timm.models.naflexvit import NaFlexVit
from torch import Tensor, nn

from tomebench.backbones.parts import linear_macs, refusal
from tomebench.backbones.timm_eva import TimmEva
from tomebench.reduction.positions import Rotations
from tomebench.reduction.tokens import Tokens


class TimmNaFlex(TimmEva):
    """Adapter of one timm NaFlexVit (a :class:`tomebench.reduction.backbone.Backbone`).

    Args:
        model: used as it is; nothing is stored on it.

    Raises:
        UnsupportedModelError: the model has a part that merging does not know; names its class and attribute.
    """

    KINDS: ClassVar[tuple[type[nn.Module], ...]] = (NaFlexVit,)
    PARTS: ClassVar[set[str]] = {
        *("embeds", "norm_pre", "rope", "patch_drop", "blocks", "norm", "attn_pool", "fc_norm", "head_drop", "head"),
    }

    def check(self) -> None:
        """Raise unless the positions are of a kind that is known, and no patch is dropped in training."""
        super().check()
        if self._model.patch_drop is not None:
            raise refusal("NaFlexVit has 'patch_drop'")

    @property
    def class_token(self) -> bool:
        """True if token 0 is a class token."""
        return bool(self._model.has_class_token)

    @property
    def tokens(self) -> int:
        """Tokens before the first block at the model's own image size, prefix included."""
        height, width = self._model.embeds.dynamic_feat_size(self._img_size)
        return int(height) * int(width) + self.prefix

    @property
    def _img_size(self) -> tuple[int, int]:
        """Height and width that the model was built for, else those of its published weights, else of its grid."""
        model: Any = self._model
        published = getattr(model, "pretrained_cfg", None) or {}
        size = model.embeds.default_img_size or published.get("input_size")
        if size is None:  # made without settings: that of its grid of positions
            grid = model.embeds.pos_embed_grid_size or (16, 16)
            size = [cells * side for cells, side in zip(grid, model.embeds.patch_size, strict=True)]
        height, width = size[-2:]
        return int(height), int(width)

    def embed(self, images: Tensor) -> Tokens:
        """[B, 3, H, W] -> tokens [B, N, C], of size one, and their rotations."""
        found = self._model._forward_embeds(images, None, None, None)
        table = found["rope_embeds"]
        return Tokens(found["patches"], position=None if table is None else Rotations(table, self.prefix))

    @property
    def first_pooled(self) -> int:
        """The first token that the class head pools over; those before it, of the prefix, are left out."""
        return 0 if self._model.pool_include_prefix else self.prefix

    def embedding_macs(self) -> int:
        """MACs of the patch embedding, a linear layer or a convolution of as many weights."""
        weights = linear_macs(self._model.embeds)
        convolutions = (part for part in self._model.embeds.modules() if isinstance(part, nn.Conv2d))
        return (weights + sum(part.weight.numel() for part in convolutions)) * (self.tokens - self.prefix)
