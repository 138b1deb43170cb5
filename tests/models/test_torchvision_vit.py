"""torchvision's ViTs, random weights: loaded into timm's model they give torchvision's own logits."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
import torchvision

from tomebench.backbones.apply import apply
from tomebench.errors import ModelError
from tomebench.models.aliases import TORCHVISION
from tomebench.models.checkpoint import load_checkpoint
from tomebench.models.create import build_model, load_model
from tomebench.models.preprocess import Preprocessing

MODELS = [
    ("vit_b_16", "tv_vit_b_16", 224),
    pytest.param("vit_b_16", "swag_vit_b_16", 384, marks=pytest.mark.slow),
    pytest.param("vit_l_16", "tv_vit_l_16", 224, marks=pytest.mark.slow),
    pytest.param("vit_l_16", "swag_vit_l_16", 512, marks=pytest.mark.slow),
    pytest.param("vit_h_14", "swag_vit_h_14", 224, marks=pytest.mark.slow),
    pytest.param("vit_h_14", "swag_vit_h_14", 518, marks=pytest.mark.slow),
]


SMALL = {"patch_size": 16, "num_layers": 4, "num_heads": 2, "hidden_dim": 32, "mlp_dim": 64}
"""A ViT of torchvision's in small, and timm's of the same widths."""
SMALL_TIMM = {"patch_size": 16, "depth": 4, "num_heads": 2, "embed_dim": 32, "mlp_ratio": 2}


def random_vit(name: str, size: int) -> torch.nn.Module:
    """A torchvision ViT whose head and position embeddings are not zeros, as they are when it is made."""
    torch.manual_seed(0)
    return with_head(torchvision.models.get_model(name, image_size=size))


def small_vit(size: int) -> torch.nn.Module:
    """The same, of four narrow blocks."""
    torch.manual_seed(0)
    return with_head(torchvision.models.VisionTransformer(image_size=size, **SMALL))


def with_head(model: torch.nn.Module) -> torch.nn.Module:
    model.eval()
    for parameter in model.heads.parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    return model


@pytest.mark.parametrize(("name", "preset", "size"), MODELS)
@torch.inference_mode()
def test_logits_are_those_of_torchvision(tmp_path: Path, name: str, preset: str, size: int) -> None:
    theirs = random_vit(name, size)
    torch.save(theirs.state_dict(), tmp_path / "w.pth")
    images = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(1))
    expected = theirs(images)
    loaded = load_model(preset, checkpoint=tmp_path / "w.pth", img_size=size)
    ours = loaded.model
    assert loaded.weights.startswith("sha256:")
    assert expected.abs().max() > 0.1
    torch.testing.assert_close(ours(images), expected, rtol=0, atol=1e-5)
    assert torch.equal(apply(ours, 0)(images), ours(images))
    # In double precision: in single, a sum in another order may merge another pair.
    merged = apply(ours.double(), 8)(images.double())
    torch.testing.assert_close(merged, merged_torchvision(theirs.double(), images.double(), 8), rtol=0, atol=1e-5)
    assert (merged - expected).abs().max() > 1e-3


def merged_torchvision(vit: torch.nn.Module, images: torch.Tensor, r: int) -> torch.Tensor:
    """ToMe on torchvision's own modules, written from the formulas for one image and one class token."""
    x = vit._process_input(images)
    x = torch.cat([vit.class_token.expand(len(x), -1, -1), x], dim=1) + vit.encoder.pos_embedding
    size = torch.ones(x.shape[1], dtype=x.dtype)
    for block in vit.encoder.layers:
        normed, attention = block.ln_1(x), block.self_attention
        bias = size.log().expand(x.shape[1], -1)
        x = x + attention(normed, normed, normed, need_weights=False, attn_mask=bias)[0]
        width = x.shape[-1]
        keys = normed[0] @ attention.in_proj_weight[width : 2 * width].T + attention.in_proj_bias[width : 2 * width]
        metric = torch.nn.functional.normalize(keys.unflatten(-1, (block.num_heads, -1)).mean(dim=1), dim=-1)
        tokens = torch.arange(x.shape[1])
        a, b = tokens[2::2], tokens[1::2]  # the class token, number 0, stays out of it
        best, partner = (metric[a] @ metric[b].T).max(dim=1)
        order = best.argsort(descending=True, stable=True)
        goes = torch.zeros(len(a), dtype=torch.bool).index_fill(0, order[: min(r, (len(tokens) - 1) // 2)], True)
        total = (x[0] * size[:, None]).index_add(0, b[partner[goes]], x[0, a[goes]] * size[a[goes], None])
        size = size.index_add(0, b[partner[goes]], size[a[goes]])
        stays = torch.cat([tokens[:1], a[~goes], b])
        x, size = (total / size[:, None])[stays][None], size[stays]
        x = x + block.mlp(block.ln_2(x))
    return vit.heads(vit.encoder.ln(x)[:, 0])


def test_the_comparison_notices_a_tensor_in_the_wrong_place(tmp_path: Path) -> None:
    theirs = small_vit(64)
    state = theirs.state_dict()
    ours = timm.models.VisionTransformer(img_size=64, **SMALL_TIMM).eval()
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))

    def compare() -> None:
        torch.save(state, tmp_path / "w.pth")
        load_checkpoint(ours, tmp_path / "w.pth")
        with torch.inference_mode():
            torch.testing.assert_close(ours(images), theirs(images), rtol=0, atol=1e-5)

    compare()
    first, second = (f"encoder.layers.encoder_layer_{i}.mlp.0.weight" for i in (2, 3))
    state[first], state[second] = state[second], state[first]
    with pytest.raises(AssertionError):
        compare()


def test_another_size_is_resized_and_another_model_refused(tmp_path: Path) -> None:
    torch.save(small_vit(64).state_dict(), tmp_path / "w.pth")
    larger = timm.models.VisionTransformer(img_size=96, **SMALL_TIMM)
    load_checkpoint(larger, tmp_path / "w.pth")
    with pytest.raises(ModelError) as caught:
        load_checkpoint(
            timm.models.VisionTransformer(img_size=64, **{**SMALL_TIMM, "embed_dim": 16}), tmp_path / "w.pth"
        )
    assert "does not fit the model: cls_token is [1, 1, 32] instead of [1, 1, 16]" in str(caught.value)
    assert str(caught.value).count(" instead of ") == 3
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", TORCHVISION)
def test_presets_prepare_images_as_torchvision_does(name: str) -> None:
    model = build_model(name, meta=True).model
    ours = Preprocessing.from_model(model)
    theirs = torchvision.models.get_weight(TORCHVISION[name].weights).transforms()
    size = theirs.crop_size[0]
    assert ours.input_size == (3, size, size)
    assert round(size / ours.crop_pct) == theirs.resize_size[0]
    assert (ours.interpolation, ours.crop_mode) == (theirs.interpolation.value, "center")
    assert (list(ours.mean), list(ours.std)) == (list(theirs.mean), list(theirs.std))
    assert model.patch_embed.img_size == (size, size)


def test_weights_that_are_not_given_are_named_with_where_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError) as caught:
        load_model("swag_vit_b_16", pretrained=True)
    assert str(caught.value) == (
        "swag_vit_b_16 takes its weights from a file: vit_b_16_swag-9ac1b537.pth, published by torchvision as "
        "ViT_B_16_Weights.IMAGENET1K_SWAG_E2E_V1; pass it with --checkpoint"
    )
    assert load_model("swag_vit_b_16", img_size=32).weights == "random:0"
