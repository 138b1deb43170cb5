"""Self-attention of timm's ViTs, run as proportional attention, with and without rotations and position biases.

The function calls the module's own parts in the module's own order, so that without sizes its output has the same bits.
"""

from __future__ import annotations

from typing import Any

import torch
from timm.layers import Attention, AttentionRope, apply_rot_embed_cat
from timm.layers.pos_embed_rel import RelPosBias, RelPosMlp
from timm.models.beit import Attention as BeitAttention
from timm.models.eva import EvaAttention
from timm.models.vision_transformer_relpos import RelPosAttention
from torch import Tensor, nn
from torch.nn import functional as F

from tomebench.backbones.blockwise import Place
from tomebench.backbones.parts import first_unknown, linear_macs, parts_of, refusal, refuse_hooks, refuse_uncounted
from tomebench.reduction.attention import attend
from tomebench.reduction.macs import BlockMacs
from tomebench.reduction.method import Heads
from tomebench.schema import Route

_PARTS = {
    *("qkv", "q_norm", "k_norm", "attn_drop", "norm", "gate", "proj", "proj_drop"),
    *("num_heads", "head_dim", "attn_dim", "scale", "fused_attn"),
}
_BEIT_PARTS = {
    *("qkv", "q_bias", "k_bias", "v_bias", "qkv_bias_separate", "attn_drop", "proj", "proj_drop"),
    *("relative_position_bias_table", "relative_position_index", "window_size", "num_relative_distance"),
    *("num_heads", "scale", "fused_attn"),
}
_ROTARY_PARTS = {*_PARTS, "q_proj", "k_proj", "v_proj", "num_prefix_tokens", "rotate_half"}
ATTENTIONS: dict[type[nn.Module], set[str]] = {
    Attention: _PARTS,
    AttentionRope: {*_ROTARY_PARTS, "kv_dim", "num_kv_heads", "num_kv_groups"},
    EvaAttention: {*_ROTARY_PARTS, "q_bias", "k_bias", "v_bias", "qkv_bias_separate"},
    RelPosAttention: {*_PARTS, "rel_pos"},
    BeitAttention: _BEIT_PARTS,
}
"""Classes of attention that :func:`self_attention` runs, with the names of all their parts."""


RELATIVE = (RelPosBias, RelPosMlp)
"""Biases by relative position of an attention of timm's."""


def head_dim(attn: Any) -> int:
    """d, channels of one attention head."""
    return int(getattr(attn, "head_dim", 0) or attn.qkv.out_features // (3 * attn.num_heads))


def check_attention(attn: Any, where: str) -> None:
    """Raise unless every part of an attention module is one that :func:`self_attention` runs.

    Args:
        attn: the module.
        where: name and class of what it is part of, for the message.
    """
    name = type(attn).__name__
    known = ATTENTIONS.get(type(attn))
    if known is None:
        unknown = first_unknown(parts_of(attn), _PARTS)
        raise refusal(f"{name} in {where}" + (f" has {unknown!r}" if unknown else ""))
    if unknown := first_unknown(parts_of(attn, plain=True), known):
        raise refusal(f"{name} has {unknown!r}")
    if attn.scale != head_dim(attn) ** -0.5:
        raise refusal(f"{name} has a 'scale' of {attn.scale:g} instead of head_dim ** -0.5")
    refuse_hooks(attn)
    if getattr(attn, "q_bias", None) is not None:
        refuse_hooks(attn.qkv)  # its weights are used without calling it
    rel_pos = getattr(attn, "rel_pos", None)
    if rel_pos is not None:
        if type(rel_pos) not in RELATIVE:
            raise refusal(f"{type(rel_pos).__name__} in 'rel_pos' of {name}")
        refuse_hooks(rel_pos)  # its bias is taken without calling it
    refuse_uncounted(attn, where)


def self_attention(attn: Any, x: Tensor, size: Tensor | None, route: Route, place: Place) -> tuple[Tensor, Heads]:
    """Run the ``forward`` of an attention module as proportional attention.

    Args:
        attn: a module of one of ``ATTENTIONS``.
        x: tokens, after the norm if there is one before the attention [B, N, C].
        size: as for :func:`tomebench.reduction.attention.attend`.
        route: likewise.
        place: rotations or a bias by where tokens are.

    Returns:
        The branch [B, N, C], and queries, keys and values of the heads.
    """
    batch, n, _ = x.shape
    gate = getattr(attn, "gate", None)
    gate = gate(x).sigmoid() if gate is not None else None
    q, k, v = _projected(attn, x)
    if hasattr(attn, "q_norm"):
        q, k = attn.q_norm(q), attn.k_norm(k)
    content = None
    if place.rotation is not None:
        content = k
        q, k = _rotated(attn, q, place.rotation, v.dtype), _rotated(attn, k, place.rotation, v.dtype)
    if (groups := getattr(attn, "num_kv_groups", 1)) > 1:
        k, v = k.repeat_interleave(groups, dim=1), v.repeat_interleave(groups, dim=1)
    dropout = attn.attn_drop.p if attn.training else 0.0
    out = attend(q, k, v, size, dropout=dropout, fused=attn.fused_attn, route=route, bias=place.bias)
    out = out.transpose(1, 2).reshape(batch, n, attn.proj.in_features)
    if hasattr(attn, "norm"):
        out = attn.norm(out)
    if gate is not None:
        out = out * gate
    return attn.proj_drop(attn.proj(out)), Heads(q, k, v, content, place.bias)


def _projected(attn: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries [B, heads, N, d], keys and values [B, key heads, N, d] before their norms."""
    batch, n, _ = x.shape
    if attn.qkv is None:
        q, k, v = (
            project(x).reshape(batch, n, -1, attn.head_dim).transpose(1, 2)
            for project in (attn.q_proj, attn.k_proj, attn.v_proj)
        )
        return q, k, v
    if getattr(attn, "q_bias", None) is None:
        qkv = attn.qkv(x)
    else:
        bias = torch.cat((attn.q_bias, attn.k_bias, attn.v_bias))
        if attn.qkv_bias_separate:
            qkv = attn.qkv(x)
            qkv += bias  # in place, in the dtype of the product, which autocast may have chosen
        else:
            qkv = F.linear(x, attn.qkv.weight, bias)
    q, k, v = qkv.reshape(batch, n, 3, attn.num_heads, head_dim(attn)).permute(2, 0, 3, 1, 4).unbind(0)
    return q, k, v


def _rotated(attn: Any, heads: Tensor, rotation: Tensor, dtype: torch.dtype) -> Tensor:
    prefix = attn.num_prefix_tokens
    patches = apply_rot_embed_cat(heads[:, :, prefix:], rotation, half=attn.rotate_half)
    return torch.cat([heads[:, :, :prefix], patches], dim=2).to(dtype)


def input_width(attn: Any) -> int:
    """C, channels of a token."""
    return int((attn.q_proj if attn.qkv is None else attn.qkv).in_features)


def attention_macs(attns: tuple[Any, ...], mlp_per_token: int) -> BlockMacs:
    """MACs of a block with these attention modules side by side, and an MLP.

    A bias by relative position that an MLP computes, once for all images of a batch, is not among them.
    """
    beside = (rel_pos for attn in attns if (rel_pos := getattr(attn, "rel_pos", None)) is not None)
    return BlockMacs(
        attention_per_token=sum(map(linear_macs, attns)) - sum(map(linear_macs, beside)),
        attention_per_pair=sum(2 * attn.num_heads * head_dim(attn) for attn in attns),
        mlp_per_token=mlp_per_token,
        metric_dim=head_dim(attns[0]),
        width=input_width(attns[0]),
    )
