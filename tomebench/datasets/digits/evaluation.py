"""The evaluation set ``digits``: every held-out digit, drawn once with a fixed seed; ``digits-train``: the others."""

from __future__ import annotations

import hashlib

from PIL import Image

from tomebench.datasets.digits.data import NUM_CLASSES, Split, load_digits, split_indices
from tomebench.datasets.digits.render import EVALUATION_CLUTTER, EVALUATION_SEED, render
from tomebench.schema import ImageList

NAME = "digits"
TRAINING = "digits-train"
"""Name of the training digits, drawn once as those that are held out: for training what is small."""
_DRAWING = 1
"""Version of the rendering: raise it when the same digits and seed give other images, so that digests differ."""
_SEEDS = {"test": EVALUATION_SEED, "train": EVALUATION_SEED + 1}


def image_list(split: Split = "test") -> ImageList:
    """The held-out or the training digits in order. The digest covers labels, cells, seed and clutter."""
    cells, labels = load_digits()
    indices, name = split_indices(split), NAME if split == "test" else TRAINING
    about = f"{name} drawing {_DRAWING} seed {_SEEDS[split]} clutter {EVALUATION_CLUTTER}"
    digest = hashlib.sha256(about.encode())
    for index in indices:
        digest.update(bytes([labels[index]]) + cells[index].tobytes())
    return ImageList(name, digest.hexdigest(), labels[indices], NUM_CLASSES)


def open_image(index: int, split: Split = "test") -> Image.Image:
    """Image ``index`` of :func:`image_list`: RGB, 56 x 56 pixels. Works in any process.

    Raises:
        IndexError: no such image.
    """
    if not 0 <= index < len(split_indices(split)):
        raise IndexError(f"image {index} of {len(split_indices(split))}")
    return render(index, split, _SEEDS[split])
