"""Checkpoints: loaded strictly, never executed, and what does not fit is named."""

from __future__ import annotations

import os
import pickle
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from tomebench.errors import ModelError
from tomebench.models.checkpoint import load_checkpoint
from tomebench.models.create import build_model


@pytest.fixture
def state() -> dict[str, torch.Tensor]:
    return dict(build_model("test_vit", seed=3).model.state_dict())


def load(path: Path) -> dict[str, torch.Tensor]:
    model = build_model("test_vit", seed=0).model
    assert load_checkpoint(model, path).startswith("sha256:")
    return model.state_dict()


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"model": s, "epoch": 3}, lambda s: {"state_dict": s}])
def test_a_pickled_checkpoint_loads_bare_or_wrapped(tmp_path, state, wrap):
    torch.save(wrap(state), tmp_path / "w.pth")
    loaded = load(tmp_path / "w.pth")
    assert all(torch.equal(loaded[name], state[name]) for name in state)


def test_safetensors_load_and_are_identified_by_content(tmp_path, state):
    save_file(state, tmp_path / "a.safetensors")
    save_file(state, tmp_path / "b.safetensors")
    save_file({**state, "cls_token": state["cls_token"] + 1}, tmp_path / "c.safetensors")
    model = build_model("test_vit").model
    a, b, c = (load_checkpoint(model, tmp_path / f"{name}.safetensors") for name in "abc")
    assert a == b != c


def test_position_embeddings_are_resized_to_the_image_size(tmp_path, state):
    save_file(state, tmp_path / "w.safetensors")
    model = build_model("test_vit", img_size=192).model
    load_checkpoint(model, tmp_path / "w.safetensors")
    assert model.pos_embed.shape[1] > state["pos_embed"].shape[1]


class Payload:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_the_payload_works_where_pickle_is_trusted(tmp_path):
    pickle.loads(pickle.dumps(Payload(tmp_path / "ran")))
    assert (tmp_path / "ran").exists()


def test_code_in_a_checkpoint_never_runs(tmp_path, state):
    torch.save({**state, "x": Payload(tmp_path / "ran")}, tmp_path / "w.pth")
    with pytest.raises(ModelError, match=r"holds posix\.mkdir, no weight, and running code from a file is refused"):
        load(tmp_path / "w.pth")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("extra", "name"), [(Path("x"), r"pathlib\.PosixPath"), (np.float64(0.5), r"numpy\._?core\.multiarray\.scalar")]
)
def test_what_else_a_checkpoint_holds_is_named(tmp_path, state, extra, name):
    torch.save({"model": state, "extra": extra}, tmp_path / "w.pth")
    with pytest.raises(ModelError, match=rf"w\.pth: holds {name}, no weight, and running code .*; save its state_dict"):
        load(tmp_path / "w.pth")


@pytest.mark.parametrize(
    ("odd", "what"),
    [
        (lambda t: torch.quantize_per_tensor(t, 0.01, 0, torch.qint8), r"quantised \(qint8\)"),
        (lambda t: t.to_sparse(), r"sparse \(sparse_coo\)"),
        (lambda t: t.to("meta"), "on meta, without values"),
        (lambda t: t.to(torch.complex64), r"complex \(complex64\)"),
        (lambda t: (127 * t).to(torch.int8), "int8 instead of float32"),
        (lambda t: t > 0, "bool instead of float32"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_tensors_that_hold_no_weights_are_named_with_what_they_are(tmp_path, state, odd, what):
    torch.save({**state, "head.weight": odd(state["head.weight"])}, tmp_path / "w.pth")
    with pytest.raises(ModelError, match=rf"head\.weight is {what}; save (a state_dict|the weights)") as error:
        load(tmp_path / "w.pth")
    assert "\n" not in str(error.value)


def test_what_does_not_fit_is_named(tmp_path, state):
    del state["norm.bias"]
    state["blocks.0.attn.proj.weight"] = torch.zeros(3, 3)
    save_file({**state, "extra": torch.zeros(1)}, tmp_path / "w.safetensors")
    with pytest.raises(ModelError) as error:
        load(tmp_path / "w.safetensors")
    for part in ("norm.bias is missing", "extra is unknown", "blocks.0.attn.proj.weight is [3, 3] instead of [64, 64]"):
        assert part in str(error.value)


def test_only_three_misfits_are_named(tmp_path, state):
    save_file({name: tensor for name, tensor in state.items() if "blocks" not in name}, tmp_path / "w.safetensors")
    with pytest.raises(ModelError, match=r"(is missing.*){3} and \d+ more; check --model"):
        load(tmp_path / "w.safetensors")


def test_another_number_of_classes_is_said_so(tmp_path, state):
    state["head.weight"], state["head.bias"] = torch.zeros(21843, 64), torch.zeros(21843)
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(ModelError, match="its head has 21843 classes, the model 1000"):
        load(tmp_path / "w.safetensors")


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("w.safetensors", b"", "cannot be read, it is empty"),
        ("w.safetensors", b"\xff" * 64, "not a readable safetensors file"),
        ("w.pth", b"", "cannot be read, it is empty"),
        ("w.pth", b"junk", "damaged, or holds more than weights"),
        ("w.pth", b"<html>", "refused|cannot be read"),
        ("w.onnx", b"x", "damaged, or holds more than weights"),
    ],
)
def test_damaged_files_are_one_line(tmp_path, name, content, text):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError, match=text) as error:
        load(tmp_path / name)
    assert "\n" not in str(error.value)


@settings(max_examples=150)
@given(st.binary(min_size=1, max_size=60))
def test_no_bytes_are_a_bug(content):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "w.pth"
        path.write_bytes(content)
        with pytest.raises(ModelError):
            load_checkpoint(torch.nn.Identity(), path)


def test_files_that_hold_no_weights_are_refused(tmp_path):
    torch.save({"epoch": 3}, tmp_path / "w.pth")
    with pytest.raises(ModelError, match="holds no state_dict"):
        load(tmp_path / "w.pth")
    with pytest.raises(ModelError, match="no such file"):
        load(tmp_path / "absent.pth")
    torch.save({"epoch": 4}, tmp_path / "v.pth")
    with pytest.raises(
        ModelError, match=r"no such file as model\.safetensors in this folder, which holds v\.pth, w\.pth"
    ):
        load(tmp_path)


def test_a_model_that_is_no_vit_takes_no_vit_weights(tmp_path, state):
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(ModelError):
        load_checkpoint(build_model("resnet18").model, tmp_path / "w.safetensors")


def test_a_header_that_no_model_has_is_not_read(tmp_path):
    """A million names of empty tensors take half a minute to read."""
    path = tmp_path / "w.safetensors"
    path.write_bytes((90 * 2**20).to_bytes(8, "little") + b'{"a": ')
    os.truncate(path, 100 * 2**20)
    with pytest.raises(ModelError, match="its header says 94371840 bytes, which the names of no model's tensors take"):
        load(path)


def test_one_tensor_of_another_code_base_beside_a_right_state_is_named(tmp_path, state):
    save_file({**state, "visual.trunk.pos_embed": torch.zeros(1, 5, 64)}, tmp_path / "w.safetensors")
    with pytest.raises(ModelError, match=r"visual\.trunk\.pos_embed is unknown to the model; check --model"):
        load(tmp_path / "w.safetensors")


@pytest.mark.parametrize("shape", [(5,), (0,), (1, 0, 64), (1, 50, 3)])
def test_position_embeddings_of_any_shape_are_named(tmp_path, state, shape):
    save_file({**state, "pos_embed": torch.zeros(shape)}, tmp_path / "w.safetensors")
    with pytest.raises(ModelError, match=r"pos_embed is|position embedding has 0 positions"):
        load(tmp_path / "w.safetensors")
