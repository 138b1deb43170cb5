"""ImageSet: a data set as an ordered list of labelled images, each of which can be opened; subsets by ``--limit``.

A reader (:mod:`tomebench.datasets.readers`) gives an ``ImageList`` and the stored files
(:mod:`tomebench.datasets.files`); here the two become one ImageSet.
"""

from __future__ import annotations

import functools
import hashlib
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from tomebench.datasets.classes import ANY_HEAD, ClassHead
from tomebench.datasets.decode import printable, reason
from tomebench.datasets.files import Files, bytes_digest
from tomebench.datasets.readers import DIGITS, DIGITS_TRAIN, read_files, read_path
from tomebench.datasets.real import real_labels
from tomebench.errors import DataError
from tomebench.schema import NO_LABEL, ImageList, seeded_order
from tomebench.words import counted


@dataclass(frozen=True)
class ImageSet:
    """Labelled images in a fixed order."""

    info: ImageList
    open: Callable[[int], Image.Image]
    """Index to RGB image; picklable, for worker processes. DataError if the image cannot be decoded."""
    problem: Callable[[int], str | None] | None = None
    """Quick check of one image: its name and why it cannot be read, or None. Absent where nothing can be wrong."""
    stamp: Callable[[int], bytes] | None = None
    """Bytes that change when the file behind an image does (size, time of change). Absent where images never change."""
    read: Callable[[int], bytes] | None = None
    """The stored bytes of an image, not decoded; OSError if that fails. Absent where nothing is stored."""
    load: Callable[[int], tuple[Image.Image, bytes]] | None = None
    """The image as :attr:`open` gives it and the bytes it was decoded from. Absent where nothing is stored."""
    names: tuple[str, ...] = ()
    """Name of every image, as the digest covers it; empty where images have none."""
    paths: tuple[str, ...] = ()
    """Path of every image in the data folder, as in a manifest of checksums."""
    extra: tuple[str, ...] = ()
    """Files that were found among the images and are no images of the set."""
    listed: tuple[str, ...] = ()
    """Paths of all images that were found, when this set has only some of them."""

    def __len__(self) -> int:
        return len(self.info.labels)

    def decoded(self, index: int) -> tuple[Image.Image, str]:
        """Decode one image: (RGB image, digest of its stored bytes, or of its pixels where nothing is stored).

        Raises:
            DataError: it cannot be decoded.
        """
        if self.load is None:
            image = self.open(index)
            return image, bytes_digest(image.tobytes())
        image, data = self.load(index)
        return image, bytes_digest(data)

    def state(self, index: int) -> str:
        """Sixteen hex digits that change when the file behind an image does; empty where images never change."""
        return bytes_digest(self.stamp(index))[:16] if self.stamp else ""

    def digest(self, index: int) -> str:
        """The digest of an image that :meth:`decoded` gives, without decoding stored images.

        Raises:
            DataError: it cannot be read.
        """
        if self.read is None:
            return self.decoded(index)[1]
        try:
            return bytes_digest(self.read(index))
        except OSError as error:
            name = self.names[index] if self.names else str(index)
            raise DataError(f"cannot read image {printable(name)}: {reason(error)}; restore the data") from error

    def only(self, indices: Sequence[int], info: ImageList) -> ImageSet:
        """The subset of images ``indices``, in this order; ``info`` is its list."""
        chosen: Any = tuple(indices)
        picked: dict[str, Any] = {}
        for name in ("open", "problem", "stamp", "read", "load"):
            whole = getattr(self, name)
            picked[name] = whole and _Chosen(whole, chosen)
        for name in ("names", "paths"):
            whole = getattr(self, name)
            picked[name] = tuple(whole[index] for index in chosen) if whole else ()
        return replace(self, info=info, listed=self.listed or self.paths, **picked)


def open_dataset(
    spec: str,
    limit: int | None = None,
    seed: int = 0,
    *,
    head: ClassHead | None = None,
    labels: bool = True,
    real: Path | None = None,
    offline: bool = False,
) -> ImageSet:
    """Open the data set that ``--data`` names.

    Args:
        spec: ``digits`` (embedded, held-out split) or ``digits-train`` (the other digits); a directory, one folder per
            class in it or in its ``val`` or ``validation``; such folders in one tar; the original validation tar of
            ImageNet, or a directory with it; or one of the kinds in :data:`tomebench.datasets.readers.READERS`, such as
            ``wds/PATH``.
        limit: keep this many images, spread evenly over the classes; the note says so. None, or a number that is not
            less than the number of images, keeps all.
        seed: which images a limit keeps.
        head: the model's class head, which gives the order of classes; None: that of ImageNet-1k. Images that it was
            fitted on are left out, and the note says so.
        labels: read the classes of the images; if False, any folder of pictures is a data set.
        real: file of ReaL labels, which replace the data set's own.
        offline: never use the network.

    Raises:
        DataError: no such data set, a layout from which labels cannot be known, a limit below 1.
    """
    if spec in (DIGITS, DIGITS_TRAIN):
        image_set = _open_digits("test" if spec == DIGITS else "train")
        if not labels:
            nothing = np.full(len(image_set), NO_LABEL, dtype=np.int64)
            image_set = replace(image_set, info=replace(image_set.info, labels=nothing, note="labels not looked at"))
    else:
        image_set = _with_files(*read_files(spec, head, labels=labels, offline=offline))
    if real is not None:
        image_set = image_set.only(*real_labels(image_set.info, image_set.names, real))
    if head is not None and head.fitted_on:
        image_set = _others(image_set, head.fitted_on)
    return image_set if limit is None else _limited(image_set, limit, seed)


def open_tolerant(spec: str) -> ImageSet:
    """:func:`open_dataset` with unknown class folders skipped instead of refused, to inspect a data set."""
    return _with_files(*read_path(spec, ANY_HEAD, tolerant=True))


def _open_digits(split: Literal["test", "train"]) -> ImageSet:
    from tomebench.datasets.digits import evaluation  # reads the embedded digits: only when they are asked for

    return ImageSet(evaluation.image_list(split), functools.partial(evaluation.open_image, split=split))


def _with_files(info: ImageList, files: Files) -> ImageSet:
    return ImageSet(
        info,
        _Opened(files.load),
        files.problem,
        files.stamp,
        files.read,
        files.load,
        files.names,
        files.paths or files.names,
        files.extra,
    )


@dataclass(frozen=True)
class _Opened:
    """``load`` without the bytes: index to RGB image. Picklable."""

    load: Callable[[int], tuple[Image.Image, bytes]]

    def __call__(self, index: int) -> Image.Image:
        return self.load(index)[0]


@dataclass(frozen=True)
class _Chosen:
    """A function of the index in a subset, made of the same function for the full set. Picklable."""

    of_whole: Callable[[int], object]
    indices: tuple[int, ...]

    def __call__(self, index: int) -> object:
        return self.of_whole(self.indices[index])


def _others(image_set: ImageSet, fitted_on: Collection[str]) -> ImageSet:
    """Leave out, by their content, the images that a class head was fitted on."""
    rest = _unknown(image_set, fitted_on)
    info, left_out = image_set.info, len(image_set) - len(rest)
    if not left_out:
        return image_set
    if not rest:
        raise DataError(
            f"the class head was fitted on all of {counted(left_out, 'image')}; give other images, or fit it on fewer "
            "with tomebench fit-head --limit"
        )
    digest = hashlib.sha256(f"{info.digest}:{','.join(map(str, rest))}".encode()).hexdigest()
    note = f"without {left_out} of {counted(len(image_set), 'image')}, on which the class head was fitted"
    return image_set.only(rest, sublist(info, rest, digest, note))


def _unknown(image_set: ImageSet, fitted_on: Collection[str]) -> list[int]:
    """Indices of the images whose digest is not among ``fitted_on``; kept as long as no file changes."""

    def fitted(index: int) -> bool:
        try:
            return image_set.digest(index) in fitted_on
        except DataError:  # what cannot be read is reported where images are checked
            return False

    states = hashlib.sha256(" ".join(map(image_set.state, range(len(image_set)))).encode()).hexdigest()
    key = (image_set.info.digest, states, frozenset(fitted_on))
    if key not in _READ:
        with ThreadPoolExecutor(_THREADS) as pool:  # waits for the disk most of the time
            known = list(pool.map(fitted, range(len(image_set))))
        _READ[key] = [index for index, found in enumerate(known) if not found]
    return _READ[key]


_READ: dict[tuple[str, str, frozenset[str]], list[int]] = {}
_THREADS = 16


def _limited(image_set: ImageSet, limit: int, seed: int) -> ImageSet:
    if limit < 1:
        raise DataError(f"--limit {limit}: nothing would be evaluated; give 1 or more images")
    info = image_set.info
    if limit >= len(image_set):
        return image_set
    classes = info.labels if info.labels.ndim == 1 else info.labels[:, 0]
    chosen = stratified(classes.tolist(), limit, seed)
    digest = hashlib.sha256(f"{info.digest}:{','.join(map(str, chosen))}".encode()).hexdigest()
    note = f"subset: {limit} of {counted(len(image_set), 'image')}, seed {seed}"
    return image_set.only(chosen, sublist(info, chosen, digest, note))


def in_random_order(image_set: ImageSet, seed: int) -> ImageSet:
    """The same images in an order that hashes of the seed decide, so that the first of them are a sample of all.

    Args:
        image_set: in any order.
        seed: another seed, another order.
    """
    order = seeded_order(range(len(image_set)), seed, "order")
    info = image_set.info
    digest = hashlib.sha256(f"{info.digest}:order {seed}".encode()).hexdigest()
    return image_set.only(order, sublist(info, order, digest, f"in random order, seed {seed}"))


def sublist(info: ImageList, indices: Sequence[int], digest: str, note: str) -> ImageList:
    """The list of some of the images, with a further note."""
    labels = np.ascontiguousarray(info.labels[list(indices)])
    return replace(info, digest=digest, labels=labels, note=f"{info.note}; {note}" if info.note else note)


def stratified(labels: Sequence[int], limit: int, seed: int) -> tuple[int, ...]:
    """Choose images evenly over the classes: no class has two more than another that still has some left.

    Hashes decide, not a random number generator, so that the choice is the same with every library version. The choice
    of a smaller limit is a subset of that of a larger one.

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
    turns = [  # every class gives one image a turn; the limit may fall in the middle of the last turn
        (turn, draw("class", label), index)
        for label, members in classes.items()
        for turn, index in enumerate(sorted(members, key=lambda i: draw("image", i)))
    ]
    return tuple(sorted(index for _, _, index in sorted(turns)[:limit]))
