"""Sweeps over sets with several labels, files left out and checksums: what is counted, and what is refused."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hurry import hurry
from PIL import Image

from tomebench.datasets.imagenet import wnids
from tomebench.errors import ConfigError, DataError, RunError
from tomebench.gate.snapshot import run_snapshot
from tomebench.models.create import build_model
from tomebench.runs.row import Row
from tomebench.runs.rows import build_rows
from tomebench.runs.store import Store
from tomebench.sweeps.config import SweepConfig
from tomebench.sweeps.config_files import load_config
from tomebench.sweeps.events import Finished
from tomebench.sweeps.run import run_sweep

IMAGES = 10


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Ten numbered images in two classes."""
    for number in range(1, IMAGES + 1):
        folder = tmp_path / "set" / wnids()[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (24, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((60, 60)).save(folder / f"ILSVRC2012_val_{number:08d}.JPEG")
    return tmp_path / "set"


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """Random weights for test_vit that tell images apart."""
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(5)
    shapes = build_model("test_vit", seed=3).model.state_dict()
    save_file(
        {name: torch.randn(t.shape, generator=generator) * 0.3 for name, t in shapes.items()},
        tmp_path / "weights.safetensors",
    )
    return tmp_path / "weights.safetensors"


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    hurry(monkeypatch)


def config(**settings: object) -> SweepConfig:
    defaults = {"model": "test_vit", "r": "0,8", "device": "cpu", "batch_size": 4, "budget": "quick", "workers": 0}
    return load_config([], {**defaults, **settings})


def sweep(directory: Path, **settings: object) -> list[Row]:
    *_, last = run_sweep(config(**settings), directory, lambda: False)
    assert isinstance(last, Finished)
    return list(last.rows)


def test_several_labels_are_counted_stored_and_gated(tmp_path, images, checkpoint):
    given = {"data": str(images), "checkpoint": checkpoint}
    sweep(tmp_path / "plain", **given)
    with Store.read(tmp_path / "plain") as store:
        top1 = store.predictions()[store.cells()[0][0].key].top1.tolist()
        assert store.images().labels.tolist() == [0] * 5 + [1] * 5
    # The order is by class: numbers 2, 4, ..., 10, then 1, 3, ..., 9.
    entries = [[500]] * 50_000
    for place, number in enumerate((2, 4, 6, 8, 10, 1, 3, 5, 7, 9)):
        right, wrong = int(top1[place]), (int(top1[place]) + 1) % 1000
        entries[number - 1] = [[], [wrong], [wrong, right], [right]][place % 4]
    (tmp_path / "real.json").write_text(json.dumps(entries))
    rows = sweep(tmp_path / "real", **given, real=tmp_path / "real.json")
    assert rows[0].n_seen == 7  # places 0, 4 and 8 have no label
    assert rows[0].top1_correct == 4  # places 2, 3, 6 and 7
    assert rows[0].dataset == "set (partial: 2 of 1000 classes, 10 images; ReaL labels, 3 images without one left out)"
    with Store.read(tmp_path / "real") as store:
        assert store.images().labels.shape == (7, 2)
        assert build_rows(store) == rows
        assert run_snapshot(store).cells[0].accuracy.values().tolist() == [False, True, True, False, True, True, False]
    assert sweep(tmp_path / "real", **given, real=tmp_path / "real.json") == rows
    with pytest.raises(RunError, match="other settings"):
        sweep(tmp_path / "real", **given)


def test_files_left_out_are_said_in_every_row(tmp_path, images, checkpoint):
    given = {"data": str(images), "checkpoint": checkpoint}
    broken = images / wnids()[0] / "ILSVRC2012_val_00000004.JPEG"
    data = broken.read_bytes()
    broken.write_bytes(data[:20] + b"\0" * (len(data) - 40) + data[-20:])
    with pytest.raises(DataError) as caught:
        sweep(tmp_path / "run", **given)
    assert str(caught.value).startswith(f"cannot read image {broken}: ")
    assert str(caught.value).endswith("; replace it, or take it out with --allow-missing and a new --out")
    rows = sweep(tmp_path / "new", **given, allow_missing=1)
    assert rows[0].n_seen == 9
    assert rows[0].dataset == "set (partial: 2 of 1000 classes, 10 images; without 1 unreadable file, 9 images)"
    broken.unlink()
    again = sweep(tmp_path / "gone", **given)
    assert again[0].dataset_digest == rows[0].dataset_digest
    assert again[0].protocol == rows[0].protocol  # the same images: comparable
    assert again[0].top1_correct == rows[0].top1_correct


def test_checksums_are_compared_before_anything_is_measured(tmp_path, images):
    paths = sorted(images.glob("*/*"))
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(images)}\n" for path in paths]
    (tmp_path / "sums").write_text("".join(lines[1:]))
    with pytest.raises(DataError, match=r"1 not listed: .*; replace them, or move those not listed out$"):
        sweep(tmp_path / "run", data=str(images), verify=tmp_path / "sums")
    assert not (tmp_path / "run").exists()
    (tmp_path / "sums").write_text("".join(lines))
    assert config(data=str(images), verify=tmp_path / "sums").stored() == config(data=str(images)).stored()


@pytest.mark.parametrize("name", ["real", "allow_missing", "verify"])
def test_flags_about_images_need_some(name):
    flag = name.replace("_", "-")
    with pytest.raises(ConfigError) as caught:
        config(**{name: 2 if name == "allow_missing" else Path("x")})
    assert str(caught.value) == f"{flag} is about images, but there are none; add --data, or drop --{flag}"


def test_a_negative_number_of_files():
    with pytest.raises(ConfigError, match="must be 0 or more"):
        config(data="digits", allow_missing=-1)
