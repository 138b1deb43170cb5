"""Small models of every kind that can be reduced, and the features each of them really has.

Architectures of the library keep everything but their width and depth; all their parameters are random, norms and
scales included, so that no feature can be left out without changing the logits.
"""

from __future__ import annotations

from typing import Any

import timm
import torch
from timm.layers import GluMlp, RmsNorm, SwiGLU
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

SCALES = ("norm.weight", "norm1.weight", "norm2.weight", "gamma", "gamma_1", "gamma_2")
NARROW = {"embed_dim": 48, "num_heads": 3, "depth": 2}
DEEP = {"depth": 2}  # the stem fixes the width

# Architecture, arguments, and the features it is here for.
ARCHITECTURES: list[tuple[str, dict[str, Any], set[str]]] = [
    ("test_vit", {}, {"class token", "any image size at run time"}),
    ("test_vit2", {}, {"registers", "average pooling", "LayerScale"}),
    ("test_vit3", {}, {"attention pooling", "pooling over the prefix too"}),
    ("test_vit4", {}, {"RMS norm"}),
    ("deit_tiny_patch16_224", NARROW, {"class token"}),
    ("deit_tiny_distilled_patch16_224", NARROW, {"distillation token"}),
    ("deit3_small_patch16_224", NARROW, {"LayerScale", "no position for the class token"}),
    ("deit3_medium_patch16_224", NARROW, {"LayerScale"}),
    ("vit_tiny_patch16_224", NARROW, {"class token", "norm before pooling"}),
    ("vit_tiny_patch16_384", NARROW, {"384 px"}),
    ("vit_tiny_patch16_224", {**NARROW, "qk_norm": True}, {"q/k norm"}),
    ("vit_tiny_patch16_224", {**NARROW, "img_size": (96, 160)}, {"images that are not square"}),
    ("vit_tiny_r_s16_p8_224", NARROW, {"convolutional stem"}),
    ("vit_small_resnet26d_224", {**NARROW, "img_size": 64}, {"batch norm in the stem"}),
    ("vit_small_patch8_224", {**NARROW, "img_size": 96}, {"patch 8"}),
    ("vit_small_patch16_36x1_224", NARROW, {"LayerScale"}),
    ("vit_small_patch32_224", NARROW, {"patch 32"}),
    ("vit_small_patch14_dinov2", {**NARROW, "img_size": 224}, {"patch 14", "LayerScale"}),
    ("vit_small_patch14_reg4_dinov2", {**NARROW, "img_size": 224}, {"class token and registers"}),
    ("vit_giant_patch14_dinov2", {**NARROW, "img_size": 224}, {"gated MLP"}),
    ("vit_wee_patch16_reg1_gap_256", NARROW, {"registers", "average pooling"}),
    ("vit_little_patch16_reg4_gap_256", NARROW, {"norm after pooling"}),
    ("vit_medium_patch16_gap_240", {**NARROW, "class_token": False}, {"no class token, average pooling"}),
    ("vit_betwixt_patch16_reg1_gap_256", NARROW, {"registers"}),
    ("vit_mediumd_patch16_reg4_gap_256", NARROW, {"registers"}),
    ("vit_so150m_patch16_reg4_map_256", NARROW, {"attention pooling", "registers"}),
    ("vit_so150m2_patch16_reg1_gap_256", NARROW, {"no bias of q, k, v"}),
    ("vit_base_patch16_siglip_224", NARROW, {"no class token, attention pooling"}),
    ("vit_base_patch16_siglip_gap_224", NARROW, {"no class token, average pooling"}),
    ("vit_base_patch32_clip_224", NARROW, {"norm before the blocks"}),
    ("vit_base_patch32_clip_quickgelu_224", NARROW, {"norm before the blocks"}),
    ("vit_large_patch14_clip_224", NARROW, {"norm before the blocks", "patch 14"}),
    ("flexivit_small", NARROW, {"no position for the class token"}),
    ("eva_large_patch14_196", NARROW, {"class token, average pooling"}),
    ("beit3_base_patch16_224", NARROW, {"norm of the attention output"}),
    ("aimv2_large_patch14_224", NARROW, {"RMS norm", "gated MLP"}),
    ("vit_intern300m_patch14_448", {**NARROW, "img_size": 224}, {"any image size at run time"}),
    ("vit_base_patch16_radio_v3", {**NARROW, "img_size": 256}, {"class token and registers"}),
    ("vit_base_patch14_reg1_tipsv2", {**NARROW, "img_size": 224}, {"class token and registers"}),
    ("vit_base_patch16_plus_240", NARROW, {"LayerScale"}),
    ("vit_giant_patch16_gap_224", NARROW, {"average pooling"}),
    ("vit_huge_patch14_gap_224", NARROW, {"patch 14"}),
    ("vit_base_patch16_224_miil", NARROW, {"no bias of q, k, v"}),
]


def architecture_id(entry: tuple[str, dict[str, Any], set[str]]) -> str:
    """Name of a test of one architecture."""
    name, arguments, _ = entry
    special = [key for key in arguments if key not in NARROW]
    return "-".join([name, *special])


def build(name: str, arguments: dict[str, Any], *, fused: bool = True, seed: int = 0) -> VisionTransformer:
    """An architecture of the library with random parameters, in evaluation mode."""
    model = timm.create_model(name, num_classes=7, **arguments)
    return prepare(model, fused=fused, seed=seed)


def prepare(model: VisionTransformer, *, fused: bool = True, seed: int = 0) -> VisionTransformer:
    """Give every parameter and running average a random value of a size that keeps activations near one."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if not tensor.is_floating_point() or name.startswith("rope."):  # sines and cosines stay what they are
                continue
            noise = torch.randn(tensor.shape, generator=generator).to(tensor.dtype)
            if tensor.ndim >= 2 and "token" not in name and "pos_embed" not in name:
                tensor.copy_(noise / tensor[0].numel() ** 0.5)
            elif name.endswith(SCALES) or "running_var" in name:
                tensor.copy_(1 + 0.3 * noise.abs())
            else:
                tensor.copy_(0.5 * noise)
    for module in model.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = fused
    return model.eval()


def images_for(model: VisionTransformer, batch: int = 2, seed: int = 1) -> Tensor:
    """Random images of the model's own size, in its dtype."""
    size = model.patch_embed.img_size
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, model.in_chans, *size, generator=generator).to(next(model.parameters()).dtype)


def features(model: VisionTransformer) -> set[str]:
    """What the model has that a reduction must get right, read off its parts."""
    block = model.blocks[0]
    attn = block.attn
    has_class, has_registers = model.cls_token is not None, model.num_reg_tokens > 0
    pooling = {"avg": "average pooling", "map": "attention pooling", "token": "class token pooling"}
    found = {
        "class token": has_class,
        "distillation token": isinstance(model, VisionTransformerDistilled),
        "registers": has_registers,
        "class token and registers": has_class and has_registers,
        f"no class token, {pooling.get(model.global_pool)}": not has_class,
        f"class token, {pooling.get(model.global_pool)}": has_class,
        str(pooling.get(model.global_pool)): True,
        "pooling over the prefix too": model.pool_include_prefix and model.num_prefix_tokens > 0,
        "LayerScale": not isinstance(block.ls1, nn.Identity),
        "q/k norm": not isinstance(attn.q_norm, nn.Identity) and not isinstance(attn.k_norm, nn.Identity),
        "norm of the attention output": not isinstance(attn.norm, nn.Identity),
        "no bias of q, k, v": attn.qkv.bias is None,
        "fused attention": attn.fused_attn,
        "unfused attention": not attn.fused_attn,
        "norm before the blocks": not isinstance(model.norm_pre, nn.Identity),
        "norm before pooling": not isinstance(model.norm, nn.Identity),
        "norm after pooling": not isinstance(model.fc_norm, nn.Identity),
        "RMS norm": isinstance(block.norm1, RmsNorm),
        "gated MLP": isinstance(block.mlp, (GluMlp, SwiGLU)),
        "no position for the class token": model.no_embed_class and has_class,
        "any image size at run time": model.dynamic_img_size,
        "convolutional stem": hasattr(model.patch_embed, "backbone"),
        "batch norm in the stem": any(isinstance(m, nn.BatchNorm2d) for m in model.patch_embed.modules()),
        f"patch {model.patch_embed.patch_size[0]}": True,
        f"{model.patch_embed.img_size[0]} px": True,
        "images that are not square": model.patch_embed.img_size[0] != model.patch_embed.img_size[1],
    }
    return {name for name, present in found.items() if present}
