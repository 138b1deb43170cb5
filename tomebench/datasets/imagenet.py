"""ImageNet in class folders, always with its true labels.

A folder's label is the position of its name among the 1000 sorted class ids that ship with the package, never its
position among the folders that happen to be there: a missing class shifts nothing.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tomebench.datasets.decode import printable
from tomebench.datasets.files import ImageFiles, list_digest
from tomebench.errors import DataError
from tomebench.schema import ImageList

NUM_CLASSES = 1000
VALIDATION_IMAGES = 50_000
PARTS = ("val", "validation")
_EXTENSIONS = frozenset({".jpeg", ".jpg", ".png", ".webp", ".bmp", ".ppm", ".pgm", ".tif", ".tiff"})
LAYOUT = "n01440764/*.JPEG, n01443537/*.JPEG, ..."
_WNID = re.compile(r"(?<![0-9A-Za-z])n\d{8}(?!\d)")


@functools.cache
def wnids() -> tuple[str, ...]:
    """The 1000 class ids (WordNet ids) of ImageNet-1k, sorted; a class's number is its position here."""
    return tuple(Path(__file__).with_name("imagenet_wnids.txt").read_text(encoding="ascii").split())


@functools.cache
def class_numbers() -> dict[str, int]:
    """Class id to class number, in [0, 1000)."""
    return {wnid: number for number, wnid in enumerate(wnids())}


def read_class_folders(root: Path, *, tolerant: bool = False) -> tuple[ImageList, ImageFiles]:
    """List the images of a folder that holds one folder per class, or whose ``val`` or ``validation`` does.

    Args:
        root: the folder. Names that start with a dot are skipped; so are files that are no images, which the list's
            note counts.
        tolerant: skip unknown class folders as well, instead of refusing them.

    Returns:
        The list, sorted by class id and then by file name as bytes, with labels in [0, 1000), and its files.

    Raises:
        DataError: no such folder, unknown or numbered class folders, images without a class folder, no images.
    """
    found = find_classes(str(root), list_folder, tolerant=tolerant)
    files = ImageFiles(found.folder, tuple(found.names), extra=tuple(found.extra))
    return found.image_list(data_name(root)), files


@dataclass(frozen=True)
class Listing:
    """What is in one folder, each kind sorted by name as bytes."""

    folders: list[str]
    images: list[str]
    others: list[str]


@dataclass(frozen=True)
class ClassFolders:
    """Images found in class folders, sorted by class id and then by name as bytes."""

    folder: str  # that holds the class folders
    names: list[str]  # relative to it
    labels: list[int]
    empty: list[str]  # class folders without images
    extra: list[str]  # files and folders that are no images of the set

    def image_list(self, name: str) -> ImageList:
        """The list of these images, under a name."""
        return ImageList(
            name=name,
            digest=list_digest(self.names, self.labels),
            labels=np.array(self.labels, dtype=np.int64),
            num_classes=NUM_CLASSES,
            note=coverage(self.labels, len(self.empty), len(self.extra)),
        )


def find_classes(root: str, look: Callable[[str], Listing], *, tolerant: bool = False) -> ClassFolders:
    """Find class folders and the images in them, wherever folders can be listed.

    Args:
        root: the folder that holds the class folders, or whose ``val`` or ``validation`` does.
        look: lists the folder of a path that begins with ``root``; DataError if it is none.
        tolerant: skip unknown class folders instead of refusing them.

    Raises:
        DataError: no class folders, unknown ones, no images.
    """
    folder, listing = _class_root(root, look)
    numbers = class_numbers()
    unknown = [name for name in listing.folders if name not in numbers]
    if unknown and not tolerant:
        raise DataError(f"{printable(folder)}: {_some(unknown, 'folder')} not ImageNet-1k class ids; move them out")
    found = ClassFolders(folder, [], [], [], [f"{name}/" for name in unknown] + listing.images + listing.others)
    for wnid in listing.folders:
        if wnid not in numbers:
            continue
        inside = look(f"{folder}/{wnid}")
        found.names.extend(f"{wnid}/{name}" for name in inside.images)
        found.labels.extend([numbers[wnid]] * len(inside.images))
        found.empty.extend([wnid] * (not inside.images))
        found.extra.extend(f"{wnid}/{name}" for name in [*inside.others, *(f"{name}/" for name in inside.folders)])
    if not found.names:
        raise DataError(f"{printable(folder)}: the class folders hold no images; expected {LAYOUT}")
    return found


def is_image_name(name: str) -> bool:
    """Whether a file is meant to be an image, by its extension."""
    return os.path.splitext(name)[1].lower() in _EXTENSIONS  # noqa: PTH122 (50 000 Paths are slow)


def sorted_listing(folders: Iterable[str], files: Iterable[str]) -> Listing:
    """The listing of a folder with these folders and files in it, names that begin with a dot left out."""
    images: list[str] = []
    others: list[str] = []
    for name in files:
        if not name.startswith("."):
            (images if is_image_name(name) else others).append(name)
    shown = (name for name in folders if not name.startswith("."))
    return Listing(*(sorted(names, key=os.fsencode) for names in (shown, images, others)))


def list_folder(folder: str) -> Listing:
    """What is in a folder on disk.

    Raises:
        DataError: there is none, or it cannot be read.
    """
    folders: list[str] = []
    files: list[str] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                (folders if entry.is_dir() else files).append(entry.name)
    except FileNotFoundError:
        raise DataError(f"{printable(folder)}: no such folder; give a folder with {LAYOUT}") from None
    except NotADirectoryError:
        raise DataError(f"{printable(folder)} is a file; give the folder that holds {LAYOUT}") from None
    except OSError as exc:
        raise DataError(f"{printable(folder)}: {exc.strerror}; make the folder readable") from exc
    return sorted_listing(folders, files)


def _class_root(root: str, look: Callable[[str], Listing]) -> tuple[str, Listing]:
    """The folder that holds the class folders: the root itself or its validation part."""
    listing = look(root)
    parts = [f"{root}/{part}" for part in PARTS if part in listing.folders]
    found = [(root, listing)] + [(part, look(part)) for part in parts]
    for folder, inside in found:
        if not class_numbers().keys().isdisjoint(inside.folders):
            return folder, inside
    raise DataError(_complaint(*found[min(1, len(found) - 1)]))


def _complaint(folder: str, listing: Listing) -> str:
    """What is wrong with a folder that has no class folders, and how to mend it."""
    where = printable(folder)
    if listing.folders and all(name.isdecimal() for name in listing.folders):
        return (
            f"{where}: numbered class folders ({few(listing.folders)}) are ambiguous, some tools sort them as text; "
            "rename each to its class id (0 is n01440764, line 1 of tomebench/datasets/imagenet_wnids.txt); "
            "if this is ImageNetV2, whose folders are class numbers: --data imagenetv2/PATH"
        )
    if listing.images:
        count = f"{len(listing.images)} image" + "s" * (len(listing.images) != 1)
        return f"{where}: {count} in one flat folder have no labels; sort them into class folders ({LAYOUT})"
    if listing.folders:
        return f"{where}: {_some(listing.folders, 'folder')} not ImageNet-1k class ids; expected {LAYOUT}"
    return f"{where}: no images and no class folders; expected {LAYOUT}"


def _some(names: Sequence[str], noun: str) -> str:
    """``2 folders (cat, dog) are``."""
    return f"{len(names)} {noun}{'s' * (len(names) != 1)} ({few(names)}) {'is' if len(names) == 1 else 'are'}"


def few(names: Sequence[str], shown: int = 3) -> str:
    """The first few names, printable, in one line."""
    return ", ".join(map(printable, names[:shown])) + (", ..." if len(names) > shown else "")


def data_name(root: Path) -> str:
    """The folder's own name; for a validation part with the name of the data set before it."""
    path = Path(os.path.abspath(root))  # noqa: PTH100 (no symlink resolved: the name the user knows)
    return printable("/".join(path.parts[-2:]) if path.name in PARTS else path.name)


def coverage(labels: Sequence[int], empty: int = 0, ignored: int = 0, expected: int | None = None) -> str | None:
    """How a set differs from the whole one; None if it does not.

    Args:
        labels: class number of every image.
        empty: class folders without images.
        ignored: files that are no images.
        expected: images of the whole set; by default those of the validation set of ImageNet-1k.
    """
    classes, images, parts = len(set(labels)), len(labels), []
    if classes < NUM_CLASSES:
        parts.append(f"partial: {classes} of {NUM_CLASSES} classes, {images} images")
    elif images != (VALIDATION_IMAGES if expected is None else expected):
        parts.append(f"{classes} classes, {images} images")
    if empty:
        parts.append(f"{empty} empty class folders" if empty > 1 else "1 empty class folder")
    if ignored:
        parts.append(f"{ignored} other files ignored" if ignored > 1 else "1 other file ignored")
    return "; ".join(parts) or None


def check_named_class(name: str, label: int) -> None:
    """Refuse a label that a class id in the image's own name contradicts: labels are shifted or mixed up.

    Args:
        name: of the image, with its folders.
        label: its class number.

    Raises:
        DataError: the name holds the id of another class.
    """
    for wnid in _WNID.findall(name):
        if class_numbers().get(wnid, label) != label:
            raise DataError(
                f"{printable(name)}: its name says class {class_numbers()[wnid]} ({wnid}), its label says {label} "
                f"({wnids()[label]}); the labels belong to other images or are numbered in another order"
            )
