"""ReaL labels of ImageNet: for each validation image all classes that annotators saw in it, several or none.

Source: Beyer et al., "Are we done with ImageNet?", 2020. A prediction is right if it is any of them; images without a
label do not count.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tomebench.datasets.classes import NUM_CLASSES
from tomebench.datasets.decode import printable
from tomebench.datasets.files import list_digest
from tomebench.datasets.imagenet import VALIDATION_IMAGES
from tomebench.datasets.truth import file_number
from tomebench.errors import DataError
from tomebench.regular import read_bytes
from tomebench.schema import NO_LABEL, ImageList
from tomebench.words import counted

_MOST = 64 * 2**20


def real_labels(info: ImageList, names: Sequence[str], path: Path) -> tuple[list[int], ImageList]:
    """Replace the labels of a list of validation images by their ReaL labels.

    Args:
        info: the list; its own labels are ignored.
        names: of its images; the number in ``ILSVRC2012_val_00000293`` is that of the image's entry in the file.
        path: ``real.json``, a list of 50 000 lists of class numbers in order of the file numbers.

    Returns:
        Indices of the images that have a label, and their list, with labels int64 [n, k] padded with -1.

    Raises:
        DataError: the file is not that, an image's name does not say its number, no image has a label.
    """
    entries = _read(path)
    numbers = [file_number(name) for name in names]
    unnumbered = [name for name, number in zip(names, numbers, strict=True) if not 1 <= (number or 0) <= len(entries)]
    if unnumbered or info.num_classes != NUM_CLASSES or not names:
        which = f"{printable(unnumbered[0])} is" if unnumbered else f"those of {info.name} are"
        raise DataError(
            f"--real is for images named ILSVRC2012_val_00000001 to {VALIDATION_IMAGES:08d}; {which} not; leave it out"
        )
    found = [entries[number - 1] for number in numbers if number]
    kept = [index for index, labels in enumerate(found) if labels]
    if not kept:
        raise DataError(f"{printable(path)} has no label for any of the {len(names)} images; leave --real out")
    labels = np.full((len(kept), max(len(found[index]) for index in kept)), NO_LABEL, dtype=np.int64)
    for row, index in enumerate(kept):
        labels[row, : len(found[index])] = found[index]
    left_out = len(names) - len(kept)
    note = "ReaL labels" + (f", {counted(left_out, 'image')} without one left out" if left_out else "")
    return kept, replace(
        info,
        digest=list_digest([names[index] for index in kept], labels.tolist()),
        labels=labels,
        note=f"{info.note}; {note}" if info.note else note,
    )


def _read(path: Path) -> list[list[int]]:
    try:
        entries = json.loads(read_bytes(str(path), most=_MOST))
    except OSError as error:
        raise DataError(f"--real {printable(path)}: {error.strerror}; give the file real.json of ReaL") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"--real {printable(path)} is not JSON; give the file real.json of ReaL") from error
    if not isinstance(entries, list) or len(entries) != VALIDATION_IMAGES or not all(map(_are_classes, entries)):
        raise DataError(
            f"--real {printable(path)} is not a list of {VALIDATION_IMAGES} lists of class numbers 0 to "
            f"{NUM_CLASSES - 1}; give the file real.json of ReaL"
        )
    return entries


def _are_classes(entry: Any) -> bool:
    return isinstance(entry, list) and all(type(each) is int and 0 <= each < NUM_CLASSES for each in entry)
