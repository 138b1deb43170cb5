"""Likeness of merged features to unmerged ones: against a plain computation over all patches, and its limits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tomebench.backbones.apply import apply
from tomebench.datasets.images import open_dataset
from tomebench.errors import ConfigError, Interrupted
from tomebench.models.create import load_model
from tomebench.models.preprocess import Preprocessing
from tomebench.sweeps.config_files import load_config
from tomebench.sweeps.features import FeaturesReport, LinearCKA, run_features

SETTINGS = {"model": "digits_vit", "data": "digits", "limit": 20, "device": "cpu", "workers": 0}


def report(stop: bool = False, **settings: Any) -> FeaturesReport:
    """A report, without its events."""
    events = run_features(load_config([], {**SETTINGS, **settings}), lambda: stop)
    while True:
        try:
            next(events)
        except StopIteration as end:
            return end.value


def plain_cka(x: Tensor, y: Tensor) -> float:
    """Linear CKA by the matrices of all pairs of rows, in float64."""
    x, y = x.double() - x.double().mean(dim=0), y.double() - y.double().mean(dim=0)
    k, m = x @ x.t(), y @ y.t()
    return float((k * m).sum() / (k.norm() * m.norm()))


def test_sums_by_batch_are_the_cka_of_all_rows() -> None:
    generator = torch.Generator().manual_seed(0)
    x = 50 + torch.randn(90, 7, generator=generator)
    y = x @ torch.randn(7, 7, generator=generator) + torch.randn(90, 7, generator=generator)
    found = LinearCKA()
    for part in (slice(0, 40), slice(40, 90)):
        found.add(x[part], y[part])
    assert found.value() == pytest.approx(plain_cka(x, y), abs=1e-5)
    assert 0.1 < plain_cka(x, y) < 0.95
    turned = LinearCKA()
    turned.add(x, 3 * x @ torch.linalg.qr(torch.randn(7, 7, generator=generator))[0])
    assert turned.value() == pytest.approx(1, abs=1e-5)
    still = LinearCKA()
    still.add(x, torch.ones_like(x))
    assert still.value() is None


def test_every_place_is_what_a_plain_loop_finds() -> None:
    found = report(r="8", batch_size=8)
    loaded, images = load_model("digits_vit"), open_dataset("digits", 20, labels=False)
    preprocessing = Preprocessing.from_model(loaded.model)
    transform = preprocessing.transform()
    pixels = preprocessing.normalise(torch.stack([transform(images.open(index)) for index in range(20)]))
    merged, whole = apply(loaded.model, 8), apply(loaded.model, 0)
    prefix = merged.backbone.prefix
    with torch.inference_mode():
        states, expected = [*merged.states(pixels)], [*whole.states(pixels)]
        ends = [model.forward_features(pixels, unmerge=True) for model in (whole, merged)]
    (cell,) = found.cells
    assert len(cell.places) == merged.backbone.depth + 1
    assert [place.where for place in cell.places[-2:]] == [f"block {merged.backbone.depth}", "end"]
    assert [place.tokens for place in cell.places[:-1]] == merged.token_counts
    for place, (tokens, source), (x, _) in zip(cell.places, states[1:], expected[1:], strict=False):
        y = torch.stack([each[index] for each, index in zip(tokens.x, source, strict=True)])
        check(place, x.x[:, prefix:], y[:, prefix:])
    check(cell.end, *(each[:, prefix:] for each in ends))
    with torch.inference_mode():
        pooled = [model.forward_head(model.forward_features(pixels), pre_logits=True) for model in (whole, merged)]
    assert cell.pooled_cosine == pytest.approx(float(F.cosine_similarity(*pooled).mean()), abs=1e-6)
    assert cell.end.cosine < 0.999
    assert found.n_images == 20


def check(place: Any, x: Tensor, y: Tensor) -> None:
    cosines = F.cosine_similarity(x, y, dim=-1).mean(dim=1)
    assert place.cosine == pytest.approx(float(cosines.mean()), abs=1e-6)
    assert place.cka == pytest.approx(plain_cka(x.flatten(0, 1), y.flatten(0, 1)), abs=1e-4)
    half = 2.093 * float(cosines.std()) / 20**0.5  # Student's t of 19 degrees of freedom
    assert place.cosine_lo == pytest.approx(float(cosines.mean()) - half, abs=1e-4)


def test_more_merging_is_less_like_and_dropping_less_still() -> None:
    cells = {(cell.method, cell.r): cell for cell in report(r="4,16", method="tome,tome-drop").cells}
    assert cells["tome", 4].end.cosine > cells["tome", 16].end.cosine > cells["tome-drop", 16].end.cosine
    share = cells["tome-drop", 16].end.tokens / report(r="4").patches
    assert cells["tome-drop", 16].end.cosine < share + 0.05  # what was dropped counts as 0


def test_no_interval_of_five_pictures_and_none_without_variation() -> None:
    (cell,) = report(r="8", limit=5).cells
    assert cell.end.cosine_lo is None
    assert cell.end.cka is not None


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"data": None, "limit": None, "workers": None}, "features are those of pictures; add --data FOLDER"),
        ({"compile": True}, "drop --compile"),
        ({"prefix_only": True}, "drop --prefix-only"),
        ({"r": "0"}, "r = 0 is what is compared with; give --r another value"),
    ],
)
def test_what_does_not_go(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        report(**{"r": "8", **settings})


def test_sums_that_take_too_much_memory_are_refused(monkeypatch: Any) -> None:
    monkeypatch.setattr("tomebench.sweeps.features._MOST_BYTES", 3 * 8 * 2 * 9 * 64**2 - 1)
    with pytest.raises(ConfigError, match="the sums of 2 cells take 0 GiB; give --r fewer values"):
        report(r="4,8")
    assert len(report(r="4").cells) == 1


def test_a_model_that_pools_nothing_has_no_pooled_cosine(monkeypatch: Any) -> None:
    loaded: Any = load_model("digits_vit")
    loaded.model.reset_classifier(0, "")
    monkeypatch.setattr("tomebench.sweeps.features.load_model", lambda *_, **__: loaded)
    (cell,) = report(r="8").cells
    assert cell.pooled_cosine is None
    assert 0 < cell.end.cosine < 1


def test_it_stops_between_batches() -> None:
    with pytest.raises(Interrupted):
        report(stop=True, r="8")


def test_an_encoder_over_a_folder_of_pictures_without_labels(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    pytest.importorskip("transformers")
    import numpy as np
    from backbones.hf_models import build
    from hf_folders import save
    from PIL import Image

    from tomebench.cli import app

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    save(build("dinov3"), tmp_path / "dino", "floats")
    (tmp_path / "album").mkdir()
    random = np.random.default_rng(0)
    for number in range(7):
        Image.fromarray(random.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(tmp_path / f"album/{number}.png")
    command = ["features", "--model", "hf/dino", "--data", "album", "--device", "cpu", "--workers", "0", "--quiet"]
    assert app.run([*command, "--r", "4,12", "--details"]) == 0
    shown = capsys.readouterr().out
    assert "tome r=12" in shown
    assert "block 3" in shown
    assert "64 patches of each of 7 images of album" in " ".join(shown.split())
    assert app.run([*command, "--r", "0,4,12", "--json"]) == 0
    cells = json.loads(capsys.readouterr().out)["cells"]
    assert [cell["r"] for cell in cells] == [4, 12]
    assert 1 > cells[0]["places"][-1]["cosine"] > cells[1]["places"][-1]["cosine"] > 0
