"""A rotary ViT with merged tokens, written out in loops over float64: one image, one token, one head at a time.

The oracle of the tests of rotary models. It reads weights and the table of angles off a timm model, and shares no
computation with the package.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from backbones.vit_reference import attend, embed_patches, linear, mlp, norm
from reduction import tome_reference
from torch import Tensor


def rotate(row: Tensor, rotation: Tensor, *, half: bool) -> Tensor:
    """Rotate pairs of channels: neighbours, or with ``half`` a channel and that half the width further on."""
    sin, cos = rotation.chunk(2)
    width = len(row)
    out = torch.empty_like(row)
    for i in range(width // 2):
        one, other = (i, i + width // 2) if half else (2 * i, 2 * i + 1)
        out[one] = row[one] * cos[one] - row[other] * sin[one]
        out[other] = row[other] * cos[other] + row[one] * sin[other]
    return out


def project(attn: Any, row: Tensor) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Queries, keys and values of one token, a row for each head; keys and values shared by groups of heads."""
    if attn.qkv is None:
        parts = [linear(attn.q_proj, row), linear(attn.k_proj, row), linear(attn.v_proj, row)]
    else:
        whole = torch.stack([(weights * row).sum() for weights in attn.qkv.weight])
        if attn.qkv.bias is not None:
            whole = whole + attn.qkv.bias
        if getattr(attn, "q_bias", None) is not None:
            whole = whole + torch.cat([attn.q_bias, attn.k_bias, attn.v_bias])
        parts = list(whole.chunk(3))
    q, k, v = ([*part.split(parts[0].numel() // attn.num_heads)] for part in parts)
    if hasattr(attn, "q_norm"):
        q, k = [norm(attn.q_norm, each) for each in q], [norm(attn.k_norm, each) for each in k]
    return q, k, v


def branch(
    block: Any, rows: Sequence[Tensor], counts: Sequence[float], rotations: Sequence[Sequence[Tensor] | None]
) -> tuple[list[Tensor], list[list[float]], list[list[float]]]:
    """The attention branch of every token, and the means over heads of its keys before and after rotation.

    Args:
        block: of the model.
        rows: tokens.
        counts: how often each counts as a key.
        rotations: of each token and head; None for a prefix token.
    """
    attn = block.attn
    found = [project(attn, norm(block.norm1, row)) for row in rows]

    def turned(heads: Sequence[Tensor], rotation: Sequence[Tensor] | None) -> list[Tensor]:
        if rotation is None:
            return [*heads]
        return [rotate(row, rotation[head], half=attn.rotate_half) for head, row in enumerate(heads)]

    queries = [turned(q, rotation) for (q, _, _), rotation in zip(found, rotations, strict=True)]
    keys = [turned(k, rotation) for (_, k, _), rotation in zip(found, rotations, strict=True)]
    share = attn.num_heads // len(keys[0])
    outs = []
    for query in queries:
        heads = [
            attend(query[h], [key[h // share] for key in keys], [v[h // share] for _, _, v in found], counts)
            for h in range(attn.num_heads)
        ]
        out = linear(attn.proj, torch.cat(heads))
        outs.append(out if block.gamma_1 is None else block.gamma_1 * out)
    before = [(sum(k[1:], k[0]) / len(k)).tolist() for _, k, _ in found]
    after = [(sum(k[1:], k[0]) / len(k)).tolist() for k in keys]
    return outs, before, after


@torch.no_grad()
def logits(model: Any, image: Tensor, r_layers: Sequence[int], *, rope: str, metric: str) -> Tensor:
    """[3, H, W] -> logits [classes] of the model with r_layers[l] tokens merged in block l, sizes counted."""
    prefix = model.num_prefix_tokens
    rows = embed_patches(model, image)
    table = model._pos_embed(model.patch_embed(image[None]))[1]
    size, places = [1.0] * len(rows), [[] for _ in range(prefix)] + [[p] for p in range(len(rows) - prefix)]
    weights: list[list[float]] = [[1.0] * len(place) for place in places]
    for layer, (block, r) in enumerate(zip(model.blocks, r_layers, strict=True)):

        def rotation(place: list[int], weight: list[float], layer: int = layer) -> list[Tensor] | None:
            if not place:
                return None
            by_head = table[layer] if table.ndim == 4 else table.expand(model.blocks[0].attn.num_heads, -1, -1)
            if rope == "keep":
                return [head[place[0]] for head in by_head]
            total = sum(weight)
            return [
                sum(((w / total) * head[p] for p, w in zip(place, weight, strict=True)), torch.zeros_like(head[0]))
                for head in by_head
            ]

        rotations = [rotation(place, weight) for place, weight in zip(places, weights, strict=True)]
        outs, before, after = branch(block, rows, size, rotations)
        rows = [row + out for row, out in zip(rows, outs, strict=True)]
        groups = tome_reference.match(before if metric == "k" else after, r, prefix)
        merged, size = tome_reference.merge(groups, [row.tolist() for row in rows], size)
        rows = [torch.tensor(row, dtype=torch.float64) for row in merged]
        places = [[p for token in group for p in places[token]] for group in groups]
        weights = [[w for token in group for w in weights[token]] for group in groups]
        for number, row in enumerate(rows):
            out = mlp(block.mlp, norm(block.norm2, row))
            rows[number] = row + (out if block.gamma_2 is None else block.gamma_2 * out)
    rows = [norm(model.norm, row) for row in rows]
    if model.global_pool == "token":
        pooled = rows[0]
    else:
        patches, counts = rows[prefix:], size[prefix:]
        pooled = sum((s * row for s, row in zip(counts, patches, strict=True)), torch.zeros_like(rows[0])) / sum(counts)
    return linear(model.head, norm(model.fc_norm, pooled))
