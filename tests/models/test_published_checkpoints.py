"""Files as others publish them: official MAE and DeiT files load, what does not fit names its first three keys."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from tomebench.backbones.apply import apply
from tomebench.errors import ModelError
from tomebench.models.aliases import MAE
from tomebench.models.checkpoint import load_checkpoint
from tomebench.models.create import build_model, load_model

State = dict[str, Tensor]
SIZE = 96
"""Pixels of the images that the MAE model takes here: fewer than in the paper, and the same tensors otherwise."""


class MaeVisionTransformer(nn.Module):
    """A fine-tuned MAE model as its paper describes it: fc_norm of the mean over patches, then the classifier.

    The blocks are timm's; what is compared is everything around them.
    """

    def __init__(self, width: int, depth: int, heads: int, patch: int, size: int, classes: int) -> None:
        super().__init__()
        reference = timm.models.VisionTransformer(
            img_size=size, patch_size=patch, embed_dim=width, depth=depth, num_heads=heads, num_classes=classes
        )
        self.patch_embed, self.blocks = reference.patch_embed, reference.blocks
        self.cls_token, self.pos_embed = reference.cls_token, reference.pos_embed
        self.fc_norm, self.head = nn.LayerNorm(width, eps=1e-6), nn.Linear(width, classes)

    def forward(self, images: Tensor) -> Tensor:
        patches = self.patch_embed(images)
        x = torch.cat([self.cls_token.expand(len(images), -1, -1), patches], dim=1) + self.pos_embed
        return self.head(self.fc_norm(self.blocks(x)[:, 1:].mean(dim=1)))


def randomised(model: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.05)
    return model.eval()


def images(size: int = 224) -> Tensor:
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def mae() -> nn.Module:
    return randomised(MaeVisionTransformer(768, 12, 12, 16, SIZE, 1000))


@pytest.fixture
def mae_file(mae: nn.Module, tmp_path: Path) -> Path:
    """Its weights as a training script saves them."""
    path = tmp_path / "mae_finetuned.pth"
    torch.save({"model": mae.state_dict(), "epoch": 99, "args": argparse.Namespace(lr=1e-3, model="vit")}, path)
    return path


@torch.inference_mode()
def test_a_fine_tuned_mae_file_gives_its_own_logits(mae: nn.Module, mae_file: Path) -> None:
    loaded = load_model("mae_vit_b_16", checkpoint=mae_file, img_size=SIZE)
    expected, found = mae(images(SIZE)), loaded.model(images(SIZE))
    assert expected.abs().max() > 0.1
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    with_class_token = mae.head(mae.fc_norm(mae.blocks(mae.patch_embed(images(SIZE))).mean(dim=1)))
    with pytest.raises(AssertionError):  # the comparison notices another pooling
        torch.testing.assert_close(found, with_class_token, rtol=0, atol=1e-5)


@torch.inference_mode()
def test_merged_patches_are_averaged_by_their_size(mae_file: Path) -> None:
    """Without block arithmetic in between, the mean by size over merged tokens is the mean over all patches."""
    model = load_model("mae_vit_b_16", checkpoint=mae_file, img_size=SIZE).model
    for block in model.blocks:  # attention and MLP branches add nothing, so that merging alone is left
        for part in (block.attn.proj, block.mlp.fc2):
            part.weight.zero_()
            part.bias.zero_()
    merged, expected = apply(model, 2, prop_attn=False), model(images(SIZE))
    assert merged.token_counts[-1] < 20
    torch.testing.assert_close(merged(images(SIZE)), expected, rtol=0, atol=1e-5)
    assert not torch.allclose(apply(model, 2, combine="keep")(images(SIZE)), expected, atol=1e-5)


@pytest.mark.parametrize("name", MAE)
def test_presets_average_patches_and_crop_as_their_authors_did(name: str) -> None:
    model: Any = build_model(name, meta=True).model
    assert (model.global_pool, model.num_classes) == ("avg", 1000)
    assert isinstance(model.fc_norm, nn.LayerNorm)
    assert isinstance(model.norm, nn.Identity)
    config = model.pretrained_cfg
    assert (config["crop_pct"], config["mean"]) == (0.875, (0.485, 0.456, 0.406))
    assert model.patch_embed.img_size == (224, 224)


@pytest.mark.parametrize("name", MAE)
def test_where_the_files_are(name: str) -> None:
    with pytest.raises(
        ModelError, match=rf"{name} takes its weights from a file: {MAE[name].file}, published at https"
    ):
        load_model(name, pretrained=True)


@pytest.mark.parametrize("name", ["deit_tiny_patch16_224", "deit_tiny_distilled_patch16_224"])
@torch.inference_mode()
def test_official_deit_files(tmp_path: Path, name: str) -> None:
    theirs = randomised(timm.create_model(name))
    torch.save({"model": theirs.state_dict()}, tmp_path / "deit.pth")
    loaded = load_model(name, checkpoint=tmp_path / "deit.pth")
    assert ("head_dist.weight" in loaded.model.state_dict()) == ("distilled" in name)
    assert torch.equal(loaded.model(images()), theirs(images()))


def without(state: State, *parts: str) -> State:
    return {key: tensor for key, tensor in state.items() if not key.startswith(parts)}


def test_a_file_with_two_heads_does_not_fit_a_model_with_one(tmp_path: Path) -> None:
    state = timm.create_model("deit_tiny_distilled_patch16_224").state_dict()
    torch.save({"model": state}, tmp_path / "deit.pth")
    with pytest.raises(ModelError) as caught:
        load_model("deit_tiny_patch16_224", checkpoint=tmp_path / "deit.pth")
    named = "dist_token is unknown to the model; head_dist.weight is unknown to the model; head_dist.bias is unknown"
    assert named in str(caught.value)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        # a classifier on the class token: norm in place of fc_norm
        (
            lambda s: {**without(s, "fc_norm"), "norm.weight": s["fc_norm.weight"], "norm.bias": s["fc_norm.bias"]},
            "fc_norm.weight is missing; fc_norm.bias is missing; norm.weight is unknown to the model and 1 more",
        ),
        # pre-training only: no head, a mask token and a decoder
        (
            lambda s: {**without(s, "fc_norm", "head"), "decoder_embed.weight": torch.zeros(512, 768)},
            "fc_norm.weight is missing; fc_norm.bias is missing; head.weight is missing and 2 more",
        ),
        (
            lambda s: {**without(s, "fc_norm", "head"), "mask_token": torch.zeros(1, 1, 512)},
            "fc_norm.weight is missing; fc_norm.bias is missing; head.weight is missing and ",
        ),
        (
            lambda s: {**s, **{f"blocks.{i}.attn.proj.weight": torch.zeros(1, 1) for i in range(4)}},
            "blocks.0.attn.proj.weight is [1, 1] instead of [768, 768]; blocks.1.attn.proj.weight is [1, 1]",
        ),
    ],
)
def test_files_of_another_kind_name_their_first_three_keys(mae: nn.Module, tmp_path: Path, change, named: str) -> None:
    torch.save({"model": change(mae.state_dict())}, tmp_path / "w.pth")
    with pytest.raises(ModelError) as caught:
        load_checkpoint(build_model("mae_vit_b_16", meta=True, img_size=SIZE).model, tmp_path / "w.pth")
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)
