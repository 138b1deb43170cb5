"""ViTs of every family: every method, the ceiling, the prefix alone, MACs, routes, autocast, gradients, checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from backbones import test_timm_blocks as blocks
from backbones import test_timm_eva as eva
from backbones import test_timm_relative as relative
from backbones.zoo import images_for
from safetensors.torch import save_file
from torch.utils.flop_counter import FlopCounterMode

from tomebench.backbones.adapt import adapt
from tomebench.backbones.apply import apply
from tomebench.errors import SpecError
from tomebench.models.checkpoint import load_checkpoint, read_checkpoint
from tomebench.reduction.registry import get_method, methods
from tomebench.reduction.vit import SlicedViT

BUILD: dict[str, Callable[[str], Any]] = {
    **dict.fromkeys(blocks.KINDS, blocks.build),
    **dict.fromkeys(eva.KINDS, eva.build),
    **dict.fromkeys(relative.KINDS, relative.build),
}
OFF_THE_SHELF = [name for name in methods() if name != "dynamicvit"]


def build(kind: str) -> Any:
    """A small model of one kind in float64, all its parameters random."""
    return BUILD[kind](kind)


@pytest.mark.parametrize("method", OFF_THE_SHELF)
@pytest.mark.parametrize("kind", ["index grid", "grouped keys", "by block and head", "several branches", "a table"])
def test_every_method_keeps_images_apart(kind: str, method: str) -> None:
    model = build(kind)
    images = images_for(model, batch=3)
    order = torch.tensor([2, 0, 1])
    # All eigenvectors of such matrices depend on the last bit of them.
    merged = apply(model, 3, method=method, **({"eigenvectors": 4} if method == "graph-cut" else {}))
    with torch.no_grad():
        got = merged(images)
        torch.testing.assert_close(got[order], merged(images[order]), rtol=0, atol=1e-9)
        assert (got - model(images)).abs().max() > 1e-6
    assert got.isfinite().all()


def test_a_method_that_compares_tokens_around_the_mlp_needs_one_after_attention() -> None:
    model = build("one projection")
    with pytest.raises(SpecError, match="compares tokens before and after their MLP"):
        apply(model, 3, method="representation-shift")
    apply(model, 0, method="representation-shift")
    apply(model, 3, method="topk")


@pytest.mark.parametrize("kind", BUILD)
def test_macs_are_those_of_a_counter(kind: str) -> None:
    """But for biases that an MLP computes once for all images."""
    model = build(kind)
    merged = apply(model, 0, attention="matmul")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        merged(images_for(model, batch=1))
    beside = [m for m in model.modules() if type(m).__name__ == "RelPosMlp"]
    with FlopCounterMode(display=False) as of_biases, torch.no_grad():
        for module in beside:
            module.get_bias()
    terms, backbone = adapt(model).macs(), adapt(model)
    gmacs = terms.gmacs(backbone.tokens, [backbone.tokens] * backbone.depth)
    assert counter.get_total_flops() - of_biases.get_total_flops() == pytest.approx(2e9 * gmacs, rel=1e-12)


@pytest.mark.parametrize("kind", BUILD)
def test_the_ceiling_and_the_prefix_alone(kind: str) -> None:
    model = build(kind)
    images = images_for(model)
    with torch.no_grad():
        sliced = SlicedViT(adapt(model), get_method("tome"), [4, 3, 0])
        assert sliced(images).isfinite().all()
        assert sliced.features_and_sizes(images)[0].shape[1] == sliced.token_counts[-1]
        if adapt(model).head_reads_prefix_only:
            whole, alone = (apply(model, 3, prefix_only=only)(images) for only in (False, True))
            torch.testing.assert_close(alone, whole, rtol=0, atol=1e-9)


@pytest.mark.parametrize("route", ["padded", "matmul", "augmented"])
@pytest.mark.parametrize("kind", ["index grid", "by block and head", "grouped keys", "norms after", "one projection"])
def test_every_route_computes_the_same(kind: str, route: Any) -> None:
    model = build(kind)
    images = images_for(model)
    with torch.no_grad():
        expected = apply(model, 3)(images)
        torch.testing.assert_close(apply(model, 3, attention=route)(images), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("kind", BUILD)
def test_r_0_is_the_model_itself_under_autocast(kind: str) -> None:
    model = build(kind).float()
    images = images_for(model)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        expected, got = model(images), apply(model, 0)(images)
    assert torch.equal(got, expected)


@pytest.mark.parametrize("kind", BUILD)
def test_r_0_trains_as_the_model_does(kind: str) -> None:
    model = build(kind)
    images, found = images_for(model), []
    for module in (model, apply(model, 0)):
        model.zero_grad()
        module(images).square().mean().backward()
        found.append(
            {name: tensor.grad.clone() for name, tensor in model.named_parameters() if tensor.grad is not None}
        )
    assert found[0].keys() == found[1].keys()
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


FILES = {
    "vit_small_patch16_rope_224": (None, {}),
    "vit_small_patch16_dinov3": (None, {"rope_embed.periods": (16,)}),
    "vit_small_patch16_rope_mixed_224": (None, {}),
    "beit_base_patch16_224": (10, {"blocks.0.attn.relative_position_index": (101, 101)}),
    "vit_relpos_base_patch32_plus_rpn_256": (None, {}),
    "vit_relpos_medium_patch16_cls_224": (None, {}),
    "vit_srelpos_small_patch16_224": (None, {}),
}
"""Architectures, the patches per side that a file of 160 pixels says, and what else such files hold."""


@pytest.mark.parametrize("name", FILES)
def test_checkpoints_of_every_family_are_loaded(name: str, tmp_path: Path) -> None:
    """With tensors that timm leaves out; biases by position say the image size, and are resized as positions are."""
    says, more = FILES[name]
    small = {"num_classes": 5, "depth": 1, "img_size": 160}
    made = timm.create_model(name, **small)
    state = {key: torch.randn_like(tensor) for key, tensor in made.state_dict().items()}
    file = tmp_path / "own.safetensors"
    save_file({**state, **{key: torch.zeros(shape) for key, shape in more.items()}}, file)
    load_checkpoint(made, file)
    assert all(torch.equal(tensor, state[key]) for key, tensor in made.state_dict().items())
    patch = int(made.patch_embed.patch_size[0])
    if says is not None:
        assert read_checkpoint(file).grid(made.num_prefix_tokens) == (says, patch)
        larger = timm.create_model(name, **{**small, "img_size": 224})
        load_checkpoint(larger, file)
        assert torch.equal(larger.head.weight, state["head.weight"])
