"""Preprocessing of ``hf/`` models has the pixels of their own image processors, to the last bit."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

transformers = pytest.importorskip("transformers")

from hf_folders import PROCESSORS, put_processor  # noqa: E402

from tomebench.datasets.cache import PixelCache  # noqa: E402
from tomebench.models.hf_pixels import HFPreprocessing, read_preprocessing  # noqa: E402

MORE = {
    "mean of 0.5": {
        "image_processor_type": "SiglipImageProcessor", "size": {"height": 32, "width": 32}, "resample": 3,
        "image_mean": [0.5] * 3, "image_std": [0.5] * 3,
    },
    "older name": {"feature_extractor_type": "ViTFeatureExtractor", "size": 32, "resample": 2},
    "fast": {"image_processor_type": "ViTImageProcessorFast", "size": {"height": 32, "width": 32}, "resample": 3},
    "squash and crop": {
        "image_processor_type": "DeiTImageProcessor", "size": {"height": 40, "width": 40},
        "crop_size": {"height": 32, "width": 32}, "do_center_crop": True, "resample": 3,
    },
    "crop that pads": {
        "image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 30},
        "crop_size": {"height": 36, "width": 36}, "do_center_crop": True, "resample": 3,
    },
    "bytes as they are": {
        "image_processor_type": "ViTImageProcessor", "size": {"height": 32, "width": 32}, "do_normalize": False,
    },
    "numbers for all channels": {
        "image_processor_type": "ViTImageProcessor", "size": {"height": 32, "width": 32}, "image_mean": 0.4,
        "image_std": 0.3,
    },
    "another factor": {
        "image_processor_type": "BeitImageProcessor", "size": {"height": 32, "width": 32}, "rescale_factor": 1 / 127.5,
        "do_center_crop": False,
    },
}  # fmt: skip


def stated(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "preprocessor_config.json").read_text())
    return found


def pictures() -> list[Image.Image]:
    random = np.random.default_rng(0)
    shapes = ((32, 32), (45, 61), (97, 40), (300, 211), (20, 18))
    return [Image.fromarray(random.integers(0, 256, (*shape, 3), dtype=np.uint8)) for shape in shapes]


def pixels_of(preprocessing: HFPreprocessing, image: Image.Image) -> torch.Tensor:
    return preprocessing.normalise(preprocessing.transform()(image)[None])[0]


@pytest.mark.parametrize("name", [*PROCESSORS, *MORE])
def test_pixels_are_those_of_the_processor(name: str, tmp_path: Path) -> None:
    put_processor(tmp_path, {**PROCESSORS, **MORE}[name])
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path)
    preprocessing = pickle.loads(pickle.dumps(read_preprocessing("hf/x", stated(tmp_path))))
    for image in pictures():
        expected = processor(image, return_tensors="pt")["pixel_values"][0]
        got = pixels_of(preprocessing, image)
        assert got.dtype == torch.float32
        assert torch.equal(got, expected.float())
        assert got.shape == preprocessing.input_size
    whole = torch.stack([preprocessing.transform()(image) for image in pictures()])
    expected = processor(pictures(), return_tensors="pt")["pixel_values"]
    assert torch.equal(preprocessing.normalise(whole), expected.float())


def test_what_a_row_says_of_it(tmp_path: Path) -> None:
    put_processor(tmp_path, PROCESSORS["crop"])
    found = read_preprocessing("hf/x", stated(tmp_path))
    assert (found.crop_pct, found.crop_mode, found.interpolation) == (32 / 36, "center", "bicubic")
    assert found.mean == (0.485, 0.456, 0.406)
    put_processor(tmp_path, PROCESSORS["squash"])
    found = read_preprocessing("hf/x", stated(tmp_path))
    assert (found.crop_pct, found.crop_mode, found.interpolation) == (1.0, "squash", "bilinear")


@pytest.mark.parametrize("name", PROCESSORS)
def test_at_another_size_resize_and_crop_grow_alike(name: str, tmp_path: Path) -> None:
    put_processor(tmp_path, PROCESSORS[name])
    own, larger = read_preprocessing("hf/x", stated(tmp_path)), read_preprocessing("hf/x", stated(tmp_path), size=64)
    assert larger.input_size == (3, 64, 64)
    assert larger.crop_pct == own.crop_pct
    assert read_preprocessing("hf/x", stated(tmp_path), size=32) == own


def test_floats_are_cached_as_floats(tmp_path: Path) -> None:
    put_processor(tmp_path, PROCESSORS["floats"])
    preprocessing = read_preprocessing("hf/x", stated(tmp_path))
    assert preprocessing.pixel_type == "float32"
    pixels = preprocessing.transform()(pictures()[1])
    cache = PixelCache.open(tmp_path, "few", {"a": 1}, 3, preprocessing.input_size, preprocessing.pixel_type)
    cache.put(1, "file", "ab" * 16, pixels)
    found = cache.get(1, "file")
    assert found is not None
    assert torch.equal(found[0], pixels)
    assert found[1] == "ab" * 16
