"""A module instead of a name: measured as it is, left as it was, and never mistaken for another."""

from __future__ import annotations

import inspect
import warnings
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from demo_rows import demo
from torch import nn

import tomebench
from tomebench.cli import app
from tomebench.errors import ConfigError, InputError, ModelError, SpecError, UnsupportedModelError
from tomebench.models.create import load_model
from tomebench.models.given import given_model
from tomebench.report.frames import to_frame
from tomebench.report.headline import sentence
from tomebench.sweeps.config import SweepConfig

pytestmark = pytest.mark.filterwarnings("ignore:.* would not show a loss to be within")  # of so few images

FAST = {"device": "cpu", "batch_size": 16, "budget": "none"}


@pytest.fixture(scope="module")
def digits_vit() -> nn.Module:
    return load_model("digits_vit").model


def test_a_module_gives_what_its_name_gives(tmp_path: Path, digits_vit: nn.Module) -> None:
    before = {name: tensor.clone() for name, tensor in digits_vit.state_dict().items()}
    digits_vit.train()
    own = tomebench.sweep(digits_vit, [0, 8], out=tmp_path / "own", data="digits", limit=48, **FAST)
    named = tomebench.sweep("digits_vit", "0,8", out=tmp_path / "named", data="digits", limit=48, **FAST)
    assert [(row.r, row.top1_correct, row.gmacs) for row in own] == [(r.r, r.top1_correct, r.gmacs) for r in named]
    assert digits_vit.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in digits_vit.state_dict().items())
    assert own[0].weights.startswith("sha256:")
    again = tomebench.sweep(digits_vit, [0, 8], out=tmp_path / "own", data="digits", limit=48, **FAST)
    assert [row.top1_correct for row in again] == [row.top1_correct for row in own]


def test_other_weights_or_preprocessing_never_go_on_in_the_same_folder(tmp_path: Path, digits_vit: nn.Module) -> None:
    common = {"out": tmp_path / "run", "data": "digits", "limit": 16, **FAST}
    tomebench.sweep(digits_vit, 0, **common)
    for changed in ({"mean": (0.4, 0.4, 0.4)}, {"crop_mode": "squash"}):
        with pytest.raises(InputError, match=f"{next(iter(changed))}: "):
            tomebench.sweep(digits_vit, 0, preprocessing=changed, **common)
    other = load_model("digits_vit").model
    with torch.no_grad():
        other.norm.bias += 1
    with pytest.raises(InputError):
        tomebench.sweep(other, 0, **common)


def test_preprocessing_of_a_module_is_used_and_shown(tmp_path: Path, digits_vit: nn.Module) -> None:
    given = {"mean": (0.1, 0.2, 0.3), "std": (0.9, 0.8, 0.7), "crop_pct": 0.5, "interpolation": "bilinear"}
    (row,) = tomebench.sweep(digits_vit, 0, out=tmp_path, data="digits", limit=16, preprocessing=given, **FAST)
    assert {name: getattr(row, name) for name in given} == given
    assert digits_vit.pretrained_cfg["mean"] == (0.5, 0.5, 0.5)


def test_a_module_without_settings_has_to_say_them_for_images_only(tmp_path: Path) -> None:
    model = timm.create_model("test_vit", num_classes=10, img_size=64)
    model.pretrained_cfg = None
    with pytest.raises(ModelError, match="nothing says how its images are normalised; pass preprocessing="):
        given_model(model, evaluated=True)
    assert given_model(model).head.num_classes == 10
    stated = {"mean": (0.5,) * 3, "std": (0.5,) * 3}
    (row,) = tomebench.sweep(model, 0, out=tmp_path, data="digits", limit=16, preprocessing=stated, **FAST)
    assert (row.model, row.n_seen, row.mean) == ("VisionTransformer", 16, (0.5, 0.5, 0.5))


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"checkpoint": "x.pth"}, "checkpoint is about a model that is built by name; leave it out"),
        ({"num_classes": 3}, "num_classes is about a model that is built by name"),
        ({"preprocessing": {"crop": 1}}, "preprocessing has no setting 'crop'; it takes mean, std"),
        ({"preprocessing": {"mean": 0.5}}, "preprocessing mean 0.5: give three numbers, one for each channel"),
        ({"preprocessing": {"std": (0.5, 0.5)}}, "preprocessing std .*: give three numbers"),
        ({"preprocessing": {"std": (0.5, 0.5, 0.0)}}, "pixels are divided by it; give three above 0"),
        ({"preprocessing": {"interpolation": "foo"}}, "interpolation 'foo' is not known; use one of nearest"),
        ({"preprocessing": {"crop_mode": "foo"}}, "crop_mode 'foo' is not known; use one of center"),
        ({"preprocessing": {"crop_pct": 3}}, "crop_pct 3: give a fraction of the resized image"),
        ({"preprocessing": {"crop_pct": 0}}, "crop_pct 0: give a fraction"),
        ({"class_names": ["a", "b"]}, "class_names .*: give a path"),
        ({"out": None}, "out None: give a path"),
        ({"batch_size": 0}, "batch-size"),
    ],
)
def test_what_a_module_has_no_use_for_is_one_line(tmp_path: Path, digits_vit: nn.Module, settings, line) -> None:
    with pytest.raises(ConfigError, match=line):
        tomebench.sweep(digits_vit, 0, **{**FAST, "out": tmp_path, "budget": "quick", **settings})


@pytest.mark.parametrize("r", [8.5, [0.0, 8.0], None, "8.5"])
def test_what_is_no_r_is_one_line(tmp_path: Path, digits_vit: nn.Module, r) -> None:
    with pytest.raises(SpecError, match="r "):
        tomebench.sweep(digits_vit, r, out=tmp_path, **FAST)


def test_a_model_that_merges_already_and_a_wrapper_are_refused_by_name(tmp_path: Path, digits_vit: nn.Module) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = digits_vit

    with pytest.raises(UnsupportedModelError, match="merges tokens already; pass the one it was made of"):
        tomebench.sweep(tomebench.apply(digits_vit, 4), 0, out=tmp_path, data="digits", **FAST)
    with pytest.raises(UnsupportedModelError, match=r"Net holds a VisionTransformer as \.model; pass that"):
        tomebench.sweep(Net(), 0, out=tmp_path, data="digits", **FAST)


def test_whole_numbers_of_numpy_are_numbers(tmp_path: Path, digits_vit: nn.Module) -> None:
    settings = {**FAST, "batch_size": np.int64(8), "limit": np.int64(16)}
    (row,) = tomebench.sweep(digits_vit, np.int64(0), out=tmp_path, data="digits", **settings)
    assert (row.n_seen, row.batch_size) == (16, 8)


def test_the_same_tensors_in_another_forward_pass_are_another_model(tmp_path: Path) -> None:
    def make(**settings: object) -> nn.Module:
        torch.manual_seed(0)
        return timm.create_model("test_vit", num_classes=10, img_size=64, fc_norm=False, **settings)

    first = make(global_pool="token")
    digests = {given_model(make(global_pool=pool)).weights for pool in ("token", "avg")}
    other = make(global_pool="token")
    for block in other.blocks:
        block.attn.num_heads, block.attn.head_dim = 2 * block.attn.num_heads, block.attn.head_dim // 2
    digests.add(given_model(other).weights)
    assert len(digests) == 3
    assert given_model(first).weights == given_model(make(global_pool="token").train()).weights


def test_what_nobody_asked_for_is_a_warning_unless_a_bar_says_it(tmp_path: Path, digits_vit: nn.Module) -> None:
    state = digits_vit.state_dict()
    torch.save({"model": state, "model_ema": state}, tmp_path / "both.pth")
    settings = {"checkpoint": tmp_path / "both.pth", "data": "digits", "limit": 8, **FAST}
    with pytest.warns(UserWarning, match="the checkpoint holds model and model_ema; model is used"):
        tomebench.sweep("digits_vit", 0, out=tmp_path / "a", **settings)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tomebench.sweep("digits_vit", 0, out=tmp_path / "b", progress=True, **settings)


def test_advice_is_the_sentence_of_the_screen_and_its_row() -> None:
    rows = demo()
    found = tomebench.advise(rows, max_drop=3)
    assert found is not None
    assert (found.row, found.text) == (next(row for row in rows if row.r == 12), sentence(rows, 3.0))
    nothing = tomebench.advise(rows)
    assert nothing is not None
    assert (nothing.row, str(nothing).startswith("Nothing can be recommended yet")) == (None, True)
    assert (nothing.images or 0) > rows[0].n_seen
    assert tomebench.advise([]) is None
    with pytest.raises(InputError, match=r"takes the rows that sweep returned, or a run folder, and no DataFrame"):
        tomebench.advise(to_frame(rows))  # type: ignore[arg-type]
    for limit in (-1, 101, float("nan"), "0.5"):
        with pytest.raises(InputError, match=r"max_drop .*: use a number of points of top-1"):
            tomebench.advise(rows, limit)


def test_a_model_without_weights_or_copy_is_refused(tmp_path: Path) -> None:
    with torch.device("meta"):
        model = timm.create_model("test_vit")
    with pytest.raises(ModelError, match="on meta, without weights"):
        given_model(model)
    with pytest.raises(
        ModelError, match="python:VisionTransformer was handed over in Python and cannot be built by name"
    ):
        load_model("python:VisionTransformer")


@pytest.mark.filterwarnings("ignore")  # of PyTorch, about its own ways to quantise
def test_a_quantised_model_is_refused_by_name() -> None:
    model = timm.create_model("test_vit")
    with pytest.raises(ModelError, match=r"model's .* is no tensor of numbers, as in a quantised model; pass one in"):
        given_model(torch.ao.quantization.quantize_dynamic(model, {nn.Linear}))


def test_a_model_that_computes_activations_anew_is_not_timed_as_one_that_keeps_them(tmp_path: Path) -> None:
    model = timm.create_model("test_vit")
    model.set_grad_checkpointing(True)
    with pytest.raises(UnsupportedModelError, match=r"in backward passes.*: call its set_grad_checkpointing\(False\)"):
        tomebench.sweep(model, [0, 8], out=tmp_path / "run", mode="train", device="cpu", batch_size=2)
    assert not (tmp_path / "run").exists()


def test_a_run_folder_from_python_holds_what_the_command_line_leaves(tmp_path: Path, digits_vit: nn.Module) -> None:
    common = {"data": "digits", "limit": 48, **FAST}
    rows = tomebench.sweep("digits_vit", "0,8", out=tmp_path / "named", max_drop=0.5, **common)
    summary = (tmp_path / "named" / "summary.md").read_text()
    assert str(tomebench.advise(rows, max_drop=0.5)).split("(")[0] in summary.replace("\\", "")
    assert tomebench.advise(tmp_path / "named", max_drop=0.5) == tomebench.advise(rows, max_drop=0.5)
    kept = {name: (tmp_path / "named" / name).read_bytes() for name in ("table.csv", "rows.jsonl")}
    assert app.run(["report", str(tmp_path / "named"), "--json"]) == 0
    assert {name: (tmp_path / "named" / name).read_bytes() for name in kept} == kept
    assert "## Again\n\n    tomebench sweep --model digits_vit --r 0,8" in summary
    tomebench.sweep(digits_vit, [0, 8], out=tmp_path / "own", **common)
    assert "## Again" not in (tmp_path / "own" / "summary.md").read_text(), "no command builds what was handed over"


def test_every_setting_is_a_keyword_that_an_editor_shows() -> None:
    shown = inspect.signature(tomebench.sweep).parameters
    assert {*SweepConfig.model_fields} == {*shown} - {"progress"}
    assert all(shown[name].default is None for name in {*shown} - {"model", "r", "out", "progress"})


def test_progress_is_drawn_on_stderr_and_only_if_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = {"data": "digits", "limit": 16, **FAST}
    tomebench.sweep("digits_vit", 0, out=tmp_path / "a", **common)
    assert capsys.readouterr() == ("", "")
    tomebench.sweep("digits_vit", 0, out=tmp_path / "b", progress=True, **common)
    said = capsys.readouterr()
    assert said.out == ""
    assert "accuracy" in said.err
