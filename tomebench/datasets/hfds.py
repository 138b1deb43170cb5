"""Reader of Hugging Face data sets (``hfds/NAME``): image lists from the hub or from folders of parquet or images."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tomebench.datasets.classes import (
    ANY_HEAD,
    NUM_CLASSES,
    TO_FIT,
    ClassHead,
    ClassMap,
    class_numbers,
    few,
    imagenet,
    map_classes,
)
from tomebench.datasets.decode import decode_bytes, printable, problem_in
from tomebench.datasets.files import file_stamp, list_digest
from tomebench.datasets.hfds_table import IMAGE, LABEL, inside, open_table, roots
from tomebench.datasets.imagenet import check_named_class, coverage
from tomebench.datasets.pictures import unlabelled
from tomebench.errors import DataError
from tomebench.regular import read_bytes
from tomebench.schema import ImageList
from tomebench.words import counted


@dataclass(frozen=True)
class Rows:
    """Images stored as rows of a Hugging Face table. Picklable: the table is a memory-mapped file."""

    reader: Any  # timm's
    rows: tuple[int, ...]
    names: tuple[str, ...]
    paths: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()
    roots: tuple[str, ...] = ()  # folders in which its files may lie
    files: tuple[str, ...] = ()  # file that a row names instead of holding an image; empty where it holds one
    state: str = ""  # digest of the stamps of the files that the table was made of

    def load(self, index: int) -> tuple[Image.Image, bytes]:
        """Decode one image to RGB, and its bytes; DataError naming it if that fails."""
        try:
            data = self.read(index)
        except OSError as exc:
            raise DataError(f"cannot read image {printable(self.names[index])}: {exc}; fetch it again") from exc
        return decode_bytes(data, self.names[index]), data

    def problem(self, index: int) -> str | None:
        """Name and reason of an image that cannot be read, or None."""
        try:
            reason = problem_in(self.read(index))
        except OSError as exc:
            reason = exc.strerror or str(exc)
        return reason and f"{printable(self.names[index])} ({reason})"

    def stamp(self, index: int) -> bytes:
        """Identity of table and row, and the stamp of the image file where the row only names one.

        A table from the hub is identified by its fingerprint, one from a folder by the state of its files.
        """
        file = self.files[index] if self.files else ""
        table = f"{self.reader.dataset._fingerprint} {self.state} {self.rows[index]} "
        return table.encode() + (file_stamp(file) if file else b"")

    def read(self, index: int) -> bytes:
        """The bytes of the image."""
        image = self.reader.dataset[self.rows[index]][IMAGE] or {}
        if image.get("bytes"):
            return bytes(image["bytes"])
        if not image.get("path"):
            raise OSError("no image in this row")
        if not inside(image["path"], self.roots):
            raise OSError(f"its path {printable(image['path'])} lies outside of the data set")
        return read_bytes(image["path"])


def read_hfds(name: str, head: ClassHead | None = None, *, offline: bool = False) -> tuple[ImageList, Rows]:
    """List the images of a data set's validation split; its test split if there is no other.

    Args:
        name: of a data set on the hub, ``owner/name``; or a folder. It has columns ``image`` and ``label``; the names
            of the labels are class ids (a subset of them keeps its true labels), 1000 classes in the order of the
            sorted class ids (by their names or numbers), or other classes, in the order of the model's list of class
            names or else of their own numbers.
        head: the model's class head; None: any.
        offline: use the local cache only. Code that comes with a data set is never run.

    Returns:
        The list, sorted by class and then by file name as bytes, or by row where files have no names of their own.

    Raises:
        DataError: the library is not installed, or the data set is not there or not labelled as said above.
    """
    split, reader, state = open_table(name, offline=offline)
    import datasets

    features = reader.dataset.features
    if not isinstance(features.get(LABEL), datasets.ClassLabel):
        raise DataError(f"--data hfds/{printable(name)}: its column {LABEL} has no class names; write it as ClassLabel")
    info, rows = _listed(name, split, reader, list(features[LABEL].names), head)
    return info, replace(rows, state=state)


def read_hfds_pictures(name: str, *, offline: bool = False) -> tuple[ImageList, Rows]:
    """List the images of the split that :func:`read_hfds` takes without labels, in the order of the rows.

    Raises:
        DataError: the library is not installed, or the data set is not there or has no images.
    """
    split, reader, state = open_table(name, offline=offline)
    names = tuple(f"{row:08d}" for row in range(len(reader)))
    rows = Rows(reader, tuple(range(len(names))), names, (), (), roots(name), tuple(_named_files(reader)), state)
    info = unlabelled(_shown(name), rows)
    return replace(info, note=f"split {split}; {info.note}"), rows


def _listed(name: str, split: str, reader: Any, own: Sequence[str], head: ClassHead | None) -> tuple[ImageList, Rows]:
    classes, numbers = _numbering(name, own, head)
    stored = reader.dataset.select_columns([LABEL])[:][LABEL]
    unlabelled = sum(label is None or not 0 <= label < len(numbers) for label in stored)
    if unlabelled or not stored:
        what = f"{unlabelled} of {counted(len(stored), 'image')} without a label" if stored else "no images"
        raise DataError(f"--data hfds/{printable(name)}: {what} in its split {split}; give a labelled data set")
    labels = [numbers[label] for label in stored]
    files = _file_names(reader)
    folders = tuple(f"{root}{os.sep}" for root in roots(name))
    for file, label in zip(files, labels, strict=True):
        above = next((folder for folder in folders if file.startswith(folder)), "")
        check_named_class(file.removeprefix(above).replace(os.sep, "/"), label, classes)
    plain = [file.replace("\\", "/").rpartition("/")[2] for file in files]
    if "" in plain or max(Counter(zip(labels, plain, strict=True)).values()) > 1:
        plain = [f"{row:08d}" for row in range(len(labels))]
    order = sorted(range(len(labels)), key=lambda row: (labels[row], plain[row].encode("utf-8", "surrogateescape")))
    ordered = [labels[row] for row in order]
    names = tuple(f"{classes.names[labels[row]]}/{plain[row]}" for row in order)
    more = coverage(ordered, classes=classes)
    info = ImageList(
        name=_shown(name),
        digest=list_digest(names, ordered),
        labels=np.array(ordered, dtype=np.int64),
        num_classes=len(classes.names),
        note=f"split {split}; {more}" if more else f"split {split}",
        class_names=classes.names,
    )
    named = _named_files(reader)
    return info, Rows(reader, tuple(order), names, roots=roots(name), files=tuple(named[row] for row in order))


def _numbering(name: str, classes: Sequence[str], head: ClassHead | None) -> tuple[ClassMap, list[int]]:
    """The model's classes, and the class number of each label of the data set.

    Raises:
        DataError: only some label names are class ids, or they are those of ImageNet-1k in another order, or unknown.
    """
    if head not in (None, ANY_HEAD, TO_FIT) and not _may_be_imagenet(classes, head):
        found = map_classes(f"--data hfds/{name}", classes, head, ordered=True)
        return found, [found.numbers[each] for each in classes]
    known = [class_numbers().get(each) for each in classes]
    ids = [number for number in known if number is not None]
    if ids:
        if len(ids) < len(known):
            unknown = [each for each, number in zip(classes, known, strict=True) if number is None]
            raise DataError(
                f"--data hfds/{printable(name)}: labels {few(unknown)} are no class ids; take them out, "
                "or pass the model's list of names with --class-names"
            )
        return imagenet(), ids
    if len(classes) == NUM_CLASSES:
        from timm.data import ImageNetInfo

        info = ImageNetInfo()
        titles = [info.index_to_description(number) for number in range(NUM_CLASSES)]
        places = {title: number for number, title in enumerate(titles) if titles.count(title) == 1}
        numbered = [str(number) for number in range(NUM_CLASSES)]
        if list(classes) != numbered and sum(title in places for title in classes) < NUM_CLASSES / 2:
            raise DataError(
                f"--data hfds/{printable(name)}: labels {few(classes)} are neither class ids nor classes of "
                "ImageNet-1k, so their order cannot be checked; name them by class ids"
            )
        for number, title in enumerate(classes):
            if places.get(title, number) != number:
                raise DataError(
                    f"--data hfds/{printable(name)}: label {number} is {printable(title)}, which is class "
                    f"{places[title]} of ImageNet-1k; its labels are numbered in another order"
                )
        return imagenet(), list(range(NUM_CLASSES))
    return ClassMap(tuple(classes), "classes in the data set's own order"), list(range(len(classes)))


def _may_be_imagenet(classes: Sequence[str], head: ClassHead) -> bool:
    """Whether the labels of a data set are those of ImageNet-1k for this class head."""
    if len(classes) != NUM_CLASSES and class_numbers().keys().isdisjoint(classes):
        return False
    return head.may_be_imagenet(classes)


def _shown(name: str) -> str:
    """Name of a data set in notes: of a folder its last part, of a data set on the hub all."""
    return printable(name.rstrip("/").rpartition("/")[2] if Path(name).is_dir() else name)


def _file_names(reader: Any) -> list[str]:
    """File name stored with each row's image, empty where there is none; images are not read."""
    import pyarrow.compute

    names = pyarrow.compute.struct_field(reader.dataset.data.column(IMAGE), "path").to_pylist()
    return [name or "" for name in names]


def _named_files(reader: Any) -> list[str]:
    """File that each row names instead of holding an image, else empty; images are not read."""
    import pyarrow.compute

    held = pyarrow.compute.struct_field(reader.dataset.data.column(IMAGE), "bytes").is_valid().to_pylist()
    return ["" if there else file for there, file in zip(held, _file_names(reader), strict=True)]
