"""Zero-shot class heads: scores are those of transformers' own models of images and texts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

transformers = pytest.importorskip("transformers")

import hf_texts  # noqa: E402

from tomebench.backbones.adapt import adapt  # noqa: E402
from tomebench.backbones.apply import apply  # noqa: E402
from tomebench.errors import ConfigError, ModelError  # noqa: E402
from tomebench.models.create import build_model, load_model  # noqa: E402
from tomebench.models.head_files import BIAS, EMBEDDINGS, SCALE, write_head  # noqa: E402
from tomebench.models.hf_texts import embed_classes  # noqa: E402

NAMES = tuple(f"kind {number}" for number in range(7))


def images() -> Tensor:
    return torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(5))


@pytest.fixture(scope="module", params=["clip", "siglip"])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Folder of a model, and file of its class embeddings."""
    where = tmp_path_factory.mktemp(request.param)
    folder = hf_texts.folder(request.param, where / "mine")
    found = embed_classes(f"hf/{folder}", NAMES, ["a photo of the {} ."])
    tensors = {EMBEDDINGS: found.embeddings, SCALE: torch.tensor(found.scale), BIAS: torch.tensor(found.bias)}
    write_head(where / "c.safetensors", tensors, {"classes": list(NAMES)})
    return folder, where / "c.safetensors"


def own_scores(folder: Path, templates: tuple[str, ...] = ("a photo of the {} .",)) -> Tensor:
    """Scores of transformers' whole model, [images, classes]."""
    config = json.loads((folder / "config.json").read_text())
    model = getattr(transformers, config["architectures"][0]).from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    texts = [templates[0].format(name) for name in NAMES]
    more: dict[str, Any] = {"padding": "max_length", "max_length": 16} if "Siglip" in type(model).__name__ else {}
    words = tokenizer(texts, return_tensors="pt", **{"padding": True, **more})
    known = {key: words[key] for key in ("input_ids", "attention_mask")}
    with torch.no_grad():
        found: Tensor = model(pixel_values=images(), **known).logits_per_image
    return found


def test_scores_are_those_of_the_whole_model(made: tuple[Path, Path]) -> None:
    folder, file = made
    loaded = load_model(f"hf/{folder}", class_head=file)
    expected = own_scores(folder)
    assert expected.argmax(dim=1).unique().numel() > 1
    with torch.no_grad():
        torch.testing.assert_close(loaded.model(images()), expected, rtol=1e-5, atol=1e-5)
        reduced = apply(loaded.model, 0)
        assert torch.equal(reduced(images()), loaded.model(images()))
        merged = apply(loaded.model, 8)(images())
        features = apply(load_model(f"hf/{folder}").model, 8)(images())
        assert torch.equal(merged, loaded.model.class_head(features))
        assert not torch.equal(merged, reduced(images()))
    assert loaded.head.num_classes == 7
    listed = loaded.head.names()
    assert listed is not None
    assert listed.names == NAMES
    assert loaded.weights.count("sha256:") == 2


def test_shapes_and_macs_without_weights(made: tuple[Path, Path]) -> None:
    folder, file = made
    plain, headed = (build_model(f"hf/{folder}", meta=True, class_head=each) for each in (None, file))
    counts = [adapt(each.model).macs().gmacs(64, [64, 64]) for each in (plain, headed)]
    width = headed.model.class_head.weight.shape[1]
    assert counts[1] - counts[0] == pytest.approx(7 * width / 1e9)
    assert headed.model.num_classes == 7


def test_of_several_templates_the_mean(made: tuple[Path, Path]) -> None:
    folder, _ = made
    templates = ["a photo of the {} .", "a bad photo of the {} ."]
    each = [embed_classes(f"hf/{folder}", NAMES, [template]).embeddings for template in templates]
    both = embed_classes(f"hf/{folder}", NAMES, templates).embeddings
    mean = (each[0] + each[1]) / 2
    torch.testing.assert_close(both, mean / mean.norm(dim=-1, keepdim=True))
    torch.testing.assert_close(both.norm(dim=-1), torch.ones(7))


def test_timm_towers_take_them_too(tmp_path: Path) -> None:
    save_file({"class_embeddings": torch.randn(4, 192)}, tmp_path / "c.safetensors")
    loaded = load_model("vit_tiny_patch16_224", num_classes=0, class_head=tmp_path / "c.safetensors")
    with torch.no_grad():
        pictures = torch.randn(2, 3, 224, 224)
        assert torch.equal(apply(loaded.model, 0)(pictures), loaded.model(pictures))
    assert loaded.head.num_classes == 4


@pytest.mark.parametrize(
    ("tensors", "match"),
    [
        ({"x": torch.ones(2, 2)}, "holds no tensor class_embeddings, features or weight"),
        ({"features": torch.ones(3, 24)}, "labels holds no class of each of the features"),
        ({"features": torch.ones(3, 24), "labels": torch.tensor([0, 1, -1])}, "a class that it does not name"),
        ({"features": torch.ones(3, 24), "labels": torch.tensor([0, 1, 1])}, "its k is no number from 1 to 3"),
        ({"weight": torch.ones(3, 24)}, "bias holds no number for each row of weight"),
        ({"weight": torch.ones(3, 24), "bias": torch.zeros(3), "fitted_on": torch.zeros(3)}, "holds no digests"),
        ({"class_embeddings": torch.ones(3)}, "class_embeddings is no matrix of numbers"),
        ({"class_embeddings": torch.zeros(3, 24)}, "a class has an embedding of zeros"),
        ({"class_embeddings": torch.full((3, 24), torch.nan)}, "class_embeddings holds what is no number"),
        ({"class_embeddings": torch.ones(3, 5)}, "it reads 5 channels, and the image features of hf/mine"),
        ({"class_embeddings": torch.ones(3, 24), "logit_scale": torch.ones(2)}, "logit_scale is not one number"),
    ],
)
def test_files_that_cannot_be_used(
    tensors: dict[str, Tensor], match: str, made: tuple[Path, Path], tmp_path: Path
) -> None:
    save_file(tensors, tmp_path / "c.safetensors")
    with pytest.raises(ModelError, match=match):
        load_model(f"hf/{made[0]}", class_head=tmp_path / "c.safetensors")


def test_what_else_is_refused(made: tuple[Path, Path], tmp_path: Path) -> None:
    folder, _ = made
    with pytest.raises(ModelError, match="no such file; tomebench embed-classes or fit-head writes one"):
        load_model(f"hf/{folder}", class_head=tmp_path / "none")
    with pytest.raises(ConfigError, match="give a sentence with one"):
        embed_classes(f"hf/{folder}", NAMES, ["a photo"])
    from backbones.hf_models import build
    from hf_folders import save

    save(build("vit"), tmp_path / "vit")
    with pytest.raises(ModelError, match="which alone have a text model"):
        embed_classes(f"hf/{tmp_path}/vit", NAMES, ["{}"])
