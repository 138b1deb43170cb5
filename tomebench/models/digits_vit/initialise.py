"""Starting weights that let a small ViT learn from 1 198 digits: attention begins as a convolution.

After d'Ascoli et al., ConViT, arXiv 2103.10697, without its gates: positions are sines in channels of their own, keys
read them, and the queries of each head read them shifted by one patch, so that a head starts by looking at one
neighbour (up and down in even blocks, left and right in odd ones). All of it is trained afterwards, and the
architecture stays plain.
"""

from __future__ import annotations

from typing import Any

import torch
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

_FREQUENCIES = (0.5, 1.0, 1.5, 2.0)  # radians per patch
_POSITION_CHANNELS = 4 * len(_FREQUENCIES)  # a sine and a cosine for each frequency, for rows and for columns
_SHARPNESS = 1.8
_NEIGHBOURS = (((-1, 0), (1, 0)), ((0, -1), (0, 1)))  # (down, right) of each head, in even and in odd blocks


@torch.no_grad()
def initialise(model: VisionTransformer) -> None:
    """Initialise a model with two attention heads for training; draws from torch's random state."""
    for module in model.modules():
        if isinstance(module, nn.Linear):  # keeps the variance of its input; timm's fixed 0.02 is for wide models
            nn.init.trunc_normal_(module.weight, std=module.in_features**-0.5)
    assert isinstance(model.head, nn.Linear)
    assert model.pos_embed is not None
    nn.init.zeros_(model.head.weight)
    nn.init.zeros_(model.pos_embed)
    model.pos_embed[0, model.num_prefix_tokens :, :_POSITION_CHANNELS] = _waves(model.patch_embed.grid_size[0])
    # Nothing else writes to the channels of the positions at first.
    model.patch_embed.proj.weight.mul_(2)[:_POSITION_CHANNELS] = 0
    model.patch_embed.proj.bias[:_POSITION_CHANNELS] = 0
    for number, block in enumerate(model.blocks):
        assert isinstance(block, Block)
        attention: Any = block.attn
        mlp: Any = block.mlp
        for layer in (attention.proj, mlp.fc2):
            layer.weight.mul_(0.5)[:_POSITION_CHANNELS] = 0
        queries, keys, _ = attention.qkv.weight.chunk(3)
        for head, shift in enumerate(_NEIGHBOURS[number % 2]):
            rows = slice(head * attention.head_dim, head * attention.head_dim + _POSITION_CHANNELS)
            queries[rows], keys[rows] = 0, 0
            queries[rows, :_POSITION_CHANNELS] = _SHARPNESS * _shifted(shift)
            keys[rows, :_POSITION_CHANNELS] = _SHARPNESS * torch.eye(_POSITION_CHANNELS)


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
