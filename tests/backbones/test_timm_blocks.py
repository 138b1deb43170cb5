"""Blocks with norms after the branches, or branches side by side: r = 0 is the model, merging as in the formulas."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import timm
import torch
from backbones.zoo import NARROW, images_for, prepare
from reduction import tome_reference
from timm.models.vision_transformer import (
    ParallelScalingBlock,
    ParallelThingsBlock,
    ResPostBlock,
    VisionTransformer,
)
from torch import Tensor, nn

from tomebench.backbones.adapt import adapt
from tomebench.backbones.apply import apply
from tomebench.errors import UnsupportedModelError

SMALL: dict[str, Any] = {
    "img_size": (20, 16), "patch_size": 4, "embed_dim": 16, "num_heads": 2, "depth": 3, "num_classes": 5,
}  # fmt: skip
KINDS: dict[str, dict[str, Any]] = {
    "norms after": {"block_fn": ResPostBlock, "qk_norm": True},
    "several branches": {"block_fn": ParallelThingsBlock, "init_values": 0.1, "qk_norm": True},
    "one projection": {"block_fn": ParallelScalingBlock, "qkv_bias": False, "init_values": 0.1},
    "one projection with bias": {"block_fn": ParallelScalingBlock, "qk_norm": True},
}
Branch = tuple[Tensor, Tensor]


def build(kind: str) -> Any:
    """A small model of one kind in float64, all its parameters random."""
    return prepare(VisionTransformer(**SMALL, **KINDS[kind]).double(), seed=3)


def attended(q: Tensor, k: Tensor, v: Tensor, size: Tensor) -> Tensor:
    """softmax(q kᵀ / sqrt(d) + log size) v of one image, [heads, N, d] -> [N, C]."""
    weights = (q @ k.transpose(1, 2) / math.sqrt(q.shape[2]) + size.log()).softmax(dim=2)
    return (weights @ v).transpose(0, 1).flatten(1)


def heads(attn: Any, qkv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values of one image, each [heads, N, d], from [N, 3 C]."""
    q, k, v = qkv.unflatten(1, (3, attn.num_heads, -1)).permute(1, 2, 0, 3)
    return attn.q_norm(q), attn.k_norm(k), v


def first_half(block: Any, x: Tensor, size: Tensor) -> Branch:
    """Tokens after what comes before the merge, and the means of their keys over heads [N, d]."""
    if isinstance(block, ResPostBlock):
        q, k, v = heads(block.attn, block.attn.qkv(x))
        return x + block.norm1(block.attn.proj(attended(q, k, v, size))), k.mean(dim=0)
    if isinstance(block, ParallelThingsBlock):
        total, keys = x, []
        for branch in block.attns:
            q, k, v = heads(branch.attn, branch.attn.qkv(branch.norm(x)))
            total = total + branch.ls(branch.attn.proj(attended(q, k, v, size)))
            keys.append(k)
        return total, torch.cat(keys).mean(dim=0)
    hidden, qkv = block.in_proj(block.in_norm(x)).split([block.in_split[0], 3 * x.shape[1]], dim=1)
    q, k, v = heads(block, qkv)
    hidden = hidden if block.mlp_bias is None else hidden + block.mlp_bias
    both = block.attn_out_proj(attended(q, k, v, size)) + block.mlp_out_proj(block.mlp_act(hidden))
    return x + block.ls(both), k.mean(dim=0)


def second_half(block: Any, x: Tensor) -> Tensor:
    """Tokens after the rest of the block."""
    if isinstance(block, ResPostBlock):
        return x + block.norm2(block.mlp(x))
    if isinstance(block, ParallelThingsBlock):
        return x + sum((ffn(x) for ffn in block.ffns), torch.zeros_like(x))
    return x


@torch.no_grad()
def logits(model: Any, image: Tensor, r_layers: Sequence[int]) -> Tensor:
    """Logits of one image with r_layers[l] tokens merged in block l, sizes counted."""
    x = model.norm_pre(model._pos_embed(model.patch_embed(image[None])))[0]
    size = [1.0] * len(x)
    for block, r in zip(model.blocks, r_layers, strict=True):
        x, metric = first_half(block, x, torch.tensor(size, dtype=x.dtype))
        groups = tome_reference.match(metric.tolist(), r, model.num_prefix_tokens)
        merged, size = tome_reference.merge(groups, x.tolist(), size)
        x = second_half(block, torch.tensor(merged, dtype=x.dtype))
    return model.head(model.fc_norm(model.norm(x)[0]))


@pytest.mark.parametrize("kind", KINDS)
def test_merging_follows_the_formulas(kind: str) -> None:
    model = build(kind)
    images = images_for(model)
    with torch.no_grad():
        plain = model(images)
    for r in ([0, 0, 0], [3, 0, 5], [4, 4, 4]):
        with torch.no_grad():
            got = apply(model, r)(images)
        for image, row in zip(images, got, strict=True):
            torch.testing.assert_close(row, logits(model, image, r), rtol=0, atol=1e-10)
        assert torch.allclose(got, plain, atol=1e-10) == (not any(r))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("name", ["vit_base_patch16_rpn_224", "vit_small_patch16_18x2_224", "vit_base_patch16_xp_224"])
def test_registered_models_keep_their_bits_at_r_0(name: str, fused: bool, dtype: torch.dtype) -> None:
    model = prepare(timm.create_model(name, **NARROW, num_classes=5, img_size=64).to(dtype), fused=fused)
    images = images_for(model)
    with torch.no_grad():
        expected, got, merged = model(images), apply(model, 0)(images), apply(model, 3)(images)
    assert expected.std() > 1e-3
    assert torch.equal(got, expected)
    assert (merged - expected).abs().max() > 1e-3


def test_branches_of_one_projection_are_counted_before_the_merge() -> None:
    model = build("one projection")
    block = adapt(model).macs().blocks[0]
    assert block.mlp_per_token == 0
    assert block.attention_per_token == sum(
        m.weight.numel() for m in model.blocks[0].modules() if isinstance(m, nn.Linear)
    )


def test_what_is_not_known_is_refused() -> None:
    for kind, part in (("norms after", "ResPostBlock"), ("several branches", "ParallelThingsBlock")):
        model = build(kind)
        model.blocks[1].extra = nn.Identity()
        with pytest.raises(UnsupportedModelError, match=f"{part} has 'extra'"):
            apply(model, 2)
    model = build("several branches")
    model.blocks[1].attns[0].register_forward_hook(lambda *_: None)
    with pytest.raises(UnsupportedModelError, match="Sequential has a forward hook"):
        apply(model, 2)
