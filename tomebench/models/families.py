"""Families of timm's transformers: which have an adapter, and what those without one would need.

A family is a module of timm. Those with an adapter are listed without a reason; a few of their models have parts of
their own all the same, and are refused by name when they are used.
"""

from __future__ import annotations

from collections.abc import Mapping

_WINDOWS = "attention within windows of the grid, which merged tokens leave: windows would have to follow the groups"
_POOLING = "tokens are pooled on the grid between blocks, which merged tokens leave: unmerging before each pooling"
_CONVOLUTION = "convolutions on the grid of tokens, which merged tokens leave: unmerging before each of them"
_CHANNELS = "attention between channels, in which a token is no key: another rule for what a merged token counts"
_ENCODER = "the encoder of a language model, whose projector reads the grid: an adapter with classes beside it"

FAMILIES: Mapping[str, str] = {
    "vision_transformer": "",
    "deit": "",
    "vision_transformer_hybrid": "",
    "vitamin": "",
    "eva": "",
    "beit": "",
    "vision_transformer_relpos": "",
    "naflexvit": "",
    "cait": "scores of heads are mixed before the softmax: attention with sizes in a kernel of its own",
    "qwen3_vit": _ENCODER,
    "gemma4_vit": _ENCODER,
    "deepseek_vit": _ENCODER,
    "convit": "attention with a gate by place: an adapter that follows places",
    "crossvit": "two sets of tokens of different size: a plan for each",
    "tnt": "tokens within tokens: a plan for the inner ones",
    "vision_transformer_sam": _WINDOWS,
    "swin_transformer": _WINDOWS,
    "swin_transformer_v2": _WINDOWS,
    "swin_transformer_v2_cr": _WINDOWS,
    "hieradet_sam2": _WINDOWS,
    "hiera": _WINDOWS,
    "maxxvit": _WINDOWS,
    "gcvit": _WINDOWS,
    "nest": _WINDOWS,
    "davit": _WINDOWS,
    "twins": _WINDOWS,
    "tiny_vit": _WINDOWS,
    "volo": _WINDOWS,
    "mvitv2": _POOLING,
    "pvt_v2": _POOLING,
    "pit": _POOLING,
    "levit": _POOLING,
    "nextvit": _POOLING,
    "metaformer": _POOLING,
    "coat": _CONVOLUTION,
    "visformer": _CONVOLUTION,
    "mobilevit": _CONVOLUTION,
    "fastvit": _CONVOLUTION,
    "efficientformer": _CONVOLUTION,
    "efficientformer_v2": _CONVOLUTION,
    "efficientvit_mit": _CONVOLUTION,
    "efficientvit_msra": _CONVOLUTION,
    "swiftformer": _CONVOLUTION,
    "iformer": _CONVOLUTION,
    "xcit": _CHANNELS,
    "edgenext": _CHANNELS,
    "shvit": _CONVOLUTION,
    "lowformer": _CONVOLUTION,
    "csatv2": _CONVOLUTION,
}
"""What a family without an adapter would need, by the name of timm's module; "" for one that has an adapter."""
