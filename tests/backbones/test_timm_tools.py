"""A reduced model answers what timm's tools ask a model: its configuration, its features, its head."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
import timm
import torch
from backbones.test_timm_vit_merged import KINDS, build
from backbones.zoo import images_for
from timm.data import resolve_data_config, resolve_model_data_config
from torch import Tensor

from tomebench.backbones.apply import apply
from tomebench.errors import SpecError
from tomebench.reduction.vit import ReducedViT

SIZED = {"average", "average, norm before", "average beside a class token", "average with the prefix",
         "average and maximum", "attention", "attention without registers", "attention with registers",
         "norm before the blocks, no biases"}  # fmt: skip
"""Kinds of model whose head counts merged tokens by size."""


def same_bits(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and torch.equal(a, b)


def test_same_bits_sees_a_difference() -> None:
    assert not same_bits(torch.ones(2), torch.ones(2) + 1e-7)
    assert not same_bits(torch.ones(2), torch.ones(3))


@pytest.mark.parametrize("name", ["test_vit2", "vit_base_patch16_siglip_224", "deit_tiny_distilled_patch16_224"])
def test_what_timm_asks_is_the_models_own(name: str) -> None:
    with torch.device("meta"):
        model = timm.create_model(name)
        merged = apply(model, r=4)
    for asked in ("pretrained_cfg", "default_cfg", "num_classes", "num_features", "embed_dim", "global_pool"):
        assert getattr(merged, asked) == getattr(model, asked)
    assert merged.num_prefix_tokens == model.num_prefix_tokens
    assert merged.get_classifier() == model.get_classifier()
    own = resolve_model_data_config(model)
    assert own != resolve_data_config({}, pretrained_cfg={"input_size": (3, 224, 224)})  # it has something to say
    assert resolve_data_config(model=merged) == resolve_data_config(model=model)
    assert resolve_model_data_config(merged) == own


def test_what_the_model_does_not_have_is_not_there() -> None:
    """Built without timm's factory it has no configuration."""
    merged = apply(build("class token", fused=True), r=4)
    assert not hasattr(merged, "pretrained_cfg")
    assert merged.num_classes == 5
    with pytest.raises(AttributeError, match="'ReducedViT' object has no attribute 'pretrained_cfq'"):
        _ = merged.pretrained_cfq


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_features_and_head_are_a_whole_pass(kind: str) -> None:
    model = build(kind, fused=True)
    images = images_for(model)
    alone, merged = apply(model, r=0), apply(model, r=4)
    assert same_bits(alone.forward_features(images), model.forward_features(images))
    assert same_bits(alone.forward_head(alone.forward_features(images)), model(images))

    features, size = merged.features_and_sizes(images)
    assert same_bits(features, merged.forward_features(images))
    assert features.shape == (len(images), merged.token_counts[-1], model.embed_dim)
    assert size is not None
    assert size.sum(dim=1).tolist() == [merged.backbone.tokens] * len(images)
    assert same_bits(merged.forward_head(features, size=size), merged(images))
    before = merged.forward_head(features, pre_logits=True, size=size)
    assert before.shape[-1] == model.num_features
    if kind != "distilled":  # which has two last layers
        assert same_bits(model.head(before), merged(images))

    if kind in SIZED:
        with pytest.raises(SpecError, match=r"use features, size = merged\.features_and_sizes\(images\)"):
            merged.forward_head(features)
    else:
        assert same_bits(merged.forward_head(features), merged(images))


@torch.no_grad()
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("average", {"matching": "random-prune"}),
        ("attention", {"prop_attn": False}),
        ("class token", {"prefix_only": True}),
    ],
)
def test_no_sizes_are_asked_for_where_none_count(kind: str, options: dict[str, Any]) -> None:
    model = build(kind, fused=True)
    merged, images = apply(model, r=4, **options), images_for(model)
    assert same_bits(merged.forward_head(merged.forward_features(images)), merged(images))


@torch.no_grad()
def test_copies_answer_as_well(tmp_path: Any) -> None:
    model = timm.create_model("test_vit").eval()
    merged, images = apply(model, r=4), images_for(model)
    stored = io.BytesIO()
    torch.save(merged, stored)
    stored.seek(0)
    for copied in (copy.deepcopy(merged), torch.load(stored, weights_only=False)):
        assert isinstance(copied, ReducedViT)
        assert copied.model is not model
        assert copied.pretrained_cfg == model.pretrained_cfg
        assert same_bits(copied.forward_head(copied.forward_features(images)), merged(images))


@torch.no_grad()
def test_a_graph_holds_the_whole_pass_and_its_features() -> None:
    """Without a break; the compiler itself is tested with the sweep."""
    model = build("average", fused=True)
    merged, images = apply(model, r=4), images_for(model)
    whole = torch.compile(merged, fullgraph=True, backend="eager")
    assert same_bits(whole(images), merged(images))
    features = torch.compile(merged.forward_features, fullgraph=True, backend="eager")
    assert same_bits(features(images), merged.forward_features(images))
