"""Models of the Hugging Face hub, from a cache as the hub's own library lays it out, offline."""

from __future__ import annotations

import pytest
import torch
from hub_cache import NAME, SHA, write_hub_cache
from safetensors.torch import save_file

from tomebench.errors import ModelError
from tomebench.models.create import build_model, load_model


@pytest.fixture
def state() -> dict[str, torch.Tensor]:
    return dict(build_model("test_vit", num_classes=3, seed=3).model.state_dict())


@pytest.fixture
def snapshot(tmp_path, monkeypatch, state):
    """The folder of one revision in a cache of its own, which holds a model."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    return write_hub_cache(tmp_path, state, ["cat", "dog", "newt"])


def test_what_the_cache_holds_is_loaded_without_a_network(snapshot, state):
    loaded = load_model(NAME, pretrained=True, offline=True, labelled=True)
    found = loaded.model.state_dict()
    assert found.keys() == state.keys()
    assert all(torch.equal(found[name], state[name]) for name in state)
    assert (loaded.timm_id, loaded.head.names().names) == (NAME, ("cat", "dog", "newt"))
    assert not loaded.model.training
    assert load_model(f"{NAME}@{SHA}", pretrained=True, offline=True).weights == loaded.weights
    assert load_model(NAME, offline=True).weights == "random:0"  # for speed


def test_another_state_of_a_repository_is_another_model_s_weights(snapshot, state):
    first, again = (load_model(NAME, pretrained=True, offline=True).weights for _ in range(2))
    save_file({**state, "head.bias": state["head.bias"] + 1}, snapshot / "model.safetensors")
    other = load_model(NAME, pretrained=True, offline=True).weights
    assert first == again != other
    for weights in (first, other):
        digest, _, published = weights.partition(" ")
        assert (len(digest), digest[:7], published) == (23, "sha256:", "(pretrained)")


def test_weights_that_are_not_in_the_cache_are_said(snapshot):
    (snapshot / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"^--offline: model\.safetensors of org/name is not in the local cache"):
        load_model(NAME, pretrained=True, offline=True)


def test_weights_from_a_file_keep_the_names_of_the_settings(snapshot, tmp_path, state):
    (tmp_path / "other").mkdir()
    save_file(state, tmp_path / "other" / "w.safetensors")
    loaded = build_model(NAME, checkpoint=tmp_path / "other" / "w.safetensors", labelled=True, offline=True)
    assert loaded.head.names().names == ("cat", "dog", "newt")
