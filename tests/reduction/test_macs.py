"""Multiply-accumulates: every published figure, and agreement with a counter that sees each matmul."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from backbones.zoo import NARROW, build, images_for
from torch.utils.flop_counter import FlopCounterMode

from tomebench.backbones.apply import apply
from tomebench.backbones.timm_vit import TimmViT
from tomebench.reduction.macs import BlockMacs, MacTerms
from tomebench.reduction.registry import get_method

AUDIO = {"img_size": (1024, 128), "in_chans": 1, "num_classes": 527}


@pytest.mark.parametrize(
    ("name", "arguments", "r", "schedule", "published"),
    [
        ("vit_tiny_patch16_224", {}, 8, "constant", 0.9),
        ("vit_tiny_patch16_224", {}, 12, "constant", 0.8),
        ("vit_tiny_patch16_224", {}, 16, "constant", 0.6),
        ("vit_small_patch16_224", {}, 0, "constant", 4.6),
        ("vit_small_patch16_224", {}, 8, "constant", 3.4),
        ("vit_small_patch16_224", {}, 13, "constant", 2.7),
        ("vit_small_patch16_224", {}, 16, "constant", 2.3),
        ("vit_large_patch16_224", {}, 0, "constant", 61.6),
        ("vit_large_patch16_224", {}, 8, "constant", 31.0),
        ("vit_large_patch16_224", {}, 8, "decreasing", 22.3),
        ("vit_huge_patch14_224", {}, 0, "constant", 167.4),
        ("vit_huge_patch14_224", {}, 7, "constant", 92.9),
        ("vit_huge_patch14_224", {}, 7, "decreasing", 72.6),
        ("vit_base_patch16_224", AUDIO, 0, "constant", 48.6),
        ("vit_base_patch16_224", AUDIO, 20, "constant", 36.3),
        ("vit_base_patch16_224", AUDIO, 40, "constant", 24.7),
    ],
)
def test_every_published_figure(name: str, arguments: dict[str, Any], r: int, schedule: str, published: float) -> None:
    with torch.device("meta"):
        model = timm.create_model(name, **arguments)
    backbone = TimmViT(model)
    counts = apply(model, r, schedule=schedule).token_counts
    gmacs = backbone.macs().gmacs(backbone.tokens, counts)
    assert round(gmacs, 1) == pytest.approx(published, abs=0.1 + 1e-9)
    # What is missing is what the paper's counter adds for layer norms: 5 operations for each channel of each token.
    normed = sum([backbone.tokens, *counts[:-1]]) + sum(counts) + counts[-1]
    assert round(gmacs + 5 * model.embed_dim * normed / 1e9, 1) == published


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("vit_tiny_patch16_224", NARROW),
        ("vit_tiny_patch16_224", {**NARROW, "img_size": (96, 160)}),
        ("deit_tiny_distilled_patch16_224", NARROW),
        ("vit_small_resnet26d_224", {**NARROW, "img_size": 64}),
        ("vit_tiny_r_s16_p8_224", NARROW),
        ("vit_base_patch16_siglip_224", NARROW),
        ("vit_so150m_patch16_reg4_map_256", NARROW),
        ("test_vit3", {}),
        ("vit_giant_patch14_dinov2", {**NARROW, "img_size": 56}),
        ("aimv2_large_patch14_224", NARROW),
        ("vit_wee_patch16_reg1_gap_256", NARROW),
    ],
)
@pytest.mark.parametrize("r", [0, 20])
def test_agrees_with_a_counter_of_every_matmul(name: str, arguments: dict[str, Any], r: int) -> None:
    model = build(name, arguments, fused=False)
    merged = apply(model, [r] + [0] * (len(model.blocks) - 1))
    backbone = TimmViT(model)
    with FlopCounterMode(display=False) as counter:
        merged(images_for(model, batch=1))
    gmacs = backbone.macs().gmacs(backbone.tokens, merged.token_counts)
    free = range(backbone.prefix, backbone.tokens)
    pairs = sum(i % 2 == 0 for i in free) * sum(i % 2 == 1 for i in free) if r else 0
    matching = pairs * model.blocks[0].attn.head_dim / 1e9
    assert counter.get_total_flops() / 2e9 == pytest.approx(gmacs + matching, rel=1e-12)
    # The matching column says n²/4, prefix included.
    n = backbone.tokens
    stated = backbone.macs().gmacs_matching(n, merged.token_counts, get_method("tome"))
    assert matching <= stated
    assert stated <= matching * (n / (n - backbone.prefix - 1)) ** 2


def test_terms_add_up() -> None:
    """Two blocks of 10 -> 6 -> 6 tokens, counted by hand."""
    block = BlockMacs(attention_per_token=1000, attention_per_pair=10, mlp_per_token=500, metric_dim=4, width=8)
    terms = MacTerms(embed=7_000, blocks=(block, block), pool_per_token=30, head=20)
    expected = 7_000 + 20 + 30 * 6 + (10_000 + 1_000 + 3_000) + (6_000 + 360 + 3_000)
    assert terms.gmacs(10, [6, 6]) == pytest.approx(expected / 1e9, rel=1e-12)
    assert terms.gmacs_matching(10, [6, 6], get_method("tome")) == pytest.approx(10 * 10 / 4 * 4 / 1e9, rel=1e-12)
    assert terms.gmacs_matching(10, [10, 10], get_method("tome")) == 0
    with pytest.raises(ValueError, match="zip"):
        terms.gmacs(10, [6])


def test_more_removed_is_never_more_work() -> None:
    with torch.device("meta"):
        model = timm.create_model("vit_base_patch16_224")
    backbone = TimmViT(model)
    gmacs = [backbone.macs().gmacs(backbone.tokens, apply(model, r).token_counts) for r in range(25)]
    assert gmacs == sorted(gmacs, reverse=True)
    assert gmacs[0] / gmacs[8] == pytest.approx(1.34, abs=0.005)
    assert gmacs[0] / gmacs[13] == pytest.approx(1.69, abs=0.005)
