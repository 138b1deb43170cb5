"""Adapter of timm's ``VisionTransformer`` made of standard blocks (ViT, DeiT, CLIP, SigLIP, DINOv2, ...).

The adapter calls the model's own modules in the model's own order, so it keeps every feature they have (LayerScale,
q/k norm, registers, gates, drop-path, ...), and r = 0 gives the same bits as the model itself. Every attribute of every
part is checked against a list; a model with an unknown one is refused rather than run without it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from timm.layers import Attention, AttentionPoolLatent
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from tomebench.errors import UnsupportedModelError
from tomebench.reduction.attention import attend, kernel_name, log_size_bias
from tomebench.reduction.macs import BlockMacs, MacTerms
from tomebench.reduction.method import Heads
from tomebench.reduction.plan import Tokens
from tomebench.schema import Route

_MODEL_PARTS = {
    *("patch_embed", "cls_token", "reg_token", "dist_token", "pos_embed", "pos_drop", "patch_drop", "norm_pre"),
    *("blocks", "norm", "attn_pool", "fc_norm", "head_drop", "head", "head_dist"),
}
_BLOCK_PARTS = {"norm1", "attn", "ls1", "drop_path1", "norm2", "mlp", "ls2", "drop_path2"}
_ATTENTION_PARTS = {
    *("qkv", "q_norm", "k_norm", "attn_drop", "norm", "gate", "proj", "proj_drop"),
    *("num_heads", "head_dim", "attn_dim", "scale", "fused_attn"),
}
_POOLS = ("", "token", "avg", "avgmax", "max", "map")


class TimmViT:
    """Adapter of one timm VisionTransformer (a :class:`tomebench.reduction.vit.Backbone`).

    Args:
        model: used as it is; nothing is stored on it.

    Raises:
        UnsupportedModelError: the model has a part that merging does not know; names its class and attribute.
    """

    def __init__(self, model: nn.Module) -> None:
        _refuse_unknown_parts(model)
        # Any: torch types every attribute of a module as Tensor | Module.
        self._model: Any = model
        blocks: Any = model.blocks
        self._blocks: tuple[Any, ...] = tuple(blocks)

    @property
    def model(self) -> nn.Module:
        """The wrapped model."""
        return self._model

    @property
    def depth(self) -> int:
        """Number of blocks."""
        return len(self._blocks)

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
        if isinstance(self._model, VisionTransformerDistilled):
            return True
        return self._model.global_pool == "token" and self._model.attn_pool is None

    def attention_kernel(
        self, layer: int, route: Route, *, batch: int, n: int, biased: bool, dtype: torch.dtype, device: torch.device
    ) -> str:
        """Name of the kernel that :meth:`attention` runs on ``batch`` images of ``n`` tokens."""
        attn = self._blocks[layer].attn
        shape = (batch, int(attn.num_heads), n, int(attn.head_dim))
        return kernel_name(route, shape=shape, biased=biased, fused=attn.fused_attn, dtype=dtype, device=device)

    def embed(self, images: Tensor) -> Tokens:
        """[B, 3, H, W] -> tokens [B, N, C], of size one."""
        model = self._model
        return Tokens(model.norm_pre(model.patch_drop(model._pos_embed(model.patch_embed(images)))))

    def attention(self, layer: int, tokens: Tokens, route: Route = "auto") -> tuple[Tensor, Heads]:
        """Tokens [B, N, C] -> (x plus its attention branch [B, N, C], queries, keys and values of the heads).

        Proportional attention where the tokens have sizes: each key counts as often as its size.
        """
        block, x = self._blocks[layer], tokens.x
        out, heads = _self_attention(block.attn, block.norm1(x), tokens.size, route)
        return x + block.drop_path1(block.ls1(out)), heads

    def mlp(self, layer: int, x: Tensor) -> Tensor:
        """[B, N, C] -> x plus its MLP branch."""
        block = self._blocks[layer]
        return x + block.drop_path2(block.ls2(block.mlp(block.norm2(x))))

    def norm(self, x: Tensor) -> Tensor:
        """[B, N, C] -> features [B, N, C]: the norm after the last block."""
        return self._model.norm(x)

    def head_counts_sizes(self, prop_attn: bool) -> bool:
        """True if the class head pools over tokens, each weighted by its size."""
        model = self._model
        if isinstance(model, VisionTransformerDistilled):
            return False
        return prop_attn if model.attn_pool is not None else model.global_pool in ("avg", "avgmax")

    def head(self, features: Tensor, size: Tensor | None, prop_attn: bool, *, pre_logits: bool = False) -> Tensor:
        """Class head: features [B, N, C] -> logits, or with ``pre_logits`` what its last layer maps to them.

        Averages weight tokens by size; attention pooling does so when ``prop_attn`` is on.
        """
        model = self._model
        if size is None or isinstance(model, VisionTransformerDistilled):
            return model.forward_head(features, pre_logits=pre_logits)
        x = model.head_drop(model.fc_norm(self._pool(features, size, prop_attn)))
        return x if pre_logits else model.head(x)

    def _pool(self, x: Tensor, size: Tensor, prop_attn: bool) -> Tensor:
        model = self._model
        first = 0 if model.pool_include_prefix else self.prefix
        if model.attn_pool is not None:
            bias = log_size_bias(size[:, first:], x.dtype) if prop_attn else None
            return model.attn_pool(x[:, first:], attn_mask=bias)
        if model.global_pool in ("max", "avgmax"):  # padding, of size 0, is no maximum
            padding = size[:, :, None] == 0
            largest = x.masked_fill(padding, -torch.inf)
        if model.global_pool == "max":
            return model.pool(largest)
        if model.global_pool not in ("avg", "avgmax"):
            return model.pool(x)
        weight = size[:, first:, None]
        mean = (x[:, first:] * weight).sum(dim=1) / weight.sum(dim=1)
        mean = mean.to(x.dtype)
        return 0.5 * (largest[:, first:].amax(dim=1) + mean) if model.global_pool == "avgmax" else mean

    @torch.no_grad()
    def macs(self) -> MacTerms:
        """MACs of the model's matmuls, in terms per image, per token and per pair of tokens."""
        model = self._model
        pool_per_token, pool_fixed = 0, 0
        if model.attn_pool is not None:
            pool = model.attn_pool
            pool_per_token = _linear(pool.kv) + 2 * pool.num_heads * pool.head_dim
            pool_fixed = _linear(pool) - _linear(pool.kv)
        prefix_not_pooled = 0 if model.pool_include_prefix else self.prefix
        heads = [model.head, getattr(model, "head_dist", None)]
        return MacTerms(
            embed=_embedding_macs(model),
            blocks=tuple(_block_macs(block) for block in self._blocks),
            pool_per_token=pool_per_token,
            head=pool_fixed - pool_per_token * prefix_not_pooled + sum(_linear(h) for h in heads if h is not None),
            class_token=self.class_token,
        )


def _self_attention(attn: Any, x: Tensor, size: Tensor | None, route: Route) -> tuple[Tensor, Heads]:
    """Run timm's ``Attention.forward`` as proportional attention; also return queries, keys and values of the heads."""
    batch, n, _ = x.shape
    gate = getattr(attn, "gate", None)
    gate = gate(x).sigmoid() if gate is not None else None
    qkv = attn.qkv(x).reshape(batch, n, 3, attn.num_heads, attn.head_dim).permute(2, 0, 3, 1, 4)
    q, k, v = qkv.unbind(0)
    q, k = attn.q_norm(q), attn.k_norm(k)
    dropout = attn.attn_drop.p if attn.training else 0.0
    out = attend(q, k, v, size, dropout=dropout, fused=attn.fused_attn, route=route)
    out = attn.norm(out.transpose(1, 2).reshape(batch, n, attn.num_heads * attn.head_dim))
    if gate is not None:
        out = out * gate
    return attn.proj_drop(attn.proj(out)), Heads(q, k, v)


def _refuse_unknown_parts(model: Any) -> None:
    """Raise unless every part of the model is one the adapter runs."""
    name = type(model).__name__
    if type(model) not in (VisionTransformer, VisionTransformerDistilled):
        raise _refusal(f"{name} {_what_is_new(model)}")
    if unknown := _first_unknown([*_parts(model), *_replaced_methods(model)], _MODEL_PARTS):
        raise _refusal(f"{name} has {unknown!r}")
    if len(model.blocks) == 0:
        raise _refusal(f"{name} has an empty 'blocks'")
    _refuse_hooks(model)
    _refuse_hooks(model.blocks)
    for block in model.blocks:
        if type(block) is not Block:
            unknown = _first_unknown(_parts(block), _BLOCK_PARTS)
            raise _refusal(f"{type(block).__name__} in 'blocks' of {name}" + (f" has {unknown!r}" if unknown else ""))
        if unknown := _first_unknown(_parts(block, plain=True), _BLOCK_PARTS):
            raise _refusal(f"Block has {unknown!r}")
        _refuse_hooks(block)
        attn = block.attn
        if type(attn) is not Attention:
            unknown = _first_unknown(_parts(attn), _ATTENTION_PARTS)
            raise _refusal(f"{type(attn).__name__} in 'attn' of Block" + (f" has {unknown!r}" if unknown else ""))
        if unknown := _first_unknown(_parts(attn, plain=True), _ATTENTION_PARTS):
            raise _refusal(f"Attention has {unknown!r}")
        if attn.scale != attn.head_dim**-0.5:
            raise _refusal(f"Attention has a 'scale' of {attn.scale:g} instead of head_dim ** -0.5")
        _refuse_hooks(attn)
        _refuse_uncounted(attn, "'attn' of Block")
        _refuse_uncounted(block.mlp, "'mlp' of Block")
    for part in ("head", "head_dist"):
        _refuse_uncounted(getattr(model, part, None) or nn.Identity(), f"{part!r} of {name}")
    if model.global_pool not in _POOLS:
        raise _refusal(f"{name} has 'global_pool' {model.global_pool!r}")
    if model.attn_pool is not None:
        if type(model.attn_pool) is not AttentionPoolLatent:
            raise _refusal(f"{type(model.attn_pool).__name__} in 'attn_pool' of {name}")
        if model.attn_pool.pos_embed is not None:
            raise _refusal("AttentionPoolLatent has 'pos_embed'")


def _refuse_hooks(module: nn.Module) -> None:
    """Raise if a module whose ``forward`` the adapter bypasses has a forward hook, which would not run."""
    if module._forward_hooks or module._forward_pre_hooks:
        raise _refusal(f"{type(module).__name__} has a forward hook")


def _refuse_uncounted(module: nn.Module, where: str) -> None:
    """Raise if a part has weight matrices outside of linear layers, which the count of MACs would miss."""
    for part in module.modules():
        own = "weight" if isinstance(part, nn.Linear) else None
        if any(weight.ndim > 1 for name, weight in part.named_parameters(recurse=False) if name != own):
            raise _refusal(f"{type(part).__name__} in {where} has weights besides those of nn.Linear")


def _what_is_new(model: nn.Module) -> str:
    """The first part, from the outside in, that a VisionTransformer of standard blocks does not have."""
    if unknown := _first_unknown(_parts(model), _MODEL_PARTS):
        return f"has {unknown!r}"
    blocks = getattr(model, "blocks", None)
    if isinstance(blocks, (nn.Sequential, nn.ModuleList)) and len(blocks):
        block = blocks[0]
        if unknown := _first_unknown(_parts(block), _BLOCK_PARTS):
            return f"has blocks with {unknown!r}"
        attn = getattr(block, "attn", None)
        if isinstance(attn, nn.Module) and (unknown := _first_unknown(_parts(attn), _ATTENTION_PARTS)):
            return f"has attention with {unknown!r}"
    return "has a 'forward' of its own"


def _refusal(what: str) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"{what}, which token merging does not know how to run; "
        "use a timm VisionTransformer of standard blocks (see: tomebench list models)"
    )


def _replaced_methods(module: nn.Module) -> list[str]:
    """Names of methods of the class that the instance has replaced."""
    return [name for name in vars(module) if callable(getattr(type(module), name, None))]


def _parts(module: nn.Module, *, plain: bool = False) -> list[str]:
    """Names of the direct sub-modules, parameters and buffers, and with ``plain`` of the other public attributes."""
    names = [name for name, _ in module.named_children()]
    names += [name for name, _ in module.named_parameters(recurse=False)]
    names += [name for name, _ in module.named_buffers(recurse=False)]
    if plain:
        names += [name for name in vars(module) if not name.startswith("_") and name != "training"]
    return names


def _first_unknown(names: Iterable[str], known: set[str]) -> str | None:
    return next((name for name in names if name not in known), None)


def _linear(module: nn.Module) -> int:
    """Number of weights in all linear layers of a module: its MACs for one token."""
    return sum(m.weight.numel() for m in module.modules() if isinstance(m, nn.Linear))


def _block_macs(block: Any) -> BlockMacs:
    attn = block.attn
    return BlockMacs(
        attention_per_token=_linear(attn),
        attention_per_pair=2 * attn.num_heads * attn.head_dim,
        mlp_per_token=_linear(block.mlp),
        metric_dim=attn.head_dim,
        width=attn.qkv.in_features,
    )


def _embedding_macs(model: Any) -> int:
    """MACs of the patch embedding, from the shapes one empty image takes through it (convolutional stems included)."""
    total = 0

    def count(module: nn.Module, _inputs: object, output: Tensor) -> None:
        nonlocal total
        assert isinstance(module, nn.Conv2d)
        total += module.weight.numel() * output.shape[-2] * output.shape[-1]

    embed = model.patch_embed
    hooks = [m.register_forward_hook(count) for m in embed.modules() if isinstance(m, nn.Conv2d)]
    # On meta tensors: nothing is computed, and a batch norm in the stem keeps its running averages.
    tensors = {name: t.to("meta") for name, t in [*embed.named_parameters(), *embed.named_buffers()]}
    try:
        dtype = next(embed.parameters()).dtype
        image = torch.zeros(1, model.in_chans, *embed.img_size, dtype=dtype, device="meta")
        torch.func.functional_call(embed, tensors, (image,))
    finally:
        for hook in hooks:
            hook.remove()
    return total
