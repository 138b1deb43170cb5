"""Checkpoints of users' own training: any name, any wrapper, any head and size, and which of two states was meant."""

from __future__ import annotations

import argparse
import json

import pytest
import timm
import torch
from local_dirs import CLASSES, local_dir
from safetensors.torch import save_file
from torch.optim.swa_utils import AveragedModel

from tomebench.errors import ModelError
from tomebench.models.checkpoint import load_checkpoint, read_checkpoint
from tomebench.models.create import build_model, load_model, resolve_model_name
from tomebench.models.preprocess import Preprocessing


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    return dict(build_model("test_vit", num_classes=CLASSES, seed=3).model.state_dict())


def same(loaded, state) -> bool:
    found = loaded.model.state_dict()
    return found.keys() == state.keys() and all(torch.equal(found[name], state[name]) for name in state)


def test_same_can_fail(state):
    assert not same(build_model("test_vit", num_classes=CLASSES, seed=4), state)


@pytest.mark.parametrize("name", ["model_best.pth.tar", "last.ckpt", "weights", "M.PTH", "w.safetensors.bin"])
@pytest.mark.parametrize("kind", ["pickle", "safetensors"])
def test_files_are_told_by_what_they_hold(tmp_path, state, name, kind):
    if kind == "pickle":
        torch.save({"epoch": 1, "state_dict": state, "args": argparse.Namespace(lr=0.1)}, tmp_path / name)
    else:
        save_file(state, tmp_path / name)
    loaded = load_model("test_vit", checkpoint=tmp_path / name)
    assert same(loaded, state)
    assert loaded.head.num_classes == CLASSES  # nobody said so


@pytest.mark.parametrize(
    "prefix", ["module.", "model.", "_orig_mod.", "backbone.", "encoder.", "module._orig_mod.model."]
)
def test_names_of_wrappers_are_taken_off(tmp_path, state, prefix):
    torch.save({"state_dict": {prefix + name: tensor for name, tensor in state.items()}}, tmp_path / "w.ckpt")
    assert same(load_model("test_vit", checkpoint=tmp_path / "w.ckpt"), state)


def test_a_backbone_with_a_head_beside_it(tmp_path, state):
    mixed = {name if name.startswith("head") else f"backbone.{name}": tensor for name, tensor in state.items()}
    save_file(mixed, tmp_path / "w.safetensors")
    assert same(load_model("test_vit", checkpoint=tmp_path / "w.safetensors"), state)


def test_two_tensors_of_one_name_are_refused(tmp_path, state):
    torch.save({**state, "module.head.weight": state["head.weight"]}, tmp_path / "w.pth")
    with pytest.raises(ModelError, match=r"holds both head\.weight and module\.head\.weight, which are the same"):
        load_model("test_vit", checkpoint=tmp_path / "w.pth")


@pytest.mark.parametrize("bare", [False, True])
def test_what_torch_averages_itself(tmp_path, bare):
    model = build_model("test_vit", num_classes=CLASSES, seed=3).model
    mean = AveragedModel(model)
    mean.update_parameters(build_model("test_vit", num_classes=CLASSES, seed=4).model)
    mean.update_parameters(build_model("test_vit", num_classes=CLASSES, seed=5).model)
    content = mean.state_dict() if bare else {"model": model.state_dict(), "model_ema": mean.state_dict()}
    torch.save(content, tmp_path / "w.pth")
    loaded = load_model("test_vit", checkpoint=tmp_path / "w.pth", use_ema=None if bare else True)
    assert same(loaded, mean.module.state_dict())
    assert not same(loaded, model.state_dict())


@pytest.mark.parametrize("keys", [("model", "model_ema"), ("state_dict", "state_dict_ema")])
def test_of_two_states_one_is_taken_and_said(tmp_path, state, keys):
    averaged = {name: tensor / 2 for name, tensor in state.items()}
    torch.save(dict(zip(keys, (state, averaged), strict=True)), tmp_path / "both.pth")
    plain = load_model("test_vit", checkpoint=tmp_path / "both.pth")
    assert same(plain, state)
    assert plain.notes == (
        f"the checkpoint holds {keys[0]} and {keys[1]}; {keys[0]} is used, --use-ema takes the other",
    )
    ema = load_model("test_vit", checkpoint=tmp_path / "both.pth", use_ema=True)
    assert same(ema, averaged)
    # Other weights never pass for the same.
    assert plain.weights.endswith(f" ({keys[0]}, not {keys[1]})")
    assert ema.weights == plain.weights.partition(" ")[0] + f" ({keys[1]}, not {keys[0]})"
    torch.save({keys[1]: averaged}, tmp_path / "only.pth")
    assert same(load_model("test_vit", checkpoint=tmp_path / "only.pth"), averaged)
    with pytest.raises(ModelError, match=f"holds averaged weights only .{keys[1]}.; leave --no-use-ema out"):
        read_checkpoint(tmp_path / "only.pth", use_ema=False)
    torch.save({keys[0]: state}, tmp_path / "trained.pth")
    with pytest.raises(ModelError, match="holds no averaged weights"):
        read_checkpoint(tmp_path / "trained.pth", use_ema=True)


def test_of_two_states_that_are_no_mean_of_another_none_is_taken(tmp_path, state):
    torch.save({"model": {"name": "vit"}, "state_dict": state}, tmp_path / "w.pth")
    assert same(load_model("test_vit", checkpoint=tmp_path / "w.pth"), state)
    torch.save({"state_dict": state, "model": dict(reversed(state.items()))}, tmp_path / "twice.pth")
    assert same(load_model("test_vit", checkpoint=tmp_path / "twice.pth"), state)
    torch.save({"state_dict": state, "model": {name: value + 1 for name, value in state.items()}}, tmp_path / "w.pth")
    with pytest.raises(ModelError, match="holds weights as model and as state_dict; save those that you mean alone"):
        load_model("test_vit", checkpoint=tmp_path / "w.pth")


def test_a_file_that_is_replaced_while_it_is_read_names_no_weights(tmp_path, state):
    """As training does with the last of its checkpoints."""
    save_file(state, tmp_path / "last.safetensors")
    found = read_checkpoint(tmp_path / "last.safetensors")
    save_file({name: value + 1 for name, value in state.items()}, tmp_path / "new")
    (tmp_path / "new").rename(tmp_path / "last.safetensors")
    with pytest.raises(ModelError, match="changed while it was read; copy it, or run the same command again"):
        load_checkpoint(build_model("test_vit", num_classes=CLASSES).model, found)


def test_preprocessing_that_a_checkpoint_states_is_not_passed_over_in_silence(tmp_path, state):
    own = build_model("test_vit").model.pretrained_cfg
    said = {"mean": [0.0, 0.0, 0.0], "std": list(own["std"]), "interpolation": "", "crop_pct": None}
    local_dir(tmp_path / "m", state, pretrained_cfg=said)
    (note,) = load_model("test_vit", checkpoint=tmp_path / "m").notes
    assert note == (
        "the config.json beside the checkpoint says mean 0 0 0 (not 0.5 0.5 0.5); images are preprocessed as "
        f"test_vit.r160_in1k wants them, --model local-dir:{tmp_path / 'm'} takes the others"
    )
    named = load_model(f"local-dir:{tmp_path / 'm'}")
    assert [*named.model.pretrained_cfg["mean"]] == [0.0, 0.0, 0.0]
    assert not any("preprocessed" in note for note in named.notes)
    args = argparse.Namespace(mean=None, std=[1, 1, 1], crop_pct=0.5, interpolation="bicubic", crop_mode="odd")
    torch.save({"state_dict": state, "args": args}, tmp_path / "w.pth")
    (note,) = load_model("test_vit", checkpoint=tmp_path / "w.pth").notes
    assert note.startswith("the checkpoint w.pth says std 1 1 1 (not 0.5 0.5 0.5), crop_pct 0.5 (not 0.95); images")
    torch.save({"state_dict": state, "args": argparse.Namespace(**own)}, tmp_path / "w.pth")
    assert load_model("test_vit", checkpoint=tmp_path / "w.pth").notes == ()


def test_shards_with_an_index(tmp_path, state):
    names = sorted(state)
    parts = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, part in parts.items():
        save_file({name: state[name] for name in part}, tmp_path / file)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {name: file for file, part in parts.items() for name in part}}))
    first = load_model("test_vit", checkpoint=index)
    assert same(first, state)
    assert load_model("test_vit", checkpoint=tmp_path).weights == first.weights
    save_file({name: state[name] + 1 for name in parts["b.safetensors"]}, tmp_path / "b.safetensors")
    assert load_model("test_vit", checkpoint=index).weights != first.weights
    (tmp_path / "b.safetensors").unlink()
    with pytest.raises(ModelError, match=r"its shard b\.safetensors is not there; fetch it"):
        read_checkpoint(index)
    for outside in ("../a.safetensors", 3, "model.safetensors.index.json"):
        index.write_text(json.dumps({"weight_map": {"x": outside}}))
        with pytest.raises(ModelError, match="which is no file beside it"):
            read_checkpoint(index)
    index.write_text(json.dumps({"weight_map": {"x": "a.safetensors", "y": "b.safetensors"}}))
    save_file({name: state[name] for name in names[1:]}, tmp_path / "b.safetensors")
    with pytest.raises(ModelError, match=rf"its shard b\.safetensors holds {names[2]}, and one before it does, too"):
        read_checkpoint(index)
    index.write_text("[]")
    with pytest.raises(ModelError, match="not an index of shards"):
        read_checkpoint(index)


def test_another_size_is_taken_from_the_position_embedding(tmp_path):
    larger = build_model("test_vit", num_classes=CLASSES, img_size=192, seed=5).model.state_dict()
    save_file(larger, tmp_path / "w.safetensors")
    loaded = load_model("test_vit", checkpoint=tmp_path / "w.safetensors")
    assert same(loaded, larger)
    assert Preprocessing.from_model(loaded.model).input_size == (3, 192, 192)
    assert loaded.notes == ("192 pixels, as the position embedding of the checkpoint says; --img-size changes it",)
    resized = load_model("test_vit", checkpoint=tmp_path / "w.safetensors", img_size=160)
    assert Preprocessing.from_model(resized.model, 160).input_size == (3, 160, 160)
    assert resized.notes == ()


@pytest.mark.parametrize("channels", [1, 4])
def test_other_channels_are_refused_by_name(tmp_path, state, channels):
    shape = (*state["patch_embed.proj.weight"].shape[:1], channels, 16, 16)
    save_file({**state, "patch_embed.proj.weight": torch.zeros(shape)}, tmp_path / "w.safetensors")
    with pytest.raises(ModelError, match=rf"takes images of {channels} channels?, the model of 3; only RGB models"):
        load_model("test_vit", checkpoint=tmp_path / "w.safetensors")


def test_other_patches_are_never_resampled_without_a_word(tmp_path, state):
    shape = (*state["patch_embed.proj.weight"].shape[:2], 32, 32)
    save_file({**state, "patch_embed.proj.weight": torch.zeros(shape)}, tmp_path / "w.safetensors")
    with pytest.raises(ModelError, match="its patches are 32 x 32 pixels, the model's 16 x 16; check --model"):
        load_model("test_vit", checkpoint=tmp_path / "w.safetensors", img_size=160)


def test_images_that_are_not_square_are_refused_by_name(tmp_path, state):
    save_file({**state, "pos_embed": torch.zeros(1, 1 + 5 * 10, 64)}, tmp_path / "w.safetensors")
    with pytest.raises(ModelError, match="has 51 positions, which is no square of patches; only models of square"):
        load_model("test_vit", checkpoint=tmp_path / "w.safetensors")


@pytest.mark.parametrize("size", [None, 160, 192])
def test_a_model_of_oblong_images_is_never_taken_for_a_square_one(tmp_path, size):
    """8 x 18 patches are as many as 12 x 12."""
    oblong = timm.create_model("test_vit", num_classes=CLASSES, img_size=(128, 288))
    name = local_dir(tmp_path / "m", dict(oblong.state_dict()), model_args={"img_size": [128, 288]})
    for meta in (False, True):
        with pytest.raises(ModelError, match="takes images of 128 x 288 pixels; only models of square images are"):
            build_model(name, img_size=size, meta=meta)


def test_another_number_of_classes_than_asked_for(tmp_path, state):
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(ModelError, match="its head has 7 classes, --num-classes says 10; leave --num-classes out"):
        build_model("test_vit", checkpoint=tmp_path / "w.safetensors", num_classes=10, meta=True)


@pytest.mark.parametrize("place", ["beside", "inside", "settings"])
def test_class_names_come_with_the_weights(tmp_path, state, place):
    names = [f"class {number}" for number in range(CLASSES)]
    content: dict[str, object] = {"state_dict": state}
    if place == "beside":
        (tmp_path / "classes.txt").write_text("\n".join(names))
    elif place == "inside":
        content["class_to_idx"] = {name: number for number, name in enumerate(names)}
    else:
        content["hyper_parameters"] = {"class_names": names}
    torch.save(content, tmp_path / "w.pth")
    head = build_model("test_vit", checkpoint=tmp_path / "w.pth", labelled=True, meta=True).head
    assert head.names().names == tuple(names)
    assert build_model("test_vit", checkpoint=tmp_path / "w.pth", meta=True).head.found == ()  # nobody asked


def test_a_model_that_timm_saved(tmp_path, state):
    name = local_dir(tmp_path / "m", state, label_names=list("abcdefg"))
    loaded = load_model(name, labelled=True)
    assert same(loaded, state)
    assert (loaded.timm_id, loaded.head.names().names) == ("test_vit", tuple("abcdefg"))
    assert loaded.weights == load_model("test_vit", checkpoint=tmp_path / "m").weights


@pytest.mark.parametrize(
    ("config", "line"),
    [
        (None, r"there is no config\.json in"),
        ({"architecture": None, "architectures": ["ViTForImageClassification"]}, r"is one of transformers \(ViTFor"),
        ({"architecture": "no_such_vit"}, "this version of timm has no no_such_vit; update it"),
        ({"architecture": 3}, "names no architecture"),
    ],
)
def test_folders_that_hold_no_model_of_timm(tmp_path, state, config, line):
    name = f"local-dir:{tmp_path}" if config is None else local_dir(tmp_path / "m", state, **config)
    with pytest.raises(ModelError, match=line) as caught:
        build_model(name, meta=True)
    assert "\n" not in str(caught.value)


def test_names_as_people_write_them(tmp_path):
    assert resolve_model_name("hf_hub:org/name") == "hf-hub:org/name"  # as timm called it once; nothing is fetched
    assert resolve_model_name("timm/test_vit.r160_in1k") == "test_vit.r160_in1k"
    (tmp_path / "w.pth").write_bytes(b"x")
    for name, hint in (
        ("org/name", "--model hf-hub:org/name, one in a folder --model local-dir:org/name"),
        (str(tmp_path / "w.pth"), r"a file of weights is --checkpoint .*w\.pth, beside the --model"),
    ):
        with pytest.raises(ModelError, match=hint):
            resolve_model_name(name)


def test_offline_says_what_was_looked_for_and_where():
    with pytest.raises(
        ModelError, match=r"^--offline: config\.json of org/name is not in the local cache \(/.*\); download it"
    ):
        build_model("hf-hub:org/name", meta=True, offline=True)


def test_published_weights_never_get_a_random_head(monkeypatch):
    monkeypatch.setattr("tomebench.models.create.fetch", lambda name, *rest: build_model("test_vit").model)
    with pytest.raises(ModelError, match="have 1000 classes, and --num-classes 7 would leave the head random"):
        load_model("test_vit", num_classes=7, pretrained=True)
    assert load_model("test_vit", num_classes=7).head.num_classes == 7  # for speed


def test_the_misfit_that_is_named_is_that_of_the_nearest_names(tmp_path, state):
    wrapped = {f"module.{name}": tensor for name, tensor in state.items() if name != "norm.bias"}
    save_file(wrapped, tmp_path / "w.safetensors")
    with pytest.raises(ModelError) as caught:
        load_model("test_vit", checkpoint=tmp_path / "w.safetensors")
    assert str(caught.value).endswith("it does not fit the model: norm.bias is missing; check --model")


def test_loading_needs_no_model_of_the_file_s_size(tmp_path, state):
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(ModelError, match="its head has 7 classes, the model 1000"):
        load_checkpoint(build_model("test_vit").model, tmp_path / "w.safetensors")
