"""Which lists of class names come with a model: in its file, beside it, in its settings, or given by the user."""

from __future__ import annotations

import pytest
import torch
from local_dirs import CLASSES, local_dir
from safetensors.torch import save_file

from tomebench.errors import DataError
from tomebench.models.create import build_model

NAMES, OTHERS = tuple("abcdefg"), tuple("gfedcba")


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    return dict(build_model("test_vit", num_classes=CLASSES, seed=3).model.state_dict())


def elsewhere(tmp_path, state):
    (tmp_path / "other").mkdir()
    save_file(state, tmp_path / "other" / "w.safetensors")
    return tmp_path / "other" / "w.safetensors"


def head(model, **settings):
    return build_model(model, labelled=True, meta=True, **settings).head


def test_weights_from_elsewhere_keep_the_names_of_the_model_s_settings(tmp_path, state):
    name, file = local_dir(tmp_path / "m", state, label_names=NAMES), elsewhere(tmp_path, state)
    assert head(name, checkpoint=file).names().names == NAMES
    assert len(head(name, checkpoint=tmp_path / "m" / "model.safetensors").found) == 1  # read once
    assert len(head(name).found) == 1
    (file.parent / "classes.txt").write_text("\n".join(OTHERS))
    with pytest.raises(DataError, match=r"disagree: class 0 is 'g' in classes\.txt beside the checkpoint and 'a' in"):
        head(name, checkpoint=file).names()


def test_names_of_another_head_are_not_those_of_the_weights(tmp_path, state):
    small = dict(build_model("test_vit", num_classes=2).model.state_dict())
    name, file = local_dir(tmp_path / "m", state, label_names=NAMES), elsewhere(tmp_path, small)
    assert head(name, checkpoint=file).found == ()


@pytest.mark.parametrize("text", ['{"label_names": {"a": 1}}', "no json", '{"classes": [3, 4]}'])
def test_a_list_of_the_user_needs_no_other(tmp_path, state, text):
    save_file(state, tmp_path / "w.safetensors")
    (tmp_path / "config.json").write_text(text)
    (tmp_path / "names").write_text("\n".join(NAMES))
    with pytest.raises(DataError, match=r"config\.json .*, or give (another list|a list of class names) with --class-"):
        head("test_vit", checkpoint=tmp_path / "w.safetensors")
    given = head("test_vit", checkpoint=tmp_path / "w.safetensors", class_names=str(tmp_path / "names"))
    assert (given.names().names, given.found) == (NAMES, ())
    assert head("test_vit", checkpoint=tmp_path / "w.safetensors", class_names="sorted").order == "sorted"


def test_settings_of_something_else_beside_a_checkpoint(tmp_path, state):
    save_file(state, tmp_path / "w.safetensors")
    (tmp_path / "config.json").write_text('{"model": "x", "classes": 3}')
    assert head("test_vit", checkpoint=tmp_path / "w.safetensors").found == ()


@pytest.mark.parametrize(
    "settings",
    [
        {"id2label": dict(enumerate(NAMES)), "label2id": {name: k for k, name in enumerate(OTHERS)}},
        {"label_names": NAMES, "pretrained_cfg": {"input_size": [3, 160, 160], "label_names": OTHERS}},
    ],
)
def test_two_lists_in_the_same_settings_have_to_agree(tmp_path, state, settings):
    name = local_dir(tmp_path / "m", state, **settings)
    with pytest.raises(DataError, match=r"two lists of class names disagree: class 0 is '.' in .* and '.' in .*"):
        head(name).names()


def test_two_lists_in_one_checkpoint_have_to_agree(tmp_path, state):
    number = {name: k for k, name in enumerate(OTHERS)}
    torch.save({"model": state, "label_names": NAMES, "args": {"class_to_idx": number}}, tmp_path / "w.pth")
    found = head("test_vit", checkpoint=tmp_path / "w.pth")
    assert [each.source for each in found.found] == [
        "label_names in w.pth",
        "class_to_idx in w.pth",
    ]
    with pytest.raises(DataError, match=r"class 0 is 'a' in label_names in w\.pth and 'g' in class_to_idx in w\.pth"):
        found.names()
