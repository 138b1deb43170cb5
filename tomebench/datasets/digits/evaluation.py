"""The evaluation set ``digits``: every held-out digit, drawn once with a fixed seed."""

from __future__ import annotations

import hashlib

from PIL import Image

from tomebench.datasets.digits.data import NUM_CLASSES, load_digits, split_indices
from tomebench.datasets.digits.render import EVALUATION_CLUTTER, EVALUATION_SEED, render
from tomebench.schema import ImageList

NAME = "digits"
_DRAWING = 1
"""Version of the rendering: raise it when the same digits and seed give other images, so that digests differ."""


def image_list() -> ImageList:
    """The held-out digits in order. The digest covers labels, cells, seed and clutter."""
    cells, labels = load_digits()
    indices = split_indices("test")
    digest = hashlib.sha256(f"{NAME} drawing {_DRAWING} seed {EVALUATION_SEED} clutter {EVALUATION_CLUTTER}".encode())
    for index in indices:
        digest.update(bytes([labels[index]]) + cells[index].tobytes())
    return ImageList(NAME, digest.hexdigest(), labels[indices], NUM_CLASSES)


def open_image(index: int) -> Image.Image:
    """Image ``index`` of :func:`image_list`: RGB, 56 x 56 pixels. Works in any process.

    Raises:
        IndexError: no such image.
    """
    if not 0 <= index < len(split_indices("test")):
        raise IndexError(f"image {index} of {len(split_indices('test'))}")
    return render(index, "test", EVALUATION_SEED)
