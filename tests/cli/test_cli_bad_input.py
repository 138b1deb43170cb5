"""Bad input through the command line: one line, exit 2, and an earlier run in the same folder stays as it was."""

from __future__ import annotations

import os
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from fault_runs import DIGITS, SWEEP, refused, table
from PIL import Image
from safetensors.torch import save_file

from tomebench.datasets.imagenet import wnids
from tomebench.models import published
from tomebench.models.create import build_model

pytestmark = pytest.mark.usefixtures("quick_sweeps")

ON_IMAGES = (*SWEEP, "--model", "test_vit", "--data", "images")
"""A sweep of a model with 1000 classes; what is wrong with images is found before weights are looked for."""


def picture(path: Path, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, "JPEG", **options)
    return path


# --- images


@pytest.mark.parametrize(
    ("names", "says"),
    [
        ([], "no such folder"),
        (["a.JPEG", "b.JPEG"], "2 images in one flat folder have no labels"),
        (["0/a.JPEG", "1/a.JPEG"], "numbered class folders"),
        (["cat/a.JPEG"], "has 1 class (cat), the model has 1000 classes, and no list"),
        ([f"{wnids()[0]}/a.JPEG", "extra/a.JPEG"], "1 folder (extra) is not"),
        ([f"{wnids()[0]}/readme.txt"], "the class folders hold no images"),
    ],
    ids=["missing", "flat", "numeric", "foreign", "extra", "empty"],
)
def test_folders_that_are_no_data_set(program, earlier, names, says):
    for name in names:
        picture(Path("images") / name)
    assert says in refused(program, *ON_IMAGES)


def test_a_jpeg_cut_at_any_tenth(program, earlier):
    path = picture(Path("images") / wnids()[0] / "a.JPEG", quality=95)
    whole = path.read_bytes()
    for tenth in range(10):
        path.write_bytes(whole[: len(whole) * tenth // 10])
        assert f"{wnids()[0]}/a.JPEG" in refused(program, *ON_IMAGES)


@pytest.mark.parametrize(
    ("content", "says"), [(b"", "empty file"), (b"<!DOCTYPE html><html>404</html>", "not an image")], ids=["0", "html"]
)
def test_files_that_are_no_images(program, earlier, content, says):
    picture(Path("images") / wnids()[0] / "good.JPEG")
    (Path("images") / wnids()[0] / "bad.JPEG").write_bytes(content)
    line = refused(program, *ON_IMAGES)
    assert says in line
    assert "bad.JPEG" in line
    assert "good.JPEG" not in line


def test_an_image_without_permission_is_named(program, earlier, monkeypatch):
    path = picture(Path("images") / wnids()[0] / "a.JPEG")
    real = os.open

    def closed(name: object, *arguments: object, **options: object) -> int:
        if str(name).endswith(path.name):  # not chmod, which does not stop root
            raise PermissionError(13, "Permission denied", str(name))
        return real(name, *arguments, **options)  # type: ignore[arg-type]

    before = path.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", closed)
        result = program(*ON_IMAGES)
    assert (result.code, result.out) == (2, "")
    assert f"{wnids()[0]}/a.JPEG (no permission)" in result.error
    assert path.read_bytes() == before


def test_images_of_every_kind_are_counted_and_a_bomb_is_refused(program, tmp_path, monkeypatch):
    folder = tmp_path / "images" / wnids()[0]
    image = Image.open(picture(folder / "rgb.JPEG"))
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by a quarter
    image.save(folder / "exif.JPEG", exif=exif)
    for mode in ("CMYK", "L"):
        image.convert(mode).save(folder / f"{mode}.JPEG")
    for mode in ("P", "RGBA", "LA", "1"):
        image.convert("L" if mode == "LA" else "RGB").convert(mode).save(folder / f"{mode}.JPEG", "PNG")
    Image.new("RGB", (1, 1)).save(folder / "one.JPEG")
    save_file(build_model("test_vit", seed=3).model.state_dict(), "w.safetensors")
    flags = (*ON_IMAGES, "--img-size", "32", "--checkpoint", "w.safetensors")
    result = program(*flags)
    assert (result.code, result.err) == (0, "")
    assert [row["n_seen"] for row in table(Path("run"))] == [9, 9]
    monkeypatch.setattr("tomebench.datasets.decode._MOST_PIXELS", 100)  # a real bomb takes a second to make
    image.save(folder / "rgb.JPEG", "BMP")
    assert f"{wnids()[0]}/rgb.JPEG (more than 100 pixels, which may be a decompression bomb)" in refused(
        program, *flags
    )


# --- weights


@pytest.fixture
def state() -> dict[str, torch.Tensor]:
    return dict(build_model("digits_vit", seed=3).model.state_dict())


def test_a_safetensors_file_cut_or_changed_anywhere(program, earlier, state):
    save_file(state, "w.safetensors")
    whole = Path("w.safetensors").read_bytes()
    header = int.from_bytes(whole[:8], "little")
    for size in (0, 4, 8, header // 2, header + 8, len(whole) // 2, len(whole) - 1):
        Path("w.safetensors").write_bytes(whole[:size])
        reason = "not a readable safetensors file" if size else "cannot be read, it is empty"
        assert reason in refused(program, *DIGITS, "--checkpoint", "w.safetensors")
    random_ = random.Random(0)
    for _ in range(8):  # in the length of the header, its first bytes, and anywhere in it
        position = random_.choice([random_.randrange(8), 8, random_.randrange(8, header)])
        flipped = bytearray(whole)
        flipped[position] ^= 0x80  # no ASCII any more
        Path("w.safetensors").write_bytes(flipped)
        assert "w.safetensors" in refused(program, *DIGITS, "--checkpoint", "w.safetensors")


class Payload:
    """Creates a folder when it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ("ran",)


def test_a_pickle_with_a_payload_is_never_executed(program, earlier, state):
    torch.save({**state, "x": Payload()}, "w.pth")
    line = refused(program, *DIGITS, "--checkpoint", "w.pth")  # and nothing has appeared in the folder
    assert "running code from a file is refused; save its state_dict as .safetensors" in line


def test_refused_sees_a_payload_that_ran(program, earlier):
    def trusting(*arguments: str):
        Payload().__reduce__()[0]("ran")
        return program("report", "nowhere")

    with pytest.raises(AssertionError):
        refused(trusting)


def test_weights_of_something_else(program, earlier, state):
    wrong = {**state, "head.weight": torch.zeros(7, 96), "head.bias": torch.zeros(7)}
    missing = {name: tensor for name, tensor in state.items() if name != "norm.bias"}
    other = {name: torch.zeros(3) for name in ("conv1.weight", "fc.bias")}
    for tensors, says in (
        (wrong, "the model has 7 classes and digits 10: use weights trained for 10 classes"),
        (missing, "norm.bias is missing"),
        (other, "does not fit the model"),
    ):
        save_file(tensors, "w.safetensors")
        assert says in refused(program, *DIGITS, "--checkpoint", "w.safetensors")


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--model", "vit_b_61"), "did you mean vit_b_16"),
        (("--model", "test_vit", "--data", "digits"), "1 000 classes and digits 10"),
        (("--checkpoint", "gone.safetensors"), "gone.safetensors: no such file"),
        (("--checkpoint", "run"), "run: no such file"),
    ],
)
def test_models_that_cannot_be_used(program, earlier, flags, says):
    assert says in refused(program, *DIGITS, *flags)


def test_a_model_that_is_no_vit(program, earlier):
    assert "ResNet has 'conv1'" in refused(program, *SWEEP, "--model", "resnet18")


@pytest.mark.parametrize("variable", [False, True])
def test_offline_names_the_file_that_it_would_need(program, earlier, monkeypatch, variable):
    monkeypatch.setattr(published, "try_to_load_from_cache", lambda *arguments, **_: None)
    monkeypatch.setattr(published.timm.models._builder, "load_pretrained", lambda *a, **k: pytest.fail("network"))
    if variable:
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    picture(Path("images") / wnids()[0] / "a.JPEG")
    line = refused(program, *ON_IMAGES, *(() if variable else ("--offline",)))
    assert f"{'HF_HUB_OFFLINE' if variable else '--offline'}: model.safetensors of timm/test_vit" in line
    assert "; download it beforehand or pass a file with --checkpoint" in line


# --- values


@pytest.mark.parametrize(
    ("r", "says"),
    [
        ("-1", "cannot be negative"),
        ("eight", "cannot read 'eight'"),
        ("8..0", "runs backwards; write 0..8"),
        ("", "empty part"),
        ("8,8", "8 is given twice"),
        ("9" * 6000, "no Vision Transformer has that many tokens"),
    ],
    ids=["negative", "text", "reversed", "empty", "duplicate", "huge"],
)
def test_r_that_is_none(program, earlier, r, says):
    assert says in refused(program, *DIGITS, f"--r={r}")


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--device", "cuda:99"), "device 'cuda:99' is not available"),
        (("--device", "tpu"), "--device 'tpu': use auto, cpu, cuda or cuda:N"),
        (("--dtype", "tf32"), "dtype tf32 needs a CUDA GPU"),
        (("--dtype", "fp8"), "--dtype 'fp8': use fp32"),
    ],
)
def test_devices_and_dtypes_that_are_not_there(program, earlier, flags, says):
    assert says in refused(program, *DIGITS, *flags)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("limt: 3", "unknown key 'limt'; did you mean 'limit'?"),
        ("model: m\nname: no", "name False: must be text; put it in quotes"),
        ("model: m\nseed: 1e-3", "seed 0.001: must be a whole number"),
        ("model:\n\t- x", "YAML does not allow tabs"),
    ],
)
def test_yaml_that_says_something_else(program, earlier, text, says):
    Path("c.yaml").write_text(text)
    line = refused(program, "sweep", "--config", "c.yaml", "--out", "run", "--quiet")
    assert says in line
    assert "c.yaml" in line


# --- names


NAMES = {
    "not UTF-8": os.fsdecode(b"caf\xe9"),
    "newline": "new\nline",
    "markup": "[r=8] [bold]x[/bold] :smile: <b>",
    "300 characters": "/".join(["x" * 99] * 3),
}


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_paths_of_any_name_work(program, tmp_path, name, state):
    model = build_model("test_vit", seed=3).model
    for i in range(2):
        picture(Path(name) / "images" / wnids()[i] / f"{i}.JPEG")
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    (tmp_path / "w.safetensors").rename(tmp_path / name / "w.safetensors")
    flags = ("--data", f"{name}/images", "--checkpoint", f"{name}/w.safetensors", "--out", f"{name}/run")
    result = program(*SWEEP, "--model", "test_vit", "--img-size", "32", *flags)
    assert (result.code, result.err) == (0, "")
    assert [row["n_seen"] for row in table(tmp_path / name / "run")] == [2, 2]
    if name == NAMES["markup"]:
        assert f"written to {name}/run: table.csv" in result.out
    assert "\x1b" not in result.out
    assert program("report", f"{name}/run").code == 0
    other = refused(program, *SWEEP, "--model", "test_vit", "--img-size", "32", *flags, "--seed", "1")
    assert "seed: 0 -> 1" in other
    if "\n" not in name and name.isprintable():
        assert f"{name}/run holds a run" in other


LONG = "x" * 300


@pytest.mark.parametrize(
    "command",
    [
        (*DIGITS, "--data", LONG),
        (*DIGITS, "--checkpoint", f"{LONG}.safetensors"),
        (*DIGITS, "--out", LONG),
        ("sweep", "--config", LONG),
        ("report", LONG),
        ("doctor", "--data", LONG),
    ],
    ids=["data", "checkpoint", "out", "config", "run", "doctor"],
)
def test_a_name_that_no_file_can_have_is_bad_input(program, earlier, command):
    assert "xxxxx" in refused(program, *command)


@pytest.mark.parametrize("name", ["=HYPERLINK(1)", "a|b<script>", "::error::x", "\x1b[31m\x07", "x\n::error::y"])
def test_a_model_name_is_inert_on_the_terminal(program, earlier, name):
    for command in ("sweep", "plan"):
        line = refused(program, command, "--model", name, "--quiet" if command == "sweep" else "--json")
        assert line.startswith("tomebench: error: unknown model '")
