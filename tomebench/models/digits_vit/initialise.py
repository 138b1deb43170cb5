"""Starting weights that let a small ViT learn from 1 198 digits: attention begins as a convolution.

After d'Ascoli et al., ConViT, arXiv 2103.10697, without its gates: positions are sines in channels of their own, keys
read them, and the queries of each head read them shifted by one patch, so that a head starts by looking at one
neighbour (up and down in even blocks, left and right in odd ones). All of it is trained afterwards, and the
architecture stays plain.

A rotary model has no positions in its tokens: there, one channel starts as a constant of all patches, keys read it, and
queries read it rotated by one patch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

_FREQUENCIES = (0.5, 1.0, 1.5, 2.0)  # radians per patch
_POSITION_CHANNELS = 4 * len(_FREQUENCIES)  # a sine and a cosine for each frequency, for rows and for columns
_SHARPNESS = 1.8
_CONSTANT = 6.0  # of the rotary model's constant channel, before its norm
_NEIGHBOURS = (((-1, 0), (1, 0)), ((0, -1), (0, 1)))  # (down, right) of each head, in even and in odd blocks


@torch.no_grad()
def initialise(model: VisionTransformer | Eva) -> None:
    """Initialise a model with two attention heads for training; draws from torch's random state."""
    for module in model.modules():
        if isinstance(module, nn.Linear):  # keeps the variance of its input; timm's fixed 0.02 is for wide models
            nn.init.trunc_normal_(module.weight, std=module.in_features**-0.5)
    assert isinstance(model.head, nn.Linear)
    nn.init.zeros_(model.head.weight)
    start = _rotary(model) if isinstance(model, Eva) else _learned(model)
    # Nothing else writes to the channels of the positions at first.
    model.patch_embed.proj.weight.mul_(2)[: start.channels] = 0
    for number, block in enumerate(model.blocks):
        attention: Any = block.attn
        mlp: Any = block.mlp
        for layer in (attention.proj, mlp.fc2):
            layer.weight.mul_(0.5)[: start.channels] = 0
        queries, keys, _ = (part.unflatten(0, (2, -1)) for part in attention.qkv.weight.chunk(3))
        for head, shift in enumerate(_NEIGHBOURS[number % 2]):
            queries[head, start.rows], keys[head, start.rows] = 0, 0
            queries[head, start.rows, : start.channels] = start.query(shift)
            keys[head, start.rows, : start.channels] = start.key


@dataclass(frozen=True)
class _Start:
    """How attention reads positions at first, from the first ``channels`` of its input into ``rows`` of every head."""

    channels: int
    rows: list[int]
    key: Tensor  # [rows, channels]
    query: Callable[[tuple[int, int]], Tensor]  # of a shift (down, right), in patches: [rows, channels]


def _learned(model: VisionTransformer) -> _Start:
    """Write sines into the position embedding, for keys and queries to read."""
    assert model.pos_embed is not None
    nn.init.zeros_(model.pos_embed)
    model.pos_embed[0, model.num_prefix_tokens :, :_POSITION_CHANNELS] = _waves(model.patch_embed.grid_size[0])
    model.patch_embed.proj.bias[:_POSITION_CHANNELS] = 0
    key = _SHARPNESS * torch.eye(_POSITION_CHANNELS)
    return _Start(_POSITION_CHANNELS, [*range(_POSITION_CHANNELS)], key, lambda shift: _SHARPNESS * _shifted(shift))


def _rotary(model: Eva) -> _Start:
    """Write a constant into channel 0 of all patches; of each axis, the four fastest bands read it."""
    assert model.cls_token is not None
    assert model.patch_embed.proj.bias is not None
    model.patch_embed.proj.bias[0] = _CONSTANT
    model.cls_token[..., 0] = 0  # the class token has no place
    bands = model.embed_dim // len(_NEIGHBOURS[0]) // 4
    fast = torch.tensor([100.0 ** (-band / bands) for band in range(len(_FREQUENCIES))])
    width = 2 * len(fast)
    rows = [*range(width), *range(2 * bands, 2 * bands + width)]  # pairs of channels, first of rows, then of columns

    def rotated(shift: tuple[int, int]) -> Tensor:
        angles = torch.cat([distance * fast for distance in shift])
        return torch.stack([angles.cos(), angles.sin()], dim=1).flatten()[:, None]

    return _Start(1, rows, rotated((0, 0)), rotated)


def _waves(side: int) -> Tensor:
    """Position channels: sines and cosines of every patch's row and column, [side * side, 16]."""
    phase = torch.arange(side)[:, None] * torch.tensor(_FREQUENCIES)
    line = torch.cat([phase.sin(), phase.cos()], dim=1)
    return torch.cat([line[:, None].expand(-1, side, -1), line[None].expand(side, -1, -1)], dim=2).flatten(0, 1)


def _shifted(shift: tuple[int, int]) -> Tensor:
    """Matrix [16, 16] that maps the position channels of a patch to those of the patch ``shift`` away."""
    blocks = []
    for distance in shift:
        angle = distance * torch.tensor(_FREQUENCIES)
        cosine, sine = angle.cos().diag(), angle.sin().diag()
        blocks.append(torch.cat([torch.cat([cosine, sine], dim=1), torch.cat([-sine, cosine], dim=1)]))
    return torch.block_diag(*blocks)
