"""Tokens left without padding: the mean over images evaluated, for methods whose number depends on the image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hurry import hurry

from tomebench.backbones.apply import apply
from tomebench.datasets.images import open_dataset
from tomebench.models.create import load_model
from tomebench.models.preprocess import Preprocessing
from tomebench.runs.row import TOKENS_LEFT, Row
from tomebench.runs.store import Store
from tomebench.sweeps import tokens_left
from tomebench.sweeps.cells import resolve_sweep
from tomebench.sweeps.config_files import load_config
from tomebench.sweeps.events import Finished
from tomebench.sweeps.run import run_sweep


def sweep(directory: Path, **settings: Any) -> list[Row]:
    asked = {
        "model": "digits_vit",
        "method": ["ats", "topk"],
        "r": "0,8",
        "device": "cpu",
        "batch_size": 10,
        **settings,
    }
    *_, last = run_sweep(load_config([], {"budget": "none", "workers": 0, **asked}), directory, lambda: False)
    assert isinstance(last, Finished)
    return list(last.rows)


def test_is_the_mean_over_the_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base, ats, topk = sweep(tmp_path, data="digits", limit=44)
    assert [row.method for row in (ats, topk)] == ["ats", "topk"]
    images, model = open_dataset("digits", limit=44), load_model("digits_vit").model
    preprocessing = Preprocessing.from_model(model)
    transform = preprocessing.transform()
    pixels = preprocessing.normalise(torch.stack([transform(images.open(index)) for index in range(44)]))
    left = apply(model, 8, method="ats").tokens_left(pixels)
    assert ats.tokens_out_mean == left.sum().item() / 44
    assert 1 < ats.tokens_out_mean < ats.tokens_out == topk.tokens_out
    assert (ats.padded, "PADDED" in ats.warnings) == (True, True)
    assert ats.gmacs == topk.gmacs, "what is computed is computed on padding too"
    assert [row.attn_kernel.endswith("+bias") for row in (base, ats, topk)] == [False, True, False], "the bias masks"
    for row in (base, topk):
        assert (row.tokens_out_mean, row.padded, "PADDED" in row.warnings) == (None, False, False)
    monkeypatch.setattr(tokens_left, "IMAGES", 20)
    with Store.read(tmp_path) as store:
        (mean,) = store.get(TOKENS_LEFT).values()
    grown = sweep(tmp_path, data="digits", limit=44, r="0,4,8")
    assert [row.tokens_out_mean for row in grown if row.r == 8] == [mean, None]
    some = apply(model, 4, method="ats").tokens_left(torch.cat([pixels[:10], pixels[20:30]]))  # batches 0 and 2 of 5
    assert [row.tokens_out_mean for row in grown if row.r == 4] == [some.sum().item() / 20, None]


def test_what_keeps_every_patch_has_no_padding() -> None:
    """r = 0, or an r that --prefix-only leaves nothing to do; the first method listed is that of the baseline."""
    asked = {"model": "digits_vit", "method": "ats", "prefix_only": True, "device": "cpu"}
    cells = resolve_sweep(load_config([], {**asked, "r": "0,8"}))
    assert [cell.resolved.padded for cell in cells] == [False, True]
    last = resolve_sweep(load_config([], {**asked, "schedule": "list:0,0,0,0,0,0,0,8"}))
    assert [cell.resolved.padded for cell in last] == [False, False]


def test_without_images_it_is_not_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hurry(monkeypatch)
    _, ats, _ = sweep(tmp_path, budget="quick")
    assert ats.padded
    assert ats.tokens_out_mean is None
    assert ats.speedup_vs_r0 is not None
