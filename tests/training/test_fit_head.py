"""Fitted class heads: k-NN and linear probe answer as scikit-learn's do, and not on what they were fitted on."""

from __future__ import annotations

import importlib.util
import io
import json
import shutil
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import tomebench
from tomebench.backbones.adapt import adapt
from tomebench.backbones.apply import apply
from tomebench.datasets.classes import TO_FIT, ClassHead
from tomebench.datasets.images import ImageSet, open_dataset
from tomebench.errors import ConfigError, DataError, Interrupted, ModelError
from tomebench.models.create import load_model
from tomebench.models.head_files import write_head
from tomebench.models.headed import remove_class_head
from tomebench.models.preprocess import Preprocessing
from tomebench.schema import split_head
from tomebench.sweeps.config_files import load_config
from tomebench.sweeps.events import Note
from tomebench.training.fit_head import Fit, Fitted, fit_head

SETTINGS = {"model": "digits_vit", "data": "digits-train", "limit": 200, "device": "cpu", "workers": 0}


def fitted(fit: Fit, stop: bool = False, **settings: Any) -> Fitted:
    """A head on the features of the demo model, without its events."""
    events = fit_head(fit, load_config([], {**SETTINGS, **settings}), lambda: stop)
    while True:
        try:
            next(events)
        except StopIteration as end:
            return end.value


def features_of(images: ImageSet) -> Tensor:
    """Features of the demo model by timm's own functions, [n, D]."""
    model: Any = load_model("digits_vit").model
    with torch.inference_mode():
        found: Tensor = model.forward_head(model.forward_features(pixels_of(model, images)), pre_logits=True)
    return found


@pytest.fixture(scope="module")
def data() -> tuple[ImageSet, ImageSet]:
    """Images to fit on, and others."""
    return open_dataset("digits-train", 200), open_dataset("digits", 150)


def answers(head: Fitted, where: Path, images: ImageSet, r: int = 0) -> list[int]:
    """Answers of the demo model with the head, with r tokens merged per layer."""
    write_head(where / "head.safetensors", head.tensors, head.about)
    loaded = load_model("digits_vit", class_head=where / "head.safetensors", evaluated=True)
    pixels = pixels_of(loaded.model, images)
    with torch.inference_mode():
        found = apply(loaded.model, r)(pixels)
        if r == 0:
            assert torch.equal(found, loaded.model(pixels))
    return found.argmax(dim=1).tolist()


def test_nearest_neighbours_answer_as_those_of_scikit_learn(data: tuple[ImageSet, ImageSet], tmp_path: Path) -> None:
    neighbors = pytest.importorskip("sklearn.neighbors")
    known, others = data
    found = answers(fitted(Fit("knn", k=7, temperature=0.1)), tmp_path, others)
    theirs = neighbors.KNeighborsClassifier(7, metric="cosine", weights=lambda distance: np.exp(-distance / 0.1))
    theirs.fit(features_of(known).numpy(), known.info.labels)
    assert found == theirs.predict(features_of(others).numpy()).tolist()
    assert np.mean(np.array(found) == others.info.labels) > 0.9
    assert found != answers(fitted(Fit("knn", k=7, temperature=0.1)), tmp_path, others, r=40)


def test_a_linear_probe_answers_as_that_of_scikit_learn(data: tuple[ImageSet, ImageSet], tmp_path: Path) -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    known, others = data
    found = answers(fitted(Fit("linear", c=0.1)), tmp_path, others)
    theirs = linear_model.LogisticRegression(C=0.1, max_iter=1000)
    theirs.fit(features_of(known).double().numpy(), known.info.labels)
    assert found == theirs.predict(features_of(others).double().numpy()).tolist()
    assert np.mean(np.array(found) == others.info.labels) > 0.9


def test_two_classes_have_two_outputs(tmp_path: Path) -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    import timm
    from safetensors.torch import save_file

    folder = pictures(tmp_path / "pictures", 4, classes=2)
    model: Any = timm.create_model("test_vit")
    save_file(dict(model.state_dict()), tmp_path / "w.safetensors")
    where = {"model": "test_vit", "data": str(folder), "checkpoint": tmp_path / "w.safetensors", "limit": None}
    head = fitted(Fit("linear"), **where)
    assert head.tensors["weight"].shape == (2, 64)
    model.reset_classifier(0)
    pixels = pixels_of(model, open_dataset(str(folder), head=TO_FIT))
    with torch.inference_mode():
        features = model.eval()(pixels)
    theirs = linear_model.LogisticRegression(C=0.316, max_iter=1000).fit(features.double().numpy(), [0] * 4 + [1] * 4)
    logits = features @ head.tensors["weight"].t() + head.tensors["bias"]
    assert logits.argmax(dim=1).tolist() == theirs.predict(features.double().numpy()).tolist()


def pixels_of(model: Any, images: ImageSet) -> Tensor:
    """All images, as the model takes them."""
    preprocessing = Preprocessing.from_model(model)
    transform = preprocessing.transform()
    return preprocessing.normalise(torch.stack([transform(images.open(index)) for index in range(len(images))]))


def test_a_fit_that_does_not_converge_says_so(monkeypatch: Any) -> None:
    pytest.importorskip("sklearn")
    monkeypatch.setattr("tomebench.training.fit_head._ITERATIONS", 1)
    events: Iterator[Any] = fit_head(Fit("linear"), load_config([], SETTINGS), lambda: False)
    said = [event.text for event in events if isinstance(event, Note)]
    assert any("has not converged in 1 iterations" in text for text in said)


@pytest.mark.parametrize(
    ("fit", "settings", "said"),
    [
        (Fit("knn", k=201), {}, "--k 201: at most 200 of 200 images can vote; give fewer"),
        (Fit("knn", k=1), {"limit": 9}, "--limit 9: that is less than an image of each of 10 classes"),
        (Fit("knn"), {"labels": False}, "a class head is fitted on labelled images"),
        (Fit("knn"), {"data": None, "limit": None, "workers": None}, "a class head is fitted on labelled images"),
        (Fit("knn"), {"dtype": "bf16"}, "fits a class head in fp32, .*; drop --dtype"),
        (Fit("knn"), {"class_head": Path("x")}, "drop --class-head"),
    ],
)
def test_what_cannot_be_fitted(fit: Fit, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        fitted(fit, **settings)


def test_other_things_that_cannot_be_fitted(tmp_path: Path, monkeypatch: Any) -> None:
    with pytest.raises(DataError, match="has one class only"):
        fitted(Fit("knn", k=1), data=str(pictures(tmp_path / "one", classes=1)), limit=None)
    with pytest.raises(Interrupted):
        fitted(Fit("knn"), stop=True)
    broken = load_model("digits_vit")
    torch.nn.init.constant_(next(broken.model.parameters()), torch.nan)
    monkeypatch.setattr("tomebench.training.fit_head.load_model", lambda *_, **__: broken)
    with pytest.raises(ModelError, match="the features of an image are no numbers"):
        fitted(Fit("knn"))
    pools_nothing: Any = load_model("digits_vit")
    pools_nothing.model.reset_classifier(0, "")
    monkeypatch.setattr("tomebench.training.fit_head.load_model", lambda *_, **__: pools_nothing)
    with pytest.raises(ModelError, match="digits_vit pools nothing"):
        fitted(Fit("knn"))
    monkeypatch.setattr("tomebench.training.fit_head.is_installed", lambda name: False)
    with pytest.raises(ConfigError, match=r"pip install 'tomebench\[probe\]'"):
        fitted(Fit("linear"))


def test_other_weights_are_refused_where_answers_count(tmp_path: Path) -> None:
    head = fitted(Fit("knn"))
    write_head(tmp_path / "own.safetensors", head.tensors, head.about)
    assert load_model("digits_vit", class_head=tmp_path / "own.safetensors", evaluated=True).head.num_classes == 10
    write_head(tmp_path / "h.safetensors", head.tensors, {**head.about, "weights": "sha256:1"})
    load_model("digits_vit", class_head=tmp_path / "h.safetensors")
    with pytest.raises(ModelError, match="it was fitted on features of other weights, of digits_vit; fit it on these"):
        load_model("digits_vit", class_head=tmp_path / "h.safetensors", evaluated=True)


def test_a_head_goes_on_a_module_of_the_same_weights(tmp_path: Path) -> None:
    head = fitted(Fit("knn"))
    write_head(tmp_path / "h.safetensors", head.tensors, head.about)
    module = load_model("digits_vit").model
    run = {"data": "digits", "limit": 40, "budget": "none", "device": "cpu", "batch_size": 40, "workers": 0}
    base, merged = tomebench.sweep(
        module,
        "0,8",
        out=tmp_path / "run",
        class_head=tmp_path / "h.safetensors",
        progress=True,
        **run,  # type: ignore[arg-type]
    )
    assert base.top1_correct is not None
    assert base.top1_correct >= 36
    assert merged.weights == base.weights
    assert split_head(base.weights)[1].startswith(" with k-NN head sha256:")
    assert module.num_classes == 10  # the module itself keeps its head


def test_classes_that_are_numbers_stay_numbers(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "pictures", 2)
    for number in (1, 5, 9):
        (folder / f"kind {number % 7}").rename(folder / str(number))
    for number in (0, 3, 4, 6):
        shutil.rmtree(folder / f"kind {number}")
    head = fitted(Fit("knn", k=1), data=str(folder), limit=None, model="digits_vit")
    assert head.about["classes"] == ["1", "5", "9"]  # folders have names
    found = fitted(Fit("knn", k=1), data=f"wds/{shards(tmp_path / 'shards', (1, 5, 9))}", limit=None)
    assert found.about["classes"] == [str(number) for number in range(10)]
    assert found.tensors["labels"].tolist() == [1, 5, 9]
    if importlib.util.find_spec("sklearn"):
        linear = fitted(Fit("linear"), data=f"wds/{tmp_path / 'shards'}", limit=None)
        assert linear.tensors["bias"].argsort()[-3:].sort().values.tolist() == [1, 5, 9]


def shards(folder: Path, labels: Sequence[int]) -> Path:
    """A shard with a picture of each class."""
    folder.mkdir()
    with tarfile.open(folder / "val.tar", "w") as tar:
        for label in labels:
            picture = io.BytesIO()
            Image.new("RGB", (40, 40), (20 * label, 0, 0)).save(picture, "png")
            for name, data in ((f"{label}.png", picture.getvalue()), (f"{label}.cls", str(label).encode())):
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    return folder


def pictures(folder: Path, each: int = 3, classes: int = 7) -> Path:
    """Pictures of some classes."""
    random = np.random.default_rng(0)
    for number in range(classes):
        (folder / f"kind {number}").mkdir(parents=True)
        for picture in range(each):
            pixels = random.integers(0, 256, (40, 50, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"kind {number}" / f"{picture}.png")
    return folder


def test_images_that_a_head_was_fitted_on_are_left_out_by_their_content(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "pictures")
    some = open_dataset(str(folder), 7, 0, head=TO_FIT)
    head = ClassHead(7, fitted_on=frozenset(map(some.digest, range(7))))
    (folder / some.names[0]).rename(folder / some.names[0].replace(".png", "renamed.png"))
    rest = open_dataset(str(folder), head=head)
    assert len(rest) == 14
    assert not {rest.digest(index) for index in range(14)} & head.fitted_on
    assert rest.info.note is not None
    assert "without 7 of 21 images, on which the class head was fitted" in rest.info.note
    everything = ClassHead(7, fitted_on=head.fitted_on | {rest.digest(index) for index in range(14)})
    with pytest.raises(DataError, match="fitted on all of 21 images; give other images, or fit it on fewer"):
        open_dataset(str(folder), head=everything)
    (folder / rest.names[0]).write_bytes(b"no picture")  # reported where images are checked
    assert len(open_dataset(str(folder), head=head)) == 14


KINDS = (
    "vit",
    "vit-encoder",
    "deit-distilled",
    "dinov2",
    "dinov2-registers-encoder",
    "dinov3",
    "siglip",
    "clip",
    "beit",
)


@pytest.mark.parametrize("kind", KINDS)
def test_features_of_transformers_models_are_what_their_heads_read(kind: str, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    from backbones.hf_models import build
    from hf_folders import save

    save(build(kind), tmp_path / "mine")
    loaded = load_model(f"hf/{tmp_path}/mine")
    pixels = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        backbone = adapt(loaded.model)
        tokens = backbone.embed(pixels)
        read = backbone.head(last(backbone, tokens), None, False, pre_logits=True)
        remove_class_head(loaded.model)
        assert torch.equal(loaded.model(pixels), read)
        assert torch.equal(apply(loaded.model, 0)(pixels), read)
        assert not torch.equal(apply(loaded.model, 8)(pixels), read)


def last(backbone: Any, tokens: Any) -> Tensor:
    """Tokens after the last norm, block by block."""
    for layer in range(backbone.depth):
        x, _ = backbone.attention(layer, tokens, "auto")
        tokens = tokens._replace(x=backbone.mlp(layer, x))
    return backbone.norm(tokens.x)


@pytest.mark.parametrize(
    "name",
    ["deit_tiny_distilled_patch16_224", "vit_tiny_patch16_224", "eva02_tiny_patch14_224", "vit_base_patch16_siglip_224",
     "beit_base_patch16_224", "naflexvit_base_patch16_gap"],
)  # fmt: skip
def test_models_of_timm_lose_their_head(name: str) -> None:
    import timm

    model: Any = timm.create_model(name, num_classes=5, **({} if "naflex" in name else {"depth": 2})).eval()
    pixels = torch.randn(1, 3, *Preprocessing.from_model(model).input_size[1:])
    with torch.no_grad():
        read = model.forward_head(model.forward_features(pixels), pre_logits=True)
        remove_class_head(model)
        assert torch.equal(model(pixels), read)
        assert torch.equal(apply(model, 0)(pixels), read)


def test_from_pictures_to_top_1_as_transformers_and_scikit_learn_count_it(
    tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    transformers = pytest.importorskip("transformers")
    neighbors = pytest.importorskip("sklearn.neighbors")
    linear_model = pytest.importorskip("sklearn.linear_model")
    from backbones.hf_models import build
    from hf_folders import save

    from tomebench.cli import app

    monkeypatch.chdir(tmp_path)
    save(build("dinov2-registers-encoder"), tmp_path / "dino", "crop")
    pictures(tmp_path / "pictures", 6)
    theirs: Any = transformers.Dinov2WithRegistersModel.from_pretrained(tmp_path / "dino").eval()
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path / "dino")
    files = sorted((tmp_path / "pictures").rglob("*.png"))
    with torch.no_grad():
        pixels = [processor(Image.open(file).convert("RGB"), return_tensors="pt")["pixel_values"] for file in files]
        features = torch.cat([theirs(pixel_values=each).pooler_output for each in pixels]).numpy()
    labels = np.array([int(file.parent.name[-1]) for file in files])
    common = ["--model", "hf/dino", "--data", "pictures"]
    sweep = [*common, "--r", "0,8", "--budget", "none", "--quiet", "--workers", "0", "--device", "cpu"]
    for head, more in (("knn", ["--k", "3"]), ("linear", ["--c", "1"])):
        flags = ["--head", head, *more, "--limit", "21", "--seed", "3", "--out", f"{head}.safetensors"]
        assert app.run(["fit-head", *common, *flags, "--device", "cpu", "--workers", "0", "--json"]) == 0
        said = json.loads(capsys.readouterr().out)
        assert (said["classes"], said["n"], said["width"]) == (7, 21, 48)
        assert app.run(["sweep", *sweep, "--class-head", f"{head}.safetensors", "--out", head]) == 0
        capsys.readouterr()
        assert app.run(["report", head, "--json"]) == 0
        base, merged = json.loads(capsys.readouterr().out)["rows"]
        part = open_dataset("pictures", 21, 3, head=TO_FIT)
        known = np.isin([str(file.relative_to(tmp_path / "pictures")) for file in files], part.names)
        assert known.sum() == 21
        if head == "knn":
            plain = neighbors.KNeighborsClassifier(
                3, metric="cosine", weights=lambda distance: np.exp(-distance / 0.07)
            )
        else:
            plain = linear_model.LogisticRegression(C=1.0, max_iter=1000)
        plain.fit(features[known].astype(np.float64), labels[known])
        right = plain.predict(features[~known].astype(np.float64)) == labels[~known]
        assert base["n_seen"] == merged["n_seen"] == 21
        assert base["top1_correct"] == right.sum()
        assert 0 < right.sum() < 21
        assert "without 21 of 42 images, on which the class head was fitted" in base["dataset"]
        overwriting = ["fit-head", *common, *flags, "--seed", "4", "--device", "cpu", "--workers", "0", "--quiet"]
        assert app.run([*overwriting, "--out", "dino/model.safetensors"]) == 2
        assert "is there already, and holds no class head" in capsys.readouterr().err
        again = [*sweep, "--class-head", f"{head}.safetensors", "--out", head, "--r", "0,8,16"]
        assert app.run(["sweep", *again]) == 0  # the same images are left out again
        capsys.readouterr()
