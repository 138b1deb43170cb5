"""A ViT with biases by relative position and merged tokens, written out in loops over float64.

The oracle of the tests of such models. It reads weights and the bias of every pair of places off a timm model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from backbones.rotary_reference import project
from backbones.vit_reference import attend, embed_patches, linear, mlp, norm
from reduction import tome_reference
from torch import Tensor, nn


def bias_of(model: Any, block: Any) -> Tensor:
    """The bias of every head and pair of places [heads, N, N], that of the block or of all blocks."""
    attn = block.attn
    if getattr(attn, "rel_pos", None) is not None:
        return attn.rel_pos.get_bias()[0]
    if getattr(attn, "relative_position_bias_table", None) is not None:
        table, index = attn.relative_position_bias_table, attn.relative_position_index
        return torch.stack([table[:, head][index] for head in range(attn.num_heads)])
    return model.shared_rel_pos.get_bias()[0]


def scaled(block: Any, number: int, row: Tensor) -> Tensor:
    """The branch after its scale, or nothing where the block has none."""
    gamma = getattr(block, f"gamma_{number}", None)
    if gamma is None:
        gamma = getattr(getattr(block, f"ls{number}", None), "gamma", None)
    return row if gamma is None else gamma * row


@torch.no_grad()
def logits(model: Any, image: Tensor, r_layers: Sequence[int]) -> Tensor:
    """[3, H, W] -> logits [classes] of the model with r_layers[l] tokens merged in block l, sizes counted."""
    prefix = model.num_prefix_tokens
    rows = embed_patches(model, image)
    size, places = [1.0] * len(rows), [*range(len(rows))]
    for block, r in zip(model.blocks, r_layers, strict=True):
        attn, bias = block.attn, bias_of(model, block)
        after = not hasattr(block, "ls1") and not hasattr(block, "gamma_1")  # norms come after the branches
        found = [project(attn, row if after else norm(block.norm1, row)) for row in rows]
        keys = [k for _, k, _ in found]
        outs = []
        for place, (query, _, _) in zip(places, found, strict=True):
            heads = []
            for h in range(attn.num_heads):
                values = [v[h] for _, _, v in found]
                heads.append(attend(query[h], [k[h] for k in keys], values, size, bias[h, place][places].tolist()))
            out = linear(attn.proj, torch.cat(heads))
            outs.append(norm(block.norm1, out) if after else scaled(block, 1, out))
        rows = [row + out for row, out in zip(rows, outs, strict=True)]
        groups = tome_reference.match([(sum(k[1:], k[0]) / len(k)).tolist() for k in keys], r, prefix)
        merged, size = tome_reference.merge(groups, [row.tolist() for row in rows], size)
        places = [places[group[0]] for group in groups]
        rows = [torch.tensor(row, dtype=torch.float64) for row in merged]
        for number, row in enumerate(rows):
            out = mlp(block.mlp, row if after else norm(block.norm2, row))
            rows[number] = row + (norm(block.norm2, out) if after else scaled(block, 2, out))
    rows = [norm(model.norm, row) for row in rows]
    if model.global_pool == "token":
        pooled = rows[0]
    else:
        counts = size[prefix:]
        mean = [s * row for s, row in zip(counts, rows[prefix:], strict=True)]
        pooled = sum(mean, torch.zeros_like(rows[0])) / sum(counts)
    return linear(model.head, norm(model.fc_norm, pooled) if not isinstance(model.fc_norm, nn.Identity) else pooled)
