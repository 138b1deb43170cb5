"""The real DeiT-Tiny as a model of transformers, on real photographs: pixels, outputs and top-1, image for image.

Needs ``../shared/realdata`` beside the checkout.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hf_folders import deit_tiny, put_processor

import tomebench
from tomebench.backbones.apply import apply
from tomebench.datasets.images import open_dataset
from tomebench.models.create import load_model

REALDATA = Path(__file__).parents[3] / "shared" / "realdata"
WEIGHTS, PICTURES = REALDATA / "deit_tiny_patch16_224.safetensors", REALDATA / "imagenet-val-300"

pytestmark = [
    pytest.mark.realdata,
    pytest.mark.skipif(not WEIGHTS.exists(), reason="needs ../shared/realdata beside the checkout"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("transformers")
    return deit_tiny(WEIGHTS, tmp_path_factory.mktemp("hf") / "deit")


@pytest.mark.parametrize("processor", ["ViTImageProcessor", "CLIPImageProcessor", "DINOv3ViTImageProcessor"])
def test_pixels_of_photographs_are_those_of_the_processor(folder: Path, processor: str, tmp_path: Path) -> None:
    from transformers import AutoImageProcessor

    crop = {"size": {"shortest_edge": 256}, "crop_size": {"height": 224, "width": 224}, "do_center_crop": True}
    size = crop if processor == "CLIPImageProcessor" else {"size": {"height": 224, "width": 224}}
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    put_processor(tmp_path, {"image_processor_type": processor, "resample": 3, **size})
    own = AutoImageProcessor.from_pretrained(tmp_path)
    preprocessing = load_model(f"hf/{tmp_path}").model.preprocessing
    images = open_dataset(str(PICTURES), limit=60)
    for index in range(len(images)):
        image = images.open(index)
        expected = own(image, return_tensors="pt")["pixel_values"][0]
        assert torch.equal(preprocessing.normalise(preprocessing.transform()(image)[None])[0], expected)


@pytest.mark.filterwarnings("ignore:.* would not show a loss to be within")
def test_answers_are_those_of_transformers_image_for_image(folder: Path, tmp_path: Path) -> None:
    from transformers import AutoImageProcessor, ViTForImageClassification

    rows = tomebench.sweep(
        f"hf/{folder}", [0, 8], out=tmp_path / "hf", data=str(PICTURES), budget="none", batch_size=20, workers=0
    )
    model = ViTForImageClassification.from_pretrained(folder, attn_implementation="sdpa").eval()
    processor, images = AutoImageProcessor.from_pretrained(folder), open_dataset(str(PICTURES))
    right, equal = 0, True
    merged = apply(load_model(f"hf/{folder}").model, 0)
    for first in range(0, len(images), 20):
        members = range(first, min(first + 20, len(images)))
        pixels = processor([images.open(index) for index in members], return_tensors="pt")["pixel_values"]
        with torch.no_grad():
            logits = model(pixels).logits
            equal &= torch.equal(merged(pixels), logits)
        right += int((logits.argmax(dim=1) == torch.from_numpy(images.info.labels[members.start : members.stop])).sum())
    assert equal
    assert rows[0].top1_correct == right
    timm: Any = tomebench.sweep(
        "deit_ti_16", [0, 8], checkpoint=WEIGHTS, out=tmp_path / "timm", data=str(PICTURES), budget="none",
        batch_size=20, workers=0,
    )  # fmt: skip
    for one, other in zip(rows, timm, strict=True):  # the same weights; other pixels
        assert abs(one.top1_correct - other.top1_correct) <= 6
        assert one.gmacs == other.gmacs
        assert one.tokens == other.tokens
