"""Data for sweeps of ``test_vit``: JPEGs of noise in class folders, and weights that were drawn once."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors.torch import save_file

from tomebench.datasets.imagenet import wnids
from tomebench.models.create import build_model


def write_data(root: Path, classes: Iterable[int], *, pixels: int = 16, size: int = 64) -> list[str]:
    """Write one image for each entry of ``classes``, and weights; returns the flags that name both.

    Args:
        root: images go to its folder ``images``, the weights beside it.
        classes: class number of every image.
        pixels: height and width of the noise, which is scaled up to ``size``.
        size: height and width of the images.
    """
    for i, number in enumerate(classes):
        folder = root / "images" / wnids()[number]
        folder.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(i).integers(0, 256, (pixels, pixels, 3), dtype=np.uint8)
        Image.fromarray(noise).resize((size, size)).save(folder / f"{i:05}.JPEG")
    save_file(build_model("test_vit", seed=3).model.state_dict(), root / "weights.safetensors")
    return ["--checkpoint", str(root / "weights.safetensors"), "--data", str(root / "images")]
