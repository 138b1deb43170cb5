"""Positions pass from block to block with their tokens, for the models whose blocks ask for them."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from backbones.zoo import images_for, prepare
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from tomebench.backbones.timm_vit import TimmViT
from tomebench.reduction.method import Heads
from tomebench.reduction.plan import MergePlan
from tomebench.reduction.registry import get_method
from tomebench.reduction.tokens import Tokens
from tomebench.reduction.vit import ReducedViT, SlicedViT
from tomebench.schema import Rope, Route


def small() -> VisionTransformer:
    model = VisionTransformer(img_size=32, patch_size=8, embed_dim=24, num_heads=2, depth=3, num_classes=5)
    return prepare(model)


class Places(NamedTuple):
    """Numbers of tokens, int64 [B, N]."""

    number: Tensor

    def after(self, plan: MergePlan, size: Tensor | None, rope: Rope) -> Places:
        return Places(self.number.gather(1, plan.kept))

    def first(self, n: int) -> Places:
        return Places(self.number[:, :n])


class Placed(TimmViT):
    """A backbone whose blocks ask where tokens are, as those with rotary positions do."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self.asked: list[Tensor] = []

    def embed(self, images: Tensor) -> Tokens:
        tokens = super().embed(images)
        return tokens._replace(position=Places(torch.arange(tokens.x.shape[1]).expand(tokens.x.shape[:2])))

    def attention(self, layer: int, tokens: Tokens, route: Route = "auto") -> tuple[Tensor, Heads]:
        assert isinstance(tokens.position, Places)
        assert tokens.position.number.shape == tokens.x.shape[:2]
        self.asked.append(tokens.position.number)
        return super().attention(layer, tokens, route)


@pytest.mark.parametrize("method", ["tome", "kmeans", "attention-prune"])
def test_a_group_is_where_its_token_is_that_stays(method: str) -> None:
    model = small()
    backbone = Placed(model)
    images = images_for(model)
    merged = ReducedViT(backbone, get_method(method), [4, 3, 0])
    source = merged.source_map(images)
    *_, last = backbone.asked
    slots = torch.arange(last.shape[1]).expand_as(last)
    assert torch.equal(source.gather(1, last), slots)
    assert torch.equal(last[:, : backbone.prefix], slots[:, : backbone.prefix])
    plain = ReducedViT(TimmViT(model), get_method(method), [4, 3, 0])
    assert torch.equal(merged(images), plain(images))


def test_positions_are_cut_off_with_their_tokens() -> None:
    model = small()
    for kind, more in ((SlicedViT, {}), (ReducedViT, {"prefix_only": True})):
        backbone = Placed(model)
        kind(backbone, get_method("tome"), [4, 3, 0], **more)(images_for(model))
        assert [len(asked[0]) for asked in backbone.asked] == [17, 13, 10]
