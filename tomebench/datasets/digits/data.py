"""The 1797 UCI optical digits as published, and their fixed split into training and held-out digits.

Source: the test part of "Optical Recognition of Handwritten Digits", E. Alpaydin and C. Kaynak, UCI Machine Learning
Repository, 1998, doi 10.24432/C50P49, CC BY 4.0 (LICENSE, beside this file). The split is by hash, so that it depends
on no random number generator: within each class the digits are ordered by the sha256 of their cells, and the first
third is held out. The same 13 people wrote both parts (who wrote which digit is not published).
"""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

NUM_CLASSES = 10
GRID = 8
"""Height and width of a digit, in cells."""
INK_MAX = 16
"""The darkest cell: all 4 x 4 pixels of the scan are ink."""

Split = Literal["train", "test"]
_FILE = Path(__file__).with_name("digits.npz")


@functools.cache
def load_digits() -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """All digits, in the order of the published file.

    Returns:
        Cells, uint8 [1797, 8, 8] with values 0 to 16, and labels, int64 [1797]. Both are read-only.
    """
    with np.load(_FILE) as archive:
        cells, labels = archive["cells"].reshape(-1, GRID, GRID), archive["labels"].astype(np.int64)
    cells.flags.writeable = labels.flags.writeable = False
    return cells, labels


@functools.cache
def split_indices(split: Split) -> npt.NDArray[np.int64]:
    """Which digits belong to a split: positions in :func:`load_digits`, ordered by class, then by hash.

    Args:
        split: ``train`` (two thirds of each class) or ``test`` (the held-out third).
    """
    cells, labels = load_digits()
    digests = [hashlib.sha256(digit.tobytes()).digest() for digit in cells]
    chosen: list[int] = []
    for label in range(NUM_CLASSES):
        members = sorted(np.flatnonzero(labels == label).tolist(), key=lambda i: (digests[i], i))
        held_out = round(len(members) / 3)
        chosen += members[:held_out] if split == "test" else members[held_out:]
    indices = np.array(chosen, dtype=np.int64)
    indices.flags.writeable = False
    return indices
