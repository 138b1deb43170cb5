"""Data sets as the rest of the package sees them: an ordered list of labelled images, and a way to open each.

:func:`open_dataset` is the one place that knows which readers exist. A reader gives an ``ImageList`` and a picklable
function from index to RGB image; a further format is a further reader beside ``imagenet.py`` and a line here.
"""

from __future__ import annotations

import difflib
import hashlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from tomebench.datasets.decode import printable
from tomebench.datasets.imagenet import read_class_folders
from tomebench.errors import DataError
from tomebench.schema import ImageList

DIGITS = "digits"
_OTHER_SCHEMES = ("hfds", "hfids", "wds", "tfds", "torch")
"""Prefixes of data sets that timm's tools know and that have no reader here."""
_SHOWN = 3


@dataclass(frozen=True)
class ImageSet:
    """Labelled images in a fixed order."""

    info: ImageList
    open: Callable[[int], Image.Image]
    """Index to RGB image; picklable, so that worker processes can call it. DataError if the image cannot be decoded."""
    problem: Callable[[int], str | None] | None = None
    """Cheap look at one image: its name and why it cannot be read, or None. Absent where nothing can be wrong."""
    stamp: Callable[[int], bytes] | None = None
    """Bytes that change when the file behind an image does (size, time of change). Absent where images never change."""

    def __len__(self) -> int:
        return len(self.info.labels)


def open_dataset(spec: str, limit: int | None = None, seed: int = 0) -> ImageSet:
    """Open a data set by what ``--data`` says.

    Args:
        spec: ``digits`` (embedded, held-out split), or a directory: one folder per ImageNet class id in it or in its
            ``val`` or ``validation``.
        limit: keep this many images, spread evenly over the classes; the note says so. None, or a number that is not
            less than the number of images, keeps all.
        seed: which images a limit keeps.

    Raises:
        DataError: no such data set, a layout that does not give true labels, a limit below 1.
    """
    image_set = _open_digits() if spec == DIGITS else _open_folder(spec)
    return image_set if limit is None else _limited(image_set, limit, seed)


def check_readable(image_set: ImageSet) -> None:
    """Find unreadable images before any time is spent on the others.

    Raises:
        DataError: names the first few, with reasons, and counts all.
    """
    if image_set.problem is None:
        return
    problems = [found for index in range(len(image_set)) if (found := image_set.problem(index))]
    if problems:
        listed = ", ".join(problems[:_SHOWN]) + (", ..." if len(problems) > _SHOWN else "")
        raise DataError(
            f"{len(problems)} of {len(image_set)} images in {image_set.info.name} cannot be read: {listed}; "
            "replace them or take them out"
        )


def _open_digits() -> ImageSet:
    from tomebench.datasets.digits import evaluation  # reads the embedded digits: only when they are asked for

    return ImageSet(evaluation.image_list(), evaluation.open_image)


def _open_folder(spec: str) -> ImageSet:
    path = Path(spec).expanduser()
    if not path.exists():
        shown = repr(printable(spec))
        if "://" in spec or spec.startswith(tuple(f"{s}{mark}" for s in _OTHER_SCHEMES for mark in "/:")):
            raise DataError(f"--data {shown}: no reader for this kind of data set; give a folder of class folders")
        if difflib.get_close_matches(spec, [DIGITS]):
            raise DataError(f"--data {shown}: no such folder; did you mean {DIGITS}?")
        raise DataError(f"--data {shown}: no such folder; give a folder of ImageNet class folders, or {DIGITS}")
    info, files = read_class_folders(path)
    return ImageSet(info, files.open, files.problem, files.stamp)


@dataclass(frozen=True)
class _Chosen:
    """A function of the index in a subset, from the same function of the index in the whole set. Picklable."""

    of_whole: Callable[[int], object]
    indices: tuple[int, ...]

    def __call__(self, index: int) -> object:
        return self.of_whole(self.indices[index])


def _limited(image_set: ImageSet, limit: int, seed: int) -> ImageSet:
    if limit < 1:
        raise DataError(f"--limit {limit}: nothing would be evaluated; give 1 or more images")
    info = image_set.info
    if limit >= len(image_set):
        return image_set
    chosen = stratified(info.labels.tolist(), limit, seed)
    note = f"subset: {limit} of {len(image_set)} images, seed {seed}"
    return ImageSet(
        replace(
            info,
            digest=hashlib.sha256(f"{info.digest}:{','.join(map(str, chosen))}".encode()).hexdigest(),
            labels=np.ascontiguousarray(info.labels[list(chosen)]),
            note=f"{info.note}; {note}" if info.note else note,
        ),
        _Chosen(image_set.open, chosen),  # type: ignore[arg-type]
        image_set.problem and _Chosen(image_set.problem, chosen),  # type: ignore[arg-type]
        image_set.stamp and _Chosen(image_set.stamp, chosen),  # type: ignore[arg-type]
    )


def stratified(labels: Sequence[int], limit: int, seed: int) -> tuple[int, ...]:
    """Choose images so that no class has two more than another that still has some left.

    Hashes decide, not a random number generator, so the choice is the same with every library version; and a smaller
    limit chooses among the images of a larger one.

    Args:
        labels: class of every image.
        limit: how many to choose, in [0, len(labels)].
        seed: another seed, another choice.

    Returns:
        Indices in increasing order.
    """

    def draw(kind: str, number: int) -> bytes:
        return hashlib.sha256(f"{seed}/{kind}/{number}".encode()).digest()

    classes: defaultdict[int, list[int]] = defaultdict(list)
    for index, label in enumerate(labels):
        classes[label].append(index)
    turns = [  # every class gives one image a turn; who comes last in a turn may be cut off
        (turn, draw("class", label), index)
        for label, members in classes.items()
        for turn, index in enumerate(sorted(members, key=lambda i: draw("image", i)))
    ]
    return tuple(sorted(index for _, _, index in sorted(turns)[:limit]))
