"""A module instead of a name: measured as it is, left as it was, and never mistaken for another."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
import timm
import torch
from torch import nn

import tomebench
from tomebench.errors import ConfigError, InputError, ModelError
from tomebench.models.create import load_model
from tomebench.models.given import given_model
from tomebench.sweeps.config import SweepConfig

FAST = {"device": "cpu", "batch_size": 64, "budget": "none"}


@pytest.fixture(scope="module")
def digits_vit() -> nn.Module:
    return load_model("digits_vit").model


def test_a_module_gives_what_its_name_gives(tmp_path: Path, digits_vit: nn.Module) -> None:
    before = {name: tensor.clone() for name, tensor in digits_vit.state_dict().items()}
    digits_vit.train()
    own = tomebench.sweep(digits_vit, [0, 8], out=tmp_path / "own", data="digits", limit=128, **FAST)
    named = tomebench.sweep("digits_vit", "0,8", out=tmp_path / "named", data="digits", limit=128, **FAST)
    assert [(row.r, row.top1_correct, row.gmacs) for row in own] == [(r.r, r.top1_correct, r.gmacs) for r in named]
    assert digits_vit.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in digits_vit.state_dict().items())
    assert own[0].weights.startswith("sha256:")
    again = tomebench.sweep(digits_vit, [0, 8], out=tmp_path / "own", data="digits", limit=128, **FAST)
    assert [row.top1_correct for row in again] == [row.top1_correct for row in own]


def test_other_weights_or_preprocessing_never_go_on_in_the_same_folder(tmp_path: Path, digits_vit: nn.Module) -> None:
    common = {"out": tmp_path / "run", "data": "digits", "limit": 64, **FAST}
    tomebench.sweep(digits_vit, 0, **common)
    with pytest.raises(InputError):
        tomebench.sweep(digits_vit, 0, preprocessing={"mean": (0.4, 0.4, 0.4)}, **common)
    other = load_model("digits_vit").model
    with torch.no_grad():
        other.norm.bias += 1
    with pytest.raises(InputError):
        tomebench.sweep(other, 0, **common)


def test_preprocessing_of_a_module_is_used_and_shown(tmp_path: Path, digits_vit: nn.Module) -> None:
    given = {"mean": (0.1, 0.2, 0.3), "std": (0.9, 0.8, 0.7), "crop_pct": 0.5, "interpolation": "bilinear"}
    (row,) = tomebench.sweep(digits_vit, 0, out=tmp_path, data="digits", limit=64, preprocessing=given, **FAST)
    assert {name: getattr(row, name) for name in given} == given
    assert digits_vit.pretrained_cfg["mean"] == (0.5, 0.5, 0.5)


def test_a_module_without_settings_has_to_say_them_for_images_only(tmp_path: Path) -> None:
    model = timm.create_model("test_vit", num_classes=10, img_size=64)
    model.pretrained_cfg = None
    with pytest.raises(ModelError, match="nothing says how its images are normalised; pass preprocessing="):
        given_model(model, evaluated=True)
    assert given_model(model).head.num_classes == 10
    stated = {"mean": (0.5,) * 3, "std": (0.5,) * 3}
    (row,) = tomebench.sweep(model, 0, out=tmp_path, data="digits", limit=64, preprocessing=stated, **FAST)
    assert (row.model, row.n_seen, row.mean) == ("VisionTransformer", 64, (0.5, 0.5, 0.5))


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"checkpoint": "x.pth"}, "checkpoint is about a model that is built by name; leave it out"),
        ({"num_classes": 3}, "num_classes is about a model that is built by name"),
        ({"preprocessing": {"crop": 1}}, "preprocessing has no setting 'crop'; it takes mean, std"),
        ({"batch_size": 0}, "batch-size"),
    ],
)
def test_what_a_module_has_no_use_for_is_one_line(tmp_path: Path, digits_vit: nn.Module, settings, line) -> None:
    with pytest.raises(ConfigError, match=line):
        tomebench.sweep(digits_vit, 0, out=tmp_path, **{**FAST, "budget": "quick", **settings})


def test_a_model_without_weights_or_copy_is_refused(tmp_path: Path) -> None:
    with torch.device("meta"):
        model = timm.create_model("test_vit")
    with pytest.raises(ModelError, match="on meta, without weights"):
        given_model(model)
    with pytest.raises(
        ModelError, match="python:VisionTransformer was handed over in Python and cannot be built by name"
    ):
        load_model("python:VisionTransformer")


def test_every_setting_is_a_keyword_that_an_editor_shows() -> None:
    shown = inspect.signature(tomebench.sweep).parameters
    assert {*SweepConfig.model_fields} - {"max_drop"} == {*shown} - {"progress"}  # rows recommend nothing
    assert all(shown[name].default is None for name in {*shown} - {"model", "r", "out", "progress"})


def test_progress_is_drawn_on_stderr_and_only_if_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = {"data": "digits", "limit": 64, **FAST}
    tomebench.sweep("digits_vit", 0, out=tmp_path / "a", **common)
    assert capsys.readouterr() == ("", "")
    tomebench.sweep("digits_vit", 0, out=tmp_path / "b", progress=True, **common)
    said = capsys.readouterr()
    assert said.out == ""
    assert "accuracy" in said.err
