"""Adapter of timm's ``VisionTransformer`` (ViT, DeiT, CLIP, SigLIP, DINOv2, ...), with and without distillation."""

from __future__ import annotations

from typing import ClassVar

from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from tomebench.backbones.timm_model import TimmModel
from tomebench.reduction.tokens import Tokens


class TimmViT(TimmModel):
    """Adapter of one timm VisionTransformer (a :class:`tomebench.reduction.backbone.Backbone`).

    Args:
        model: used as it is; nothing is stored on it.

    Raises:
        UnsupportedModelError: the model has a part that merging does not know; names its class and attribute.
    """

    KINDS: ClassVar[tuple[type[nn.Module], ...]] = (VisionTransformer, VisionTransformerDistilled)
    PARTS: ClassVar[set[str]] = {
        *("patch_embed", "cls_token", "reg_token", "dist_token", "pos_embed", "pos_drop", "patch_drop", "norm_pre"),
        *("blocks", "norm", "attn_pool", "fc_norm", "head_drop", "head", "head_dist"),
    }

    @property
    def _distilled(self) -> bool:
        return isinstance(self._model, VisionTransformerDistilled)

    @property
    def head_reads_prefix_only(self) -> bool:
        """True if the class head reads class and distillation tokens only."""
        return self._distilled or super().head_reads_prefix_only

    def embed(self, images: Tensor) -> Tokens:
        """[B, 3, H, W] -> tokens [B, N, C], of size one."""
        model = self._model
        return Tokens(model.norm_pre(model.patch_drop(model._pos_embed(model.patch_embed(images)))))

    def head_counts_sizes(self, prop_attn: bool) -> bool:
        """True if the class head pools over tokens, each weighted by its size."""
        return not self._distilled and super().head_counts_sizes(prop_attn)

    def head(self, features: Tensor, size: Tensor | None, prop_attn: bool, *, pre_logits: bool = False) -> Tensor:
        """Class head: features [B, N, C] -> logits, or with ``pre_logits`` what its last layer maps to them.

        Averages weight tokens by size; attention pooling does so when ``prop_attn`` is on.
        """
        return super().head(features, None if self._distilled else size, prop_attn, pre_logits=pre_logits)

    @property
    def first_pooled(self) -> int:
        """The first token that the class head pools over; those before it, of the prefix, are left out."""
        return 0 if self._model.pool_include_prefix else self.prefix
