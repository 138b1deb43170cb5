"""A Vision Transformer with merged tokens, written out in loops over float64: one image, one token, one head at a time.

The oracle of the tests of the reduced model. It reads weights off a timm model and shares no computation with it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from reduction import tome_reference
from torch import Tensor


def linear(module: Any, row: Tensor) -> Tensor:
    """W row + b."""
    out = torch.stack([(weights * row).sum() for weights in module.weight])
    return out if module.bias is None else out + module.bias


def norm(module: Any, row: Tensor) -> Tensor:
    """Layer norm, or nothing where the model has none."""
    if isinstance(module, torch.nn.Identity):
        return row
    mean = row.sum() / len(row)
    variance = ((row - mean) ** 2).sum() / len(row)
    return (row - mean) / torch.sqrt(variance + module.eps) * module.weight + module.bias


def gelu(row: Tensor) -> Tensor:
    """x times the normal distribution function of x."""
    return torch.stack([0.5 * value * (1 + torch.erf(value / math.sqrt(2))) for value in row])


def mlp(module: Any, row: Tensor) -> Tensor:
    """Two layers and a GELU between them."""
    return linear(module.fc2, gelu(linear(module.fc1, row)))


def scale(module: Any, row: Tensor) -> Tensor:
    """LayerScale, or nothing where the model has none."""
    return row if isinstance(module, torch.nn.Identity) else row * module.gamma


def attend(
    query: Tensor,
    keys: Sequence[Tensor],
    values: Sequence[Tensor],
    counts: Sequence[float],
    bias: Sequence[float] | None = None,
) -> Tensor:
    """Softmax attention of one query in which key j counts counts[j] times, and bias[j] is added to its score."""
    scores = [float((query * key).sum()) / math.sqrt(len(query)) for key in keys]
    if bias is not None:
        scores = [score + float(addition) for score, addition in zip(scores, bias, strict=True)]
    weights = [count * math.exp(score - max(scores)) for count, score in zip(counts, scores, strict=True)]
    return sum((w * value for w, value in zip(weights, values, strict=True)), torch.zeros_like(values[0])) / sum(
        weights
    )


def embed_patches(model: Any, image: Tensor) -> list[Tensor]:
    """Prefix tokens and patches with their positions, after the norm that CLIP models have here."""
    proj = model.patch_embed.proj
    height, width = proj.kernel_size
    patches = []
    for top in range(0, image.shape[1], height):
        for left in range(0, image.shape[2], width):
            patch = image[:, top : top + height, left : left + width]
            value = torch.stack([(kernel * patch).sum() for kernel in proj.weight])
            patches.append(value if proj.bias is None else value + proj.bias)
    tokens = (getattr(model, f"{name}_token", None) for name in ("cls", "dist", "reg"))
    prefix = [row for token in tokens if token is not None for row in token[0]]
    if getattr(model, "pos_embed", None) is None:
        rows = prefix + patches
    elif len(positions := list(model.pos_embed[0])) == len(patches):
        rows = prefix + [row + position for row, position in zip(patches, positions, strict=True)]
    else:
        rows = [row + position for row, position in zip(prefix + patches, positions, strict=True)]
    return [norm(model.norm_pre, row) for row in rows] if hasattr(model, "norm_pre") else rows


def attention_branch(block: Any, rows: list[Tensor], counts: list[float]) -> tuple[list[Tensor], list[list[float]]]:
    """The attention branch of every token, and the mean over heads of every token's keys."""
    attn = block.attn
    width = attn.head_dim
    qkv = [linear(attn.qkv, norm(block.norm1, row)).reshape(3, attn.num_heads, width) for row in rows]
    queries = [[norm(attn.q_norm, three[0, head]) for head in range(attn.num_heads)] for three in qkv]
    keys = [[norm(attn.k_norm, three[1, head]) for head in range(attn.num_heads)] for three in qkv]
    branch = []
    for query in queries:
        heads = [
            attend(query[head], [key[head] for key in keys], [three[2, head] for three in qkv], counts)
            for head in range(attn.num_heads)
        ]
        branch.append(scale(block.ls1, linear(attn.proj, torch.cat(heads))))
    return branch, [(sum(key[1:], key[0]) / attn.num_heads).tolist() for key in keys]


def pool(model: Any, rows: list[Tensor], size: list[float], prop_attn: bool) -> Tensor:
    """What the classifier sees: class token, mean over patches, maximum, or attention pooling."""
    if model.global_pool == "token":
        return rows[0]
    first = 0 if model.pool_include_prefix else model.num_prefix_tokens
    rows, size = rows[first:], size[first:]
    largest = torch.stack([max(column) for column in zip(*rows, strict=True)])
    mean = sum((s * row for s, row in zip(size, rows, strict=True)), torch.zeros_like(rows[0])) / sum(size)
    if model.global_pool == "avg":
        return mean
    if model.global_pool == "max":
        return largest
    if model.global_pool == "avgmax":
        return 0.5 * (largest + mean)
    latent = model.attn_pool
    query = linear(latent.q, latent.latent[0, 0]).reshape(latent.num_heads, latent.head_dim)
    kv = [linear(latent.kv, row).reshape(2, latent.num_heads, latent.head_dim) for row in rows]
    counts = size if prop_attn else [1.0] * len(size)
    heads = [
        attend(query[head], [k[0, head] for k in kv], [v[1, head] for v in kv], counts)
        for head in range(latent.num_heads)
    ]
    pooled = linear(latent.proj, torch.cat(heads))
    return pooled + mlp(latent.mlp, norm(latent.norm, pooled))


@torch.no_grad()
def logits(model: Any, image: Tensor, r_layers: Sequence[int], *, prop_attn: bool) -> Tensor:
    """[3, H, W] -> logits [classes] of the model with r_layers[l] tokens merged in block l."""
    rows = embed_patches(model, image)
    size = [1.0] * len(rows)
    for block, r in zip(model.blocks, r_layers, strict=True):
        branch, metric = attention_branch(block, rows, size if prop_attn else [1.0] * len(rows))
        rows = [row + addition for row, addition in zip(rows, branch, strict=True)]
        groups = tome_reference.match(metric, r, model.num_prefix_tokens)
        merged, size = tome_reference.merge(groups, [row.tolist() for row in rows], size)
        rows = [torch.tensor(row, dtype=torch.float64) for row in merged]
        rows = [row + scale(block.ls2, mlp(block.mlp, norm(block.norm2, row))) for row in rows]
    rows = [norm(model.norm, row) for row in rows]
    if hasattr(model, "head_dist"):
        return (linear(model.head, rows[0]) + linear(model.head_dist, rows[1])) / 2
    return linear(model.head, norm(model.fc_norm, pool(model, rows, size, prop_attn)))
