"""Zero-shot class heads: scores are those of transformers' own models of images and texts."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

transformers = pytest.importorskip("transformers")

import hf_texts  # noqa: E402

from tomebench.backbones.adapt import adapt  # noqa: E402
from tomebench.backbones.apply import apply  # noqa: E402
from tomebench.errors import ConfigError, DataError, ModelError  # noqa: E402
from tomebench.models.class_heads import ClassEmbeddings, FeatureHead, LinearProbe, NearestNeighbours  # noqa: E402
from tomebench.models.create import build_model, load_model  # noqa: E402
from tomebench.models.head_files import BIAS, EMBEDDINGS, SCALE, read_head, write_head  # noqa: E402
from tomebench.models.headed import Headed  # noqa: E402
from tomebench.models.hf_texts import embed_classes  # noqa: E402
from tomebench.models.preprocess import Preprocessing  # noqa: E402

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
        (
            {"class_embeddings": torch.ones(3, 24), "fitted_on": torch.zeros(3, 8, dtype=torch.uint8)},
            "holds no digests",
        ),
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


@pytest.mark.parametrize(
    ("about", "match"),
    [
        ({"k": True, "temperature": 0.1}, "its k is no number from 1 to 3"),
        ({"k": 4, "temperature": 0.1}, "its k is no number from 1 to 3"),
        ({"k": 1, "temperature": 0}, "its temperature is no number above 0"),
        ({"k": 1, "temperature": True}, "its temperature is no number above 0"),
        ({"k": 1, "temperature": 0.1, "classes": ["a"]}, "a class that it does not name"),
    ],
)
def test_neighbours_that_cannot_be_used(about: dict[str, Any], match: str, tmp_path: Path) -> None:
    write_head(tmp_path / "h.safetensors", {"features": torch.ones(3, 24), "labels": torch.tensor([0, 1, 1])}, about)
    with pytest.raises(ModelError, match=match):
        read_head(tmp_path / "h.safetensors")


def test_a_class_may_have_no_images(tmp_path: Path) -> None:
    about = {"k": 1, "temperature": 0.1, "classes": list("abc")}
    write_head(tmp_path / "h.safetensors", {"features": torch.eye(2, 24), "labels": torch.tensor([0, 1])}, about)
    votes = read_head(tmp_path / "h.safetensors").head(torch.eye(2, 24))
    assert votes.argmax(dim=1).tolist() == [0, 1]
    assert votes.shape == (2, 3)


def test_huge_numbers_are_no_bug(tmp_path: Path) -> None:
    tensors = {"features": torch.ones(3, 24), "labels": torch.tensor([0, 1, 2**62])}
    write_head(tmp_path / "h.safetensors", tensors, {"k": 1, "temperature": 10**400})
    with pytest.raises(ModelError, match="a class that it does not name"):
        read_head(tmp_path / "h.safetensors")
    tensors["labels"] = torch.tensor([0, 1, 2])
    write_head(tmp_path / "h.safetensors", tensors, {"k": 1, "temperature": 10**400})
    assert bool(read_head(tmp_path / "h.safetensors").head(torch.ones(1, 24)).isfinite().all())


@pytest.mark.parametrize("temperature", [1e-9, 1e-3, 0.07])
def test_votes_are_numbers_at_every_temperature(temperature: float) -> None:
    features = torch.randn(9, 5, generator=torch.Generator().manual_seed(0))
    head = NearestNeighbours(features, torch.arange(9) % 3, 3, 4, temperature)
    votes = head(features)
    assert bool(votes.isfinite().all())
    assert votes.argmax(dim=1).tolist() == [0, 1, 2] * 3


@pytest.mark.parametrize(
    "head",
    [
        ClassEmbeddings(torch.randn(6, 64), 100.0),
        NearestNeighbours(torch.randn(40, 64), torch.arange(40) % 6, 6, 5, 0.07),
        LinearProbe(torch.randn(6, 64), torch.zeros(6)),
    ],
    ids=lambda head: head.KIND,
)
def test_heads_compute_in_fp32_in_every_dtype_and_mode(head: FeatureHead) -> None:
    import timm

    tower = timm.create_model("test_vit", num_classes=0).eval()
    model = Headed(tower, head)
    pixels = torch.randn(2, 3, 160, 160, generator=torch.Generator().manual_seed(0))
    before = head.weight.clone()
    with torch.no_grad():
        exact = model(pixels)
        half = Headed(tower.to(torch.bfloat16), head).to(torch.bfloat16)
        assert torch.equal(half.class_head.weight, before)
        features = tower(pixels.bfloat16())
        assert torch.equal(half(pixels.bfloat16()), head(features.float()))
        assert torch.equal(apply(half, 0)(pixels.bfloat16()), half(pixels.bfloat16()))
        tower.float()
        with torch.autocast("cpu", torch.bfloat16):
            assert model(pixels).dtype == torch.float32
        twice = torch.compile(apply(model, 4), fullgraph=True, backend="eager")
        torch.testing.assert_close(twice(pixels), apply(model, 4)(pixels))
    logits = apply(model, 4)(pixels)
    logits.sum().backward()
    assert all(parameter.grad is not None for parameter in tower.blocks.parameters())
    assert exact.shape == (2, 6)


def test_names_of_a_file_are_never_taken_for_imagenet(tmp_path: Path) -> None:
    from tomebench.datasets.classes import map_classes, wnids

    names = [f"name {number}" for number in range(1000)]
    write_head(tmp_path / "h.safetensors", {"class_embeddings": torch.randn(1000, 64)}, {"classes": names})
    (tmp_path / "ids.txt").write_text("\n".join(reversed(wnids())))
    settings = {"num_classes": 0, "class_head": tmp_path / "h.safetensors"}
    with pytest.raises(DataError, match=r"are not in .*; rename or move them out, or pass the list"):
        map_classes("data", wnids()[:3], load_model("test_vit", **settings).head)
    head = load_model("test_vit", **settings, class_names=str(tmp_path / "ids.txt")).head
    assert map_classes("data", wnids()[:3], head).numbers[wnids()[0]] == 999


def test_texts_of_another_model_are_noted(made: tuple[Path, Path], tmp_path: Path) -> None:
    folder, file = made
    tensors = {EMBEDDINGS: torch.randn(7, read_head(file).width)}
    write_head(tmp_path / "c.safetensors", tensors, {"model": "hf/other", "weights": "sha256:0"})
    loaded = load_model(f"hf/{folder}", class_head=tmp_path / "c.safetensors", evaluated=True)
    assert loaded.notes[-1:] == ("the class embeddings are by the text model of hf/other, the images are not its",)
    assert not load_model(f"hf/{folder}", class_head=file, evaluated=True).notes


def test_a_text_model_that_is_not_there_is_no_random_one(made: tuple[Path, Path], tmp_path: Path) -> None:
    shutil.copytree(made[0], tmp_path / "cut")
    state = load_file(tmp_path / "cut/model.safetensors")
    kept = {name: tensor for name, tensor in state.items() if not name.startswith("text_model.")}
    save_file(kept, tmp_path / "cut/model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"its weights have no text_model\."):
        embed_classes(f"hf/{tmp_path}/cut", NAMES, ["{}"])


def test_siglip_has_a_tokenizer_of_its_own_and_reads_lower_case(tmp_path: Path) -> None:
    sentencepiece = pytest.importorskip("sentencepiece")
    folder, words = hf_texts.folder("siglip", tmp_path / "mine"), io.BytesIO()
    texts = [f"a photo of the kind {number}" for number in range(7)]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts * 9), model_writer=words, vocab_size=30, minloglevel=9, hard_vocab_limit=False
    )
    for file in folder.glob("*token*"):
        file.unlink()
    (tmp_path / "spiece.model").write_bytes(words.getvalue())
    transformers.SiglipTokenizer(str(tmp_path / "spiece.model"), model_max_length=16).save_pretrained(folder)
    found = embed_classes(f"hf/{folder}", ["Kind 1", "KIND 2", "kind 2"], ["A {}"]).embeddings
    assert torch.equal(found[1], found[2])
    assert not torch.equal(found[0], found[1])
    model = transformers.SiglipModel.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    read = tokenizer(["a kind 1"], padding="max_length", max_length=16, return_tensors="pt")
    with torch.no_grad():
        expected = model.get_text_features(**read)
    expected = getattr(expected, "pooler_output", expected)
    torch.testing.assert_close(found[:1], expected / expected.norm(dim=-1, keepdim=True))


def test_speed_alone_needs_no_processor(made: tuple[Path, Path], tmp_path: Path) -> None:
    shutil.copytree(made[0], tmp_path / "mine")
    (tmp_path / "mine/preprocessor_config.json").unlink()
    loaded = load_model(f"hf/{tmp_path}/mine", class_head=made[1])
    assert Preprocessing.from_model(loaded.model).input_size == (3, 32, 32)


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
