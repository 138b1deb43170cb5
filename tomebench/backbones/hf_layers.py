"""Layers of transformers' ViTs, each as its two halves; a table says what the parts of a class of layers are called.

Attention is computed as transformers' ``sdpa`` does it. The classes are known by their names, so that the library
itself is never imported here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tomebench.backbones.blockwise import Block, HeadShape, Place
from tomebench.backbones.parts import first_unknown, linear_macs, parts_of, refusal, refuse_hooks, refuse_uncounted
from tomebench.reduction.attention import attend
from tomebench.reduction.macs import BlockMacs
from tomebench.reduction.method import Heads
from tomebench.schema import Route


@dataclass(frozen=True)
class LayerParts:
    """Names of the parts of a class of layers, in the order in which they run."""

    norm1: str
    attention: str
    after_attention: tuple[str, ...]  # of the branch: modules, or factors
    norm2: str
    after_mlp: tuple[str, ...]

    @property
    def names(self) -> set[str]:
        """Names of all sub-modules, parameters and buffers."""
        return {self.norm1, self.attention, self.norm2, "mlp", *self.after_attention, *self.after_mlp}


_VIT = LayerParts("layernorm_before", "attention", ("dropout",), "layernorm_after", ("dropout",))
_DINO = LayerParts("norm1", "attention", ("layer_scale1", "drop_path"), "norm2", ("layer_scale2", "drop_path"))
_CLIP = LayerParts("layer_norm1", "self_attn", (), "layer_norm2", ())
_BEIT = LayerParts(
    "layernorm_before",
    "attention",
    ("dropout", "lambda_1", "drop_path"),
    "layernorm_after",
    ("dropout", "lambda_2", "drop_path"),
)
LAYERS: dict[str, LayerParts] = {
    "ViTLayer": _VIT,
    "DeiTLayer": _VIT,
    "Dinov2Layer": _DINO,
    "Dinov2WithRegistersLayer": _DINO,
    "DINOv3ViTLayer": _DINO,
    "CLIPEncoderLayer": _CLIP,
    "SiglipEncoderLayer": _CLIP,
    "BeitLayer": _BEIT,
}
"""The parts of each class of layers; a subclass needs an entry of its own, since nothing says what it changes."""
_ATTENTION = {"q_proj", "k_proj", "v_proj", "o_proj", "out_proj"}
_BIAS = "relative_position_bias"


class HFLayer(Block):
    """One layer of a class of :data:`LAYERS`.

    Args:
        layer: nothing is stored on it.
        window: patches (high, wide) of an image, by which a bias by relative position is looked up.

    Raises:
        UnsupportedModelError: it has a part that is not run; names its class and attribute.
    """

    def __init__(self, layer: nn.Module, window: tuple[int, int]) -> None:
        name = type(layer).__name__
        if not is_of_transformers(layer) or name not in LAYERS:
            raise refusal(f"the layer {name}")
        self._parts, self._window = LAYERS[name], window
        if unknown := first_unknown(parts_of(layer), self._parts.names | {_BIAS}):
            raise refusal(f"{name} has {unknown!r}")
        super().__init__(layer)

    def check(self) -> None:
        """Raise unless the parts of the layer are ones that are run."""
        attn, name = self._attn, type(self._attn).__name__
        if unknown := first_unknown(parts_of(attn), _ATTENTION):
            raise refusal(f"{name} has {unknown!r}")
        if (asked := attn.config._attn_implementation) != "sdpa":
            raise refusal(f"attention {asked} (load the model with attn_implementation='sdpa')")
        if _either(attn, "scaling", "scale") != attn.head_dim**-0.5:
            raise refusal(f"{name} has a scale other than head_dim ** -0.5")
        if getattr(attn, "num_key_value_groups", 1) != 1 or getattr(attn, "is_causal", False):
            raise refusal(f"{name} with grouped keys or a causal mask")
        refuse_hooks(attn)
        refuse_uncounted(attn, f"{self._parts.attention!r} of {type(self.block).__name__}")
        refuse_uncounted(self.block.mlp, f"'mlp' of {type(self.block).__name__}")

    @property
    def _attn(self) -> Any:
        return getattr(self.block, self._parts.attention)

    @property
    def shape(self) -> HeadShape:
        """The heads of its attention."""
        return HeadShape(int(_either(self._attn, "num_attention_heads", "num_heads")), int(self._attn.head_dim), True)

    @property
    def biased(self) -> bool:
        """Whether the layer has a bias of its own for each head and pair of tokens."""
        return getattr(self.block, _BIAS, None) is not None

    def position_bias(self) -> Tensor | None:
        """The layer's own bias for each head and pair of all tokens, [1, heads, N, N]; None where there is none."""
        return getattr(self.block, _BIAS)(self._window) if self.biased else None

    def attention(self, x: Tensor, size: Tensor | None, route: Route, place: Place) -> tuple[Tensor, Heads]:
        """Tokens [B, N, C] -> (x plus its attention branch [B, N, C], queries, keys and values of the heads)."""
        out, heads = _self_attention(self._attn, getattr(self.block, self._parts.norm1)(x), size, route, place)
        return x + self._through(out, self._parts.after_attention), heads

    def mlp(self, x: Tensor) -> Tensor:
        """[B, N, C] -> x plus its MLP branch."""
        out = self.block.mlp(getattr(self.block, self._parts.norm2)(x))
        return x + self._through(out, self._parts.after_mlp)

    def _through(self, out: Tensor, names: tuple[str, ...]) -> Tensor:
        for name in names:
            part = getattr(self.block, name)
            out = part(out) if isinstance(part, nn.Module) else part * out
        return out

    def macs(self) -> BlockMacs:
        """MACs of the layer's matmuls."""
        attn, (heads, width, _) = self._attn, self.shape
        return BlockMacs(
            attention_per_token=linear_macs(attn),
            attention_per_pair=2 * heads * width,
            mlp_per_token=linear_macs(self.block.mlp),
            metric_dim=width,
            width=int(attn.q_proj.in_features),
        )


def is_of_transformers(module: nn.Module) -> bool:
    """Whether the class of a module is one of transformers' own."""
    return type(module).__module__.startswith("transformers.models.")


def _self_attention(attn: Any, x: Tensor, size: Tensor | None, route: Route, place: Place) -> tuple[Tensor, Heads]:
    """Run the ``forward`` of an attention module as proportional attention: the branch [B, N, C], and the heads."""
    batch, n, _ = x.shape
    q, k, v = (
        project(x).view(batch, n, -1, attn.head_dim).transpose(1, 2)
        for project in (attn.q_proj, attn.k_proj, attn.v_proj)
    )
    content = None
    if place.rotation is not None:
        content, (q, k) = k, (_rotated(each, place.rotation) for each in (q, k))
    dropout = _either(attn, "attention_dropout", "dropout") if attn.training else 0.0
    out = attend(q, k, v, size, dropout=dropout, fused=True, route=route, bias=place.bias)
    out = _either(attn, "o_proj", "out_proj")(out.transpose(1, 2).reshape(batch, n, -1))
    return out, Heads(q, k, v, content, place.bias)


def _rotated(heads: Tensor, rotation: Tensor) -> Tensor:
    """Rotate the patches among queries or keys [B, heads, N, d]; the tokens before them, of the prefix, stay."""
    sin, cos = rotation.chunk(2, dim=-1)
    prefix, patches = heads.split((heads.shape[2] - rotation.shape[-2], rotation.shape[-2]), dim=2)
    one, two = patches.chunk(2, dim=-1)
    return torch.cat((prefix, patches * cos + torch.cat((-two, one), dim=-1) * sin), dim=2)


def _either(module: Any, *names: str) -> Any:
    """The first of these attributes that a module has."""
    return next(getattr(module, name) for name in names if hasattr(module, name))
