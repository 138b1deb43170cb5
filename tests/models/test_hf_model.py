"""``hf/`` models: what is loaded is what transformers loads, and nothing that could do harm is read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

transformers = pytest.importorskip("transformers")

from backbones.hf_models import MODELS, build, output  # noqa: E402
from hf_folders import save  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402

from tomebench.backbones.apply import apply  # noqa: E402
from tomebench.errors import ModelError  # noqa: E402
from tomebench.models.create import build_model, load_model  # noqa: E402
from tomebench.models.given import given_model  # noqa: E402


def images(side: int = 32) -> Tensor:
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(4))


@pytest.mark.parametrize("name", MODELS)
def test_weights_of_a_folder_are_those_that_transformers_loads(name: str, tmp_path: Path) -> None:
    model = build(name)
    save(model, tmp_path / "mine")
    loaded = load_model(f"hf/{tmp_path}/mine", labelled=name == "vit")
    assert loaded.timm_id == "hf/mine"
    assert loaded.weights.startswith("sha256:")
    classes = 7 if output(model, images()).shape[1] == 7 else 0
    assert loaded.head.num_classes == classes == loaded.model.num_classes
    with torch.no_grad():
        assert torch.equal(loaded.model(images()), output(model, images()))
        assert torch.equal(apply(loaded.model, 0)(images()), output(model, images()))


@pytest.mark.parametrize("name", ["vit", "dinov2", "dinov2-registers", "dinov3", "siglip", "clip-encoder", "beit"])
def test_another_input_size_is_what_transformers_makes_of_it(name: str, tmp_path: Path) -> None:
    """Positions are interpolated once, by the function with which transformers does it in every pass."""
    model = build(name)
    save(model, tmp_path / "mine")
    loaded = load_model(f"hf/{tmp_path}/mine", img_size=48)
    assert loaded.model.preprocessing.input_size == (3, 48, 48)
    with torch.no_grad():
        try:
            found: Any = model(pixel_values=images(48), interpolate_pos_encoding=True)
        except TypeError:  # its class always does
            found = model(pixel_values=images(48))
        expected = next(found[key] for key in ("logits", "pooler_output") if found.get(key) is not None)
        reduced = apply(loaded.model, 8)
        assert torch.equal(apply(loaded.model, 0)(images(48)), expected)
        reduced(images(48))
    assert reduced.token_counts[0] == 144 + reduced.backbone.prefix - 8


def test_the_size_is_that_of_the_image_processor(tmp_path: Path) -> None:
    """DINOv2 is published at 518 pixels, and its processor crops 224."""
    save(build("dinov2"), tmp_path, {"image_processor_type": "BitImageProcessor", "size": {"shortest_edge": 60},
                                     "crop_size": {"height": 48, "width": 48}, "do_center_crop": True})  # fmt: skip
    loaded = load_model(f"hf/{tmp_path}")
    assert loaded.notes == ("48 pixels, as its image processor says, and not 32; --img-size changes it",)
    assert loaded.model.preprocessing.crop_pct == 0.8
    assert build_model(f"hf/{tmp_path}", meta=True).model.img_size == (48, 48)


def test_models_of_images_and_texts_give_their_vision_tower(tmp_path: Path) -> None:
    tower = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 96}
    vision = {**tower, "image_size": 32, "patch_size": 8, "projection_dim": 24}
    text = {**tower, "vocab_size": 99, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "projection_dim": 24}
    clip = transformers.CLIPModel(
        transformers.CLIPConfig(vision_config=vision, text_config=text, projection_dim=24)
    ).eval()
    siglip = transformers.SiglipModel(
        transformers.SiglipConfig(vision_config=vision, text_config={**text, "projection_size": 48})
    ).eval()
    for number, model in enumerate((clip, siglip)):
        folder = save(model, tmp_path / str(number))
        loaded = load_model(f"hf/{folder}")
        with torch.no_grad():
            expected = model.get_image_features(pixel_values=images())
            expected = getattr(expected, "pooler_output", expected)
            assert torch.equal(apply(loaded.model, 0)(images()), expected)
        assert not any("text" in name for name, _ in loaded.model.named_parameters())


def test_a_pooler_that_the_weights_lack_is_left_out(tmp_path: Path) -> None:
    model = build("vit-encoder")
    save(model, tmp_path)
    state = {name: each for name, each in load_file(tmp_path / "model.safetensors").items() if "pooler" not in name}
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    loaded = load_model(f"hf/{tmp_path}")
    with torch.no_grad():
        expected = model(pixel_values=images()).last_hidden_state[:, 0]
        assert torch.equal(loaded.model(images()), expected)
        assert torch.equal(apply(loaded.model, 0)(images()), expected)


def test_an_encoder_without_pooling_averages(tmp_path: Path) -> None:
    config = transformers.SiglipVisionConfig(
        hidden_size=24, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48, image_size=32, patch_size=8,
        vision_use_head=False,
    )  # fmt: skip
    model = transformers.SiglipVisionModel(config).eval()
    save(model, tmp_path)
    loaded = load_model(f"hf/{tmp_path}")
    with torch.no_grad():
        expected = model(pixel_values=images()).last_hidden_state.mean(dim=1)
        assert torch.equal(loaded.model(images()), expected)
        assert torch.equal(apply(loaded.model, 0)(images()), expected)


def test_a_folder_without_weights_is_for_speed(tmp_path: Path) -> None:
    save(build("dinov2"), tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="random weights are for speed only"):
        load_model(f"hf/{tmp_path}", labelled=True, evaluated=True)
    one, two, other = (load_model(f"hf/{tmp_path}", seed=seed) for seed in (0, 0, 1))
    assert (one.weights, other.weights) == ("random:0", "random:1")
    states = [each.model.state_dict() for each in (one, two, other)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert any(not torch.equal(states[0][name], states[2][name]) for name in states[0])


def test_shards_are_read_and_make_one_digest(tmp_path: Path) -> None:
    model = build("vit")
    model.save_pretrained(tmp_path, max_shard_size="50KB")
    assert len([*tmp_path.glob("model-*.safetensors")]) > 1
    loaded = load_model(f"hf/{tmp_path}")
    with torch.no_grad():
        assert torch.equal(loaded.model(images()), output(model, images()))
    assert loaded.weights.startswith("sha256:")


def test_class_names_are_those_of_id2label(tmp_path: Path) -> None:
    model = build("vit")
    names = [f"kind {number}" for number in range(7)]
    model.config.id2label = dict(enumerate(names))
    model.config.label2id = {name: number for number, name in enumerate(names)}
    save(model, tmp_path)
    loaded = load_model(f"hf/{tmp_path}", labelled=True, evaluated=True)
    listed = loaded.head.names()
    assert listed is not None
    assert list(listed.names) == names
    given = given_model(model, preprocessing={"mean": (0.5,) * 3, "std": (0.5,) * 3}, evaluated=True)
    assert given.head.names().names == listed.names


def test_a_module_of_transformers_is_measured_as_it_is() -> None:
    model = build("siglip")
    given = given_model(model)
    with torch.no_grad():
        assert torch.equal(given.model(images()), output(model, images()))
    processor = transformers.ViTImageProcessor(size={"height": 48, "width": 48})
    given = given_model(model, preprocessing=processor, evaluated=True)
    assert given.model.preprocessing.input_size == (3, 48, 48)
    assert given.model.img_size == (48, 48)
    assert model.vision_model.config.image_size == 32
    with pytest.raises(ModelError, match="nothing says how its images are normalised"):
        given_model(model, evaluated=True)


@pytest.mark.parametrize(
    ("name", "more", "match"),
    [
        ("hf//no/such/folder", {}, "no such folder; give hf/FOLDER, or hf/ORG/NAME"),
        ("hf/a", {}, "no such folder"),
        ("hf/org/name", {"offline": True}, "--offline: org/name is not in the local cache"),
        ("hf/org/name@v1", {"offline": True}, "--offline: org/name is not in the local cache"),
    ],
)
def test_what_is_not_there_is_said_in_a_line(name: str, more: dict[str, Any], match: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=match):
        load_model(name, **more)


def test_settings_of_other_models_are_refused(tmp_path: Path) -> None:
    folder = save(build("vit"), tmp_path / "mine")
    with pytest.raises(ModelError, match="has its own weights; leave --checkpoint out"):
        load_model(f"hf/{folder}", checkpoint=folder / "model.safetensors")
    with pytest.raises(ModelError, match="has its own class head; leave --num-classes out"):
        load_model(f"hf/{folder}", num_classes=7)
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "vit_tiny_patch16_224"}))
    with pytest.raises(ModelError, match="timm saved this model; give --model local-dir:FOLDER"):
        load_model(f"hf/{tmp_path}")


def test_a_model_of_the_hub_is_taken_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    cache = tmp_path / "hub"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    snapshot = cache / "models--org--name" / "snapshots" / ("0" * 40)
    save(build("vit"), tmp_path / "mine")
    snapshot.mkdir(parents=True)
    blobs, refs = cache / "models--org--name" / "blobs", cache / "models--org--name" / "refs"
    blobs.mkdir()
    refs.mkdir()
    (refs / "main").write_text("0" * 40)
    for file in (tmp_path / "mine").iterdir():
        (blobs / file.name).write_bytes(file.read_bytes())
        (snapshot / file.name).symlink_to(Path("..") / ".." / "blobs" / file.name)
    with pytest.raises(ModelError, match="cannot take 2 pixels"):
        load_model("hf/org/name", offline=True, img_size=2)
    for offline in (True, False):
        loaded = load_model("hf/org/name", offline=offline)
        assert loaded.timm_id == "hf/org/name"
        assert loaded.weights.startswith("sha256:")
    (snapshot / "model.safetensors").unlink()
    with pytest.raises(
        ModelError, match=r"has no safetensors|is not in the local cache"
    ):  # and random ones would be counted
        load_model("hf/org/name", offline=True)


def test_a_module_keeps_its_identity_when_it_is_asked_for_states() -> None:
    model = build("vit")
    before = given_model(model).weights
    model(pixel_values=images(), output_hidden_states=True)
    assert given_model(model).weights == before


def test_outputs_as_tuples_are_read(tmp_path: Path) -> None:
    model = build("vit-encoder")
    model.config.return_dict = False
    save(model, tmp_path)
    loaded = load_model(f"hf/{tmp_path}")
    with torch.no_grad():
        assert torch.equal(loaded.model(images()), apply(loaded.model, 0)(images()))


def test_the_digest_is_that_of_the_weights_that_are_loaded(tmp_path: Path) -> None:
    model = build("vit")
    save(model, tmp_path)
    before = load_model(f"hf/{tmp_path}").weights
    save_file(load_file(tmp_path / "model.safetensors"), tmp_path / "part.safetensors", metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": {"classifier.bias": "part.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))  # of an earlier save
    assert load_model(f"hf/{tmp_path}").weights == before


def test_a_moved_folder_holds_the_same_model(tmp_path: Path) -> None:
    from tomebench.models.digest import layers_digest

    save(build("vit"), tmp_path / "one")
    digests = [layers_digest(load_model(f"hf/{tmp_path}/one").model)]
    (tmp_path / "one").rename(tmp_path / "two")
    digests.append(layers_digest(load_model(f"hf/{tmp_path}/two").model))
    assert digests[0] == digests[1]
