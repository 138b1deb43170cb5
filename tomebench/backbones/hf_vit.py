"""Adapter of transformers' ViTs: ViT, DeiT, DINOv2 with and without registers, DINOv3, SigLIP, CLIP, BEiT.

:mod:`tomebench.backbones.hf_kinds` says of each class of models where its parts are, and how its head reads the tokens.
Every mean over tokens weighs them by size. The classes are known by their names, so that transformers is never imported
here.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tomebench.backbones.blockwise import Blockwise, Place
from tomebench.backbones.hf_kinds import KINDS, Reading
from tomebench.backbones.hf_layers import HFLayer, is_of_transformers
from tomebench.backbones.parts import first_unknown, linear_macs, parts_of, refusal, refuse_hooks, replaced_methods
from tomebench.errors import SpecError
from tomebench.reduction.attention import log_size_bias
from tomebench.reduction.macs import MacTerms
from tomebench.reduction.positions import Places, Rotary, Rotations
from tomebench.reduction.tokens import Tokens

_EMBEDDINGS = {
    *("patch_embeddings", "patch_embedding", "cls_token", "class_embedding", "distillation_token", "register_tokens"),
    *("mask_token", "position_embeddings", "position_embedding", "position_ids", "dropout"),
}


class HFViT(Blockwise):
    """Adapter of one ViT of transformers (a :class:`tomebench.reduction.backbone.Backbone`).

    Args:
        model: of a class of :data:`KINDS`, or what holds one as ``model`` and maps images to its logits. Used as it
            is, nothing is stored on it.

    Raises:
        UnsupportedModelError: the model has a part that merging does not know; names its class and attribute.
    """

    def __init__(self, model: nn.Module) -> None:
        whole: Any = model if is_of_transformers(model) else model.model
        name = type(whole).__name__
        if not is_of_transformers(whole) or name not in KINDS:
            raise refusal(f"{name} of transformers")
        self._whole, self._kind = whole, KINDS[name]
        self._tower: Any = getattr(whole, self._kind.inside) if self._kind.inside else whole
        if self._kind.inside:
            self._check(whole, {self._kind.inside, *self._kind.heads})
        parts = self._kind.tower
        layers, _, inner = parts.layers.partition(".")
        named = {"embeddings", layers, parts.norm, parts.before, *parts.others}
        self._check(self._tower, named)
        self._check(self._tower.embeddings, _EMBEDDINGS)
        stack = getattr(self._tower, layers)
        if inner:
            self._check(stack, {inner})
            stack = getattr(stack, inner)
        super().__init__(model, [HFLayer(layer, self._grid) for layer in stack])
        if not self._blocks:
            raise refusal(f"{name} has no layers")

    @staticmethod
    def _check(module: nn.Module, known: set[str]) -> None:
        if unknown := first_unknown([*parts_of(module), *replaced_methods(module)], known):
            raise refusal(f"{type(module).__name__} has {unknown!r}")
        refuse_hooks(module)

    @property
    def _grid(self) -> tuple[int, int]:
        """Patches, high and wide, of an image of the model's own size."""
        config = self._tower.config
        (height, width), (high, wide) = (pair(each) for each in (config.image_size, config.patch_size))
        return height // high, width // wide

    @property
    def _stem(self) -> nn.Conv2d:
        """The convolution that makes tokens of patches."""
        return next(part for part in self._tower.embeddings.modules() if isinstance(part, nn.Conv2d))

    @property
    def prefix(self) -> int:
        """Class, distillation and register tokens at the front."""
        embeddings = self._tower.embeddings
        registers = getattr(embeddings, "register_tokens", None)
        others = 0 if registers is None else registers.shape[1]
        return int(self.class_token) + int(hasattr(embeddings, "distillation_token")) + int(others)

    @property
    def class_token(self) -> bool:
        """True if token 0 is a class token."""
        return hasattr(self._tower.embeddings, "cls_token") or hasattr(self._tower.embeddings, "class_embedding")

    @property
    def rotary(self) -> Rotary:
        """Whether queries and keys are rotated by their place, and by which angles."""
        return "no" if self._rope is None else "shared"

    @property
    def _rope(self) -> Any:
        """The module that makes rotations; None where there is none."""
        return getattr(self._tower, "rope_embeddings", None)

    @property
    def _shared_bias(self) -> Any:
        """The module that makes one bias for all layers; None where there is none."""
        return getattr(self._tower, "shared_position_bias", None)

    @property
    def tokens(self) -> int:
        """Tokens before the first layer at the model's own image size, prefix included."""
        height, width = self._grid
        return height * width + self.prefix

    @property
    def head_reads_prefix_only(self) -> bool:
        """True if the class head reads class and distillation tokens only."""
        return self._reads in ("first", "first of two", "pooler", "norm of first")

    @property
    def _reads(self) -> Reading:
        """How the head reads tokens; some classes leave it to their settings."""
        reads, tower = self._kind.reads, self._tower
        if reads == "pooler" and tower.pooler is None:
            return "first"
        if reads == "norm of mean" and getattr(tower.pooler, "layernorm", None) is None:
            return "first"
        if reads == "attention" and getattr(tower, "head", None) is None:
            return "mean"
        return reads

    def own_bias(self, layer: int) -> bool:
        """Whether the attention of a layer adds a bias by position to its scores."""
        return self._shared_bias is not None or super().own_bias(layer)

    def embed(self, images: Tensor) -> Tokens:
        """[B, 3, H, W] -> tokens [B, N, C], of size one, with their places or rotations."""
        tower = self._tower
        images = images.to(self._stem.weight.dtype)
        x = tower.embeddings(images)
        if before := self._kind.tower.before:
            x = getattr(tower, before)(x)
        if self._rope is not None:
            cos, sin = self._rope(images)
            return Tokens(x, position=Rotations(torch.cat((sin, cos), dim=-1), self.prefix))
        if any(map(self.own_bias, range(self.depth))):
            if x.shape[1] != self.tokens:
                raise SpecError("images of another size than the model's own have other biases; resize them")
            shared = None if self._shared_bias is None else self._shared_bias(self._grid)
            return Tokens(x, position=Places(shared))
        return Tokens(x)

    def place(self, layer: int, tokens: Tokens) -> Place:
        """What the attention of a layer has to know of where tokens are: rotations, or the bias of each pair."""
        position = tokens.position
        if isinstance(position, Rotations):
            return Place(position.at(layer))
        if not isinstance(position, Places):
            return Place()
        bias = self._blocks[layer].position_bias()
        if position.shared is not None:
            bias = position.shared if bias is None else bias + position.shared
        return Place() if bias is None else Place(bias=position.of_pairs(bias, tokens.x.shape[1]))

    def norm(self, x: Tensor) -> Tensor:
        """[B, N, C] -> features [B, N, C]: the norm after the last layer, where there is one for all tokens."""
        name = self._kind.tower.norm
        return getattr(self._tower, name)(x) if name else x

    def head_counts_sizes(self, prop_attn: bool) -> bool:
        """True if the class head pools over tokens, each weighted by its size."""
        return prop_attn if self._reads == "attention" else not self.head_reads_prefix_only

    def head(self, features: Tensor, size: Tensor | None, prop_attn: bool, *, pre_logits: bool = False) -> Tensor:
        """Class head: features [B, N, C] -> logits, or with ``pre_logits`` what its last layer maps to them.

        Of a model without classes, what it pools. Averages weight tokens by size; attention pooling does so when
        ``prop_attn`` is on.
        """
        heads = [getattr(self._whole, name) for name in self._kind.heads]
        if self._reads == "first of two":
            if pre_logits:
                return (features[:, 0] + features[:, 1]) / 2
            return (heads[0](features[:, 0]) + heads[1](features[:, 1])) / 2
        pooled = self._pool(features, size, prop_attn)
        return pooled if pre_logits or not heads else heads[0](pooled)

    def outputs(self, features: Tensor, size: Tensor | None, prop_attn: bool) -> tuple[str, dict[str, Tensor | None]]:
        """The class of the model's outputs, and those that it makes of features [B, N, C], by name."""
        kind = self._kind
        found: dict[str, Tensor | None] = {}
        if self._reads == "first of two":
            heads = (getattr(self._whole, name) for name in kind.heads)
            said = [head(features[:, token]) for token, head in enumerate(heads)]
            found = dict(zip(("cls_logits", "distillation_logits"), said, strict=True))
        name = {"BaseModelOutputWithPooling": "pooler_output", "BeitModelOutputWithPooling": "pooler_output",
                "CLIPVisionModelOutput": "image_embeds"}.get(kind.output, "logits")  # fmt: skip
        pooler = {"pooler": "pooler", "norm of mean": "pooler", "attention": "head"}.get(kind.reads)
        none = pooler is not None and getattr(self._tower, pooler, None) is None
        return kind.output, {name: None if none else self.head(features, size, prop_attn), **found}

    @property
    def transformers_model(self) -> nn.Module:
        """The model of transformers."""
        return self._whole

    def _pool(self, x: Tensor, size: Tensor | None, prop_attn: bool) -> Tensor:
        tower = self._tower
        match self._reads:
            case "pooler":
                return tower.pooler(x)
            case "norm of first":
                return tower.post_layernorm(x[:, 0])
            case "first and mean":
                return torch.cat([x[:, 0], self._mean(x, size)], dim=1)
            case "mean":
                return self._mean(x, size)
            case "norm of mean":
                return tower.pooler.layernorm(self._mean(x, size))
            case "attention":
                return _attention_pool(tower.head, x, size if prop_attn else None)
        return x[:, 0]

    def _mean(self, x: Tensor, size: Tensor | None) -> Tensor:
        """Mean of the patches, by size."""
        x = x[:, self.prefix :]
        if size is None:
            return x.mean(dim=1)
        weight = size[:, self.prefix :, None]
        return ((x * weight).sum(dim=1) / weight.sum(dim=1)).to(x.dtype)

    @torch.no_grad()
    def macs(self) -> MacTerms:
        """MACs of the model's matmuls, in terms per image, per token and per pair of tokens."""
        height, width = self._grid
        head = sum(linear_macs(getattr(self._whole, name)) for name in self._kind.heads)
        per_token = 0
        if self._reads == "pooler":
            head += linear_macs(self._tower.pooler)
        if self._reads == "attention":
            pool, channels = self._tower.head, self._tower.config.hidden_size
            per_token = 2 * channels**2 + 2 * channels  # keys and values; scores and their weighted sum
            head += 2 * channels**2 + linear_macs(pool.mlp)  # the query; the output
        return MacTerms(
            embed=self._stem.weight.numel() * height * width,
            blocks=tuple(block.macs() for block in self._blocks),
            pool_per_token=per_token,
            head=head,
            class_token=self.class_token,
        )


def pair(size: Any) -> tuple[int, int]:
    """Height and width from a number for both, or two."""
    height, width = (size, size) if isinstance(size, int) else size
    return int(height), int(width)


def _attention_pool(pool: Any, x: Tensor, size: Tensor | None) -> Tensor:
    """Run the ``forward`` of SigLIP's attention pooling; with sizes, each token counts as often as its size."""
    if size is None:
        return pool(x)
    bias = log_size_bias(size, x.dtype)
    assert bias is not None
    probe = pool.probe.repeat(x.shape[0], 1, 1)
    out = pool.attention(probe, x, x, key_padding_mask=bias.flatten(1))[0]
    return (out + pool.mlp(pool.layernorm(out)))[:, 0]
