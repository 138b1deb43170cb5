"""An adapter by one file and one entry: a model of another library is merged, counted and swept."""

from __future__ import annotations

import re
import sys
import textwrap
from pathlib import Path

import pytest
import timm
import torch
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import VisionTransformer
from torchvision.models.vision_transformer import ConvStemConfig

import tomebench
from tomebench.backbones import adapt as door
from tomebench.errors import UnsupportedModelError
from tomebench.models.torchvision_vit import to_timm
from tomebench.reduction.attention import kernel_name
from tomebench.reduction.registry import get_method

PAGE = (Path(__file__).parents[2] / ".github" / "CONTRIBUTING.md").read_text()
RECIPE = re.search(r"^## A backbone\n(.*?)(?=^## |\Z)", PAGE, flags=re.DOTALL | re.MULTILINE)[1]
SHAPE = {"image_size": 224, "patch_size": 32, "num_layers": 3, "num_heads": 2, "hidden_dim": 32, "mlp_dim": 48}


@pytest.fixture
def added(monkeypatch, tmp_path):
    """Follow the recipe: its file and its entry."""
    monkeypatch.syspath_prepend(str(tmp_path))
    file = textwrap.dedent(re.search(r" *```python\n(.*?)```", RECIPE, flags=re.DOTALL)[1])
    (tmp_path / "torchvision_vit.py").write_text(file)
    entry = re.search(r"Add `(.*?)` to `ADAPTERS`", RECIPE)[1]
    monkeypatch.setattr(door, "ADAPTERS", {**door.ADAPTERS, **eval("{" + entry.replace("{_ROOM}.", "") + "}")})
    yield
    sys.modules.pop("torchvision_vit", None)


@pytest.fixture
def model():
    """50 tokens in three blocks; in double precision, so that only the order of sums is another."""
    torch.manual_seed(0)
    model = VisionTransformer(**SHAPE, num_classes=10).double().eval()
    with torch.no_grad():  # what it begins with has zeros in the head and in every bias
        for tensor in model.parameters():
            tensor.normal_(std=0.2)
    return model


@pytest.fixture
def images():
    return torch.randn(2, 3, 224, 224, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def test_without_the_entry_it_is_refused(model):
    with pytest.raises(UnsupportedModelError, match="VisionTransformer has 'conv_proj'"):
        tomebench.apply(model, 0)


@pytest.mark.usefixtures("added")
class TestAdded:
    @torch.no_grad()
    def test_r_0_gives_the_logits_of_the_module(self, model, images):
        expected = model(images)
        assert expected.abs().mean() > 0.1
        for merged in (tomebench.apply(model, 0), tomebench.apply(model, 0, prefix_only=True)):
            torch.testing.assert_close(merged(images), expected, rtol=1e-10, atol=1e-10)

    @torch.no_grad()
    def test_tokens_go_and_the_rest_is_what_timm_computes(self, model, images):
        merged = tomebench.apply(model, 8)
        assert merged.token_counts == [42, 34, 26]
        features, size = merged.features_and_sizes(images)
        assert features.shape == (2, 26, 32)
        assert size.sum(dim=1).tolist() == [50, 50]
        assert torch.equal(merged.forward_head(features, size=size), merged(images))
        torch.testing.assert_close(merged(images), tomebench.apply(twin(model), 8)(images), rtol=1e-10, atol=1e-10)

    @torch.no_grad()
    @pytest.mark.parametrize("r", [0, 8])
    def test_macs_are_those_of_a_counter(self, model, images, r):
        merged = tomebench.apply(model, [r, 0, 0], attention="matmul")
        backbone = merged.backbone
        with FlopCounterMode(display=False) as counter:
            merged(images[:1])
        matching = 25 * 24 * 16 if r else 0  # of two halves of 49 patches, on keys of 16 channels
        gmacs = backbone.macs().gmacs(backbone.tokens, merged.token_counts)
        assert counter.get_total_flops() / 2e9 == pytest.approx(gmacs + matching / 1e9, rel=1e-12)
        assert backbone.macs() == door.adapt(twin(model)).macs()
        stated = backbone.macs().gmacs_matching(50, merged.token_counts, get_method("tome"))
        assert (stated > 0) == (r > 0)

    def test_its_kernels_are_named(self, model):
        merged = tomebench.apply(model, 8)
        how = {"fused": True, "dtype": torch.float32, "device": torch.device("cpu")}
        expected = [
            kernel_name("auto", shape=(2, 2, n, 16), biased=n < 50, **how) for n in (50, *merged.token_counts[:-1])
        ]
        assert [*merged.attention_kernels(2, torch.float32, torch.device("cpu"))] == expected

    @pytest.mark.filterwarnings("ignore:.* would not show a loss to be within")  # of so few images
    @pytest.mark.filterwarnings("ignore:r = 0 differs from the unwrapped model by .* .rounding.")
    def test_it_is_swept(self, model, tmp_path):
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        preprocessing = {"mean": (0.5,) * 3, "std": (0.5,) * 3}
        how = {"device": "cpu", "batch_size": 5, "budget": "none", "workers": 0, "preprocessing": preprocessing}
        rows = tomebench.sweep(model, "0,8", out=tmp_path / "run", data="digits", limit=10, **how)
        assert [(row.model, row.r, row.n_seen, row.status) for row in rows] == [
            ("VisionTransformer", 0, 10, "ok"),
            ("VisionTransformer", 8, 10, "ok"),
        ]
        assert [row.tokens for row in rows] == [(50, 50, 50), (42, 34, 26)]
        assert rows[1].gmacs < rows[0].gmacs
        assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())

    def test_what_it_does_not_know_is_refused(self):
        stem = [ConvStemConfig(8, 3, 2)] * 5
        with pytest.raises(UnsupportedModelError, match="convolutional stem"):
            tomebench.apply(VisionTransformer(**SHAPE, conv_stem_configs=stem), 0)


def twin(model):
    """The model as timm builds it, with its weights."""
    found = timm.models.vision_transformer.VisionTransformer(
        img_size=224, patch_size=32, depth=3, num_heads=2, embed_dim=32, mlp_ratio=1.5, num_classes=10
    ).double()
    found.load_state_dict(to_timm(model.state_dict()))
    return found.eval()
