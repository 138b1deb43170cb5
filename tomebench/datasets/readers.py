"""Registry of data set readers by ``--data KIND/PATH``. An entry is data; its code is imported when it is used.

To add a kind:

1. Write ``tomebench/datasets/NAME.py`` with a function from a path and a model's head to the list of the images and the
   files behind it (:mod:`tomebench.datasets.files`).
2. Add an entry to ``READERS``.
3. Compare its list with that of the same images in class folders, as ``tests/datasets/test_readers.py`` does.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from tomebench.datasets.classes import ANY_HEAD, ClassHead, class_numbers
from tomebench.datasets.decode import printable
from tomebench.datasets.files import Files, user_path
from tomebench.datasets.imagenet import PARTS, read_class_folders
from tomebench.datasets.imagenet_tar import ORIGINAL, read_imagenet_tar
from tomebench.datasets.pictures import read_pictures, unlabelled
from tomebench.datasets.truth import check_truth
from tomebench.entries import by_name
from tomebench.errors import DataError
from tomebench.schema import ImageList

DIGITS, DIGITS_TRAIN = "digits", "digits-train"
"""The embedded data sets."""
_OTHER_SCHEMES = ("hfids", "tfds", "torch")
"""Prefixes of data sets that timm's tools accept and that have no reader here."""


@dataclass(frozen=True)
class Reader:
    """Reader of a kind of data set: ``--data KIND/PATH``, import path, description in ``tomebench list datasets``."""

    form: str  # KIND/PATH, as --data says it
    target: str  # "module:function": (existing path, class head; None: of ImageNet-1k) -> (list, files)
    doc: str
    pictures: str = ""  # "module:function" for --no-labels: path -> (list, files); empty: target, labels taken off
    by_name: bool = False  # what follows KIND/ is the name of a data set and no path; "offline" is passed on

    @property
    def kind(self) -> str:
        """KIND: the part before the first slash."""
        return self.form.partition("/")[0]

    def read(self, where: Path | str, head: ClassHead | None, **more: Any) -> tuple[ImageList, Files]:
        """List a labelled data set.

        Raises:
            DataError: it cannot be read.
        """
        return _function(self.target)(where, head, **more)

    def read_unlabelled(self, where: Path | str, **more: Any) -> tuple[ImageList, Files]:
        """List the images of a data set without their labels.

        Raises:
            DataError: it cannot be read.
        """
        if self.pictures:
            return _function(self.pictures)(where, **more)
        info, files = self.read(where, ANY_HEAD, **more)
        return unlabelled(info.name, files), files


_ROOM = "tomebench.datasets"
READERS: Mapping[str, Reader] = by_name(
    (
        Reader(
            "wds/PATH",
            f"{_ROOM}.wds:read_wds",
            "WebDataset shards: a folder of .tar files, or one, with KEY.jpg and KEY.cls",
            pictures=f"{_ROOM}.pictures:read_shards",
        ),
        Reader(
            "hfds/NAME",
            f"{_ROOM}.hfds:read_hfds",
            "a Hugging Face data set, on the hub or in a folder; needs tomebench[hf]",
            pictures=f"{_ROOM}.hfds:read_hfds_pictures",
            by_name=True,
        ),
        Reader(
            "imagenetv2/DIR",
            f"{_ROOM}.imagenetv2:read_imagenetv2",
            "ImageNetV2: folders 0 to 999 that are class numbers",
            pictures=f"{_ROOM}.pictures:read_pictures",
        ),
    ),
    lambda reader: reader.kind,
)


def read_files(spec: str, head: ClassHead | None, *, labels: bool, offline: bool) -> tuple[ImageList, Files]:
    """List the images of any data set but the embedded one.

    Args:
        spec: value of ``--data``.
        head: the model's class head; None: one for ImageNet-1k.
        labels: read the classes of the images; if False, any folder of pictures is a data set.
        offline: never use the network.

    Raises:
        DataError: no such data set, or a layout from which labels cannot be known.
    """
    reader = _reader(spec)
    if reader is not None and reader.by_name:
        name = spec.removeprefix(f"{reader.kind}/")
        return reader.read(name, head, offline=offline) if labels else reader.read_unlabelled(name, offline=offline)
    if labels:
        return read_path(spec, head)
    path = _existing(spec)
    return read_pictures(path) if reader is None else reader.read_unlabelled(path)


def read_path(spec: str, head: ClassHead | None = None, *, tolerant: bool = False) -> tuple[ImageList, Files]:
    """List the images of a data set on disk.

    Args:
        spec: value of ``--data``.
        head: the model's class head; None: one for ImageNet-1k.
        tolerant: skip unknown class folders instead of refusing them.

    Raises:
        DataError: it is not there, or cannot be read as the kind that ``spec`` says.
    """
    path = _existing(spec)
    if (reader := _reader(spec)) is not None and not reader.by_name:
        return reader.read(path, head)
    info: ImageList
    files: Files
    tar = path if path.is_file() else _original_tar(path)
    if tar is None:
        info, files = read_class_folders(path, head, tolerant=tolerant)
    else:
        info, files = read_imagenet_tar(tar, head, tolerant=tolerant)
    labels = info.labels.tolist()
    if all(
        class_numbers().get(name.partition("/")[0]) == label for name, label in zip(files.names, labels, strict=True)
    ):
        check_truth(files.names, labels, path if tar is None else tar.parent)
    return info, files


def _reader(spec: str) -> Reader | None:
    """The reader of a ``--data`` that names a kind; None for a plain folder or tar."""
    kind, slash, _ = spec.partition("/")
    return READERS.get(kind) if slash else None


def _function(target: str) -> Callable[..., tuple[ImageList, Files]]:
    module, _, name = target.partition(":")
    try:
        found: Callable[..., tuple[ImageList, Files]] = getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise DataError(f"the reader {target} cannot be imported: {error}") from error
    return found


def _existing(spec: str) -> Path:
    """The path in a ``--data``.

    Raises:
        DataError: there is nothing at it.
    """
    if (reader := _reader(spec)) is not None and not reader.by_name:
        inside = user_path(spec.removeprefix(f"{reader.kind}/"))
        if not inside.exists():
            raise DataError(f"--data {printable(spec)!r}: there is no {printable(inside)}; give {reader.kind}/PATH")
        return inside
    path = user_path(spec)
    if not path.exists():
        raise DataError(f"--data {printable(spec)!r}: {_nothing_there(spec)}")
    return path


def _original_tar(path: Path) -> Path | None:
    """ImageNet's original validation tar in a folder without class folders, or in its validation part; else None."""
    for folder in (path, *(path / part for part in PARTS)):
        if (folder / ORIGINAL).is_file() and not any((folder / wnid).is_dir() for wnid in class_numbers()):
            return folder / ORIGINAL
    return None


def _nothing_there(spec: str) -> str:
    """Error text for a path that does not exist: why it is no data set, and what to give instead."""
    if "://" in spec or spec.startswith(tuple(f"{s}{mark}" for s in (*_OTHER_SCHEMES, "hfds", "wds") for mark in "/:")):
        return "no reader for this kind of data set; give a folder of class folders, a tar, wds/PATH or hfds/NAME"
    parent = user_path(spec).absolute().parent
    beside = [entry.name for entry in parent.iterdir() if entry.is_dir()] if parent.is_dir() else []
    near = difflib.get_close_matches(spec, [DIGITS, DIGITS_TRAIN], 1) or [
        printable(str(Path(spec).with_name(name))) for name in difflib.get_close_matches(Path(spec).name, beside, 1)
    ]
    if near:
        return f"no such folder; did you mean {near[0]}?"
    return f"no such folder; give one with a folder of images for each class, or {DIGITS}"
