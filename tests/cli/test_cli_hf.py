"""``--model hf/...`` on the command line: a whole sweep, plans, names in results, and what is missing in a line."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("transformers")

import hf_texts
from backbones.hf_models import build
from hf_folders import change, save


def pictures(folder: Path) -> Path:
    """Twenty-one pictures of seven classes, whose names are those of the model's."""
    random = np.random.default_rng(0)
    for number in range(7):
        (folder / f"kind {number}").mkdir(parents=True)
        for picture in range(3):
            pixels = random.integers(0, 256, (40, 50, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"kind {number}" / f"{picture}.png")
    return folder


@pytest.fixture
def mine(program, tmp_path):
    """The program, beside a model of seven classes and their pictures."""
    model = build("dinov2")
    model.config.id2label = {number: f"kind {number}" for number in range(7)}
    model.config.label2id = {f"kind {number}": number for number in range(7)}
    save(model, tmp_path / "mine", "crop")
    pictures(tmp_path / "pictures")
    return program


FAST = ("--device", "cpu", "--batch-size", "7", "--budget", "none", "--out", "run", "--quiet", "--workers", "0")


def test_a_sweep_of_a_folder_counts_by_its_own_labels_and_pixels(mine):
    for cache in ((), ("--cache", "pixels")):  # the second fills a cache, the third reads it
        done = mine("sweep", "--model", "hf/mine", "--data", "pictures", "--r", "0,8", *FAST, *cache)
        assert done.code == 0, done.err
    shown = json.loads(mine("report", "run", "--json").out)["rows"]
    assert [row["model"] for row in shown] == ["hf/mine"] * 2
    assert [row["tokens_out"] for row in shown] == [65, 65 - 24]
    assert [row["n_seen"] for row in shown] == [21, 21]
    assert shown[0]["crop_pct"] == pytest.approx(32 / 36)
    assert shown[0]["weights"].startswith("sha256:")
    assert "7 classes" in shown[0]["dataset"] or shown[0]["dataset"] == "pictures"
    again = mine("sweep", "--model", "hf/mine", "--data", "pictures", "--r", "0,8,16", *FAST)
    assert again.code == 0


def test_changed_weights_do_not_go_on_in_the_same_folder(mine):
    assert mine("sweep", "--model", "hf/mine", "--data", "pictures", "--r", "0,8", *FAST).code == 0
    save(build("dinov2", seed=1), Path("mine"), "crop")
    refused = mine("sweep", "--model", "hf/mine", "--data", "pictures", "--r", "0,8,16", *FAST)
    assert refused.code == 2
    assert "weights" in refused.error


def test_another_image_processor_does_not_go_on_in_the_same_folder(mine):
    assert mine("sweep", "--model", "hf/mine", "--data", "pictures", "--r", "0,8", *FAST).code == 0
    change(Path("mine/preprocessor_config.json"), rescale_factor=0.004)
    refused = mine("sweep", "--model", "hf/mine", "--data", "pictures", "--r", "0,8,16", *FAST)
    assert refused.code == 2
    assert "another image processor" in refused.error


def test_plan_and_doctor(mine):
    planned = json.loads(mine("plan", "--model", "hf/mine", "--r", "0,8", "--json").out)
    assert "hf/mine" in json.dumps(planned)
    doctor = mine("doctor", "--model", "hf/mine", "--data", "pictures")
    assert doctor.code == 0
    assert f"transformers  ok    {metadata.version('transformers')}" in doctor.out
    assert "65 tokens, 1 of them never merged" in " ".join(doctor.out.split())


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--model", "hf/nowhere"), "no such folder; give hf/FOLDER, or hf/ORG/NAME on the hub"),
        (("--model", "hf/mine", "--preprocessing", "tome"), "the model's own image processor says how"),
        (("--model", "hf/mine", "--num-classes", "3"), "has its own class head; leave --num-classes out"),
        (("--model", "hf/mine", "--checkpoint", "mine"), "has its own weights; leave --checkpoint out"),
        (("--model", "local-dir:mine"), "of transformers' models give --model hf/FOLDER"),
        (("--model", "hf/mine", "--rope", "mean"), "does not rotate its keys"),
    ],
)
def test_what_does_not_go_is_said_in_a_line(mine, flags, said):
    refused = mine("sweep", *flags, "--data", "pictures", "--r", "0,8", *FAST)
    assert refused.code == 2
    assert said in refused.error


def test_without_the_library_a_line_names_the_command_that_installs_it(program, monkeypatch):
    monkeypatch.setattr("tomebench.models.hf_files.is_installed", lambda name: False)
    refused = program("plan", "--model", "hf/mine")
    assert refused.code == 2
    assert "needs the transformers library; pip install 'tomebench[hf]'" in refused.error


def test_an_older_library_is_named(mine, monkeypatch):
    monkeypatch.setattr("tomebench.models.hf_files.version", lambda name: "4.57.6")
    refused = mine("plan", "--model", "hf/mine")
    assert "needs transformers 5.19 or newer, not 4.57.6" in refused.error


def test_transformers_is_imported_only_when_asked_for():
    code = """
import sys, torch, tomebench
from tomebench.models.create import load_model
from tomebench.sweeps.run import run_sweep
model = load_model("digits_vit").model
tomebench.apply(model, 4)(torch.zeros(1, 3, 56, 56))
assert not [name for name in sys.modules if name.split(".")[0] == "transformers"]
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_zero_shot_from_names_to_top_1(program, tmp_path):
    hf_texts.folder("clip", tmp_path / "clip")
    pictures(tmp_path / "pictures")
    (tmp_path / "names.txt").write_text("".join(f"kind {number}\n" for number in range(7)))
    written = program(
        "embed-classes", "--model", "hf/clip", "--class-names", "names.txt", "--out", "c.safetensors",
        "--template", "a photo of the {} .",
    )  # fmt: skip
    assert written.code == 0, written.err
    assert "7 classes by 1 template" in written.out
    assert "tomebench sweep --model hf/clip --class-head c.safetensors" in " ".join(written.out.split())
    done = program(
        "sweep", "--model", "hf/clip", "--class-head", "c.safetensors", "--data", "pictures", "--r", "0,8", *FAST
    )
    assert done.code == 0, done.err
    base, merged = json.loads(program("report", "run", "--json").out)["rows"]
    assert base["n_seen"] == merged["n_seen"] == 21
    assert base["top1_correct"] == own_count(tmp_path / "clip", tmp_path / "pictures")
    assert " with zero-shot head sha256:" in base["weights"]


def own_count(folder, images):
    """Right answers of transformers' own pipeline: model, tokenizer and image processor."""
    import transformers

    model = transformers.CLIPModel.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    words = tokenizer([f"a photo of the kind {number} ." for number in range(7)], return_tensors="pt", padding=True)
    known = {key: words[key] for key in ("input_ids", "attention_mask")}
    right = 0
    for file in sorted(images.rglob("*.png")):
        pixels = processor(Image.open(file).convert("RGB"), return_tensors="pt")["pixel_values"]
        with torch.no_grad():
            right += int(model(pixel_values=pixels, **known).logits_per_image.argmax()) == int(file.parent.name[-1])
    return right
