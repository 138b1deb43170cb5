"""ImageNet in class folders, always with its true labels.

A folder's label is the position of its name among the 1000 sorted class ids that ship with the package, never its
position among the folders that happen to be there: a missing class shifts nothing.
"""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from tomebench.datasets.decode import decode_rgb, printable, problem
from tomebench.errors import DataError
from tomebench.schema import ImageList

NUM_CLASSES = 1000
VALIDATION_IMAGES = 50_000
_PARTS = ("val", "validation")
_EXTENSIONS = frozenset({".jpeg", ".jpg", ".png", ".webp", ".bmp", ".ppm", ".pgm", ".tif", ".tiff"})
_LAYOUT = "n01440764/*.JPEG, n01443537/*.JPEG, ..."
_SHOWN = 3


@dataclass(frozen=True)
class ImageFiles:
    """The files behind an image list, in its order. Picklable."""

    folder: str
    names: tuple[str, ...]  # relative to the folder: "n01440764/ILSVRC2012_val_00000293.JPEG"

    def open(self, index: int) -> Image.Image:
        """Decode one image to RGB; DataError naming the file if that fails."""
        return decode_rgb(self._path(index))

    def problem(self, index: int) -> str | None:
        """Name and reason of a file that cannot be read, or None; see :func:`tomebench.datasets.decode.problem`."""
        reason = problem(self._path(index))
        return reason and f"{printable(self.names[index])} ({reason})"

    def stamp(self, index: int) -> bytes:
        """Size and time of change of a file; empty if it is gone."""
        try:
            found = os.stat(self._path(index))  # noqa: PTH116 (a Path for every image is slow)
        except OSError:
            return b""
        return b"%d %d" % (found.st_size, found.st_mtime_ns)

    def _path(self, index: int) -> str:
        return f"{self.folder}/{self.names[index]}"


@functools.cache
def wnids() -> tuple[str, ...]:
    """The 1000 class ids (WordNet ids) of ImageNet-1k, sorted; a class's number is its position here."""
    return tuple(Path(__file__).with_name("imagenet_wnids.txt").read_text(encoding="ascii").split())


def read_class_folders(root: Path) -> tuple[ImageList, ImageFiles]:
    """List the images of a folder that holds one folder per class, or whose ``val`` or ``validation`` does.

    Args:
        root: the folder. Names that start with a dot are skipped; so are files that are no images, which the list's
            note counts.

    Returns:
        The list, sorted by class id and then by file name as bytes, with labels in [0, 1000), and its files.

    Raises:
        DataError: no such folder, unknown or numbered class folders, images without a class folder, no images.
    """
    folder, listing = _class_root(root)
    numbers = {wnid: number for number, wnid in enumerate(wnids())}
    unknown = [name for name in listing.folders if name not in numbers]
    if unknown:
        raise DataError(f"{printable(folder)}: {_some(unknown, 'folder')} not ImageNet-1k class ids; move them out")
    names: list[str] = []
    labels: list[int] = []
    empty, ignored = 0, listing.others + len(listing.images)
    for wnid in listing.folders:
        inside = _list(folder / wnid)
        names += (f"{wnid}/{name}" for name in inside.images)
        labels += [numbers[wnid]] * len(inside.images)
        empty += not inside.images
        ignored += inside.others + len(inside.folders)
    if not names:
        raise DataError(f"{printable(folder)}: the class folders hold no images; expected {_LAYOUT}")
    info = ImageList(
        name=_name(root),
        digest=_digest(names, labels),
        labels=np.array(labels, dtype=np.int64),
        num_classes=NUM_CLASSES,
        note=_note(len(listing.folders) - empty, len(names), empty, ignored),
    )
    return info, ImageFiles(str(folder), tuple(names))


@dataclass(frozen=True)
class _Listing:
    """What is in one folder, each kind sorted by name as bytes."""

    folders: list[str]
    images: list[str]
    others: int


def _list(folder: Path) -> _Listing:
    folders, images, others = [], [], 0
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir():
                    folders.append(entry.name)
                elif os.path.splitext(entry.name)[1].lower() in _EXTENSIONS:  # noqa: PTH122 (50 000 Paths are slow)
                    images.append(entry.name)
                else:
                    others += 1
    except FileNotFoundError:
        raise DataError(f"{printable(folder)}: no such folder; give a folder with {_LAYOUT}") from None
    except NotADirectoryError:
        raise DataError(f"{printable(folder)} is a file; give the folder that holds {_LAYOUT}") from None
    except OSError as exc:
        raise DataError(f"{printable(folder)}: {exc.strerror}; make the folder readable") from exc
    return _Listing(sorted(folders, key=os.fsencode), sorted(images, key=os.fsencode), others)


def _class_root(root: Path) -> tuple[Path, _Listing]:
    """The folder that holds the class folders: the root itself or its validation part."""
    listing = _list(root)
    found = [(root, listing)] + [(root / part, _list(root / part)) for part in _PARTS if part in listing.folders]
    known = frozenset(wnids())
    for folder, inside in found:
        if not known.isdisjoint(inside.folders):
            return folder, inside
    raise DataError(_complaint(*found[min(1, len(found) - 1)]))


def _complaint(folder: Path, listing: _Listing) -> str:
    """What is wrong with a folder that has no class folders, and how to mend it."""
    where = printable(folder)
    if listing.folders and all(name.isdecimal() for name in listing.folders):
        return (
            f"{where}: numbered class folders ({_few(listing.folders)}) are ambiguous, some tools sort them as text; "
            "rename each to its class id (0 is n01440764, line 1 of tomebench/datasets/imagenet_wnids.txt)"
        )
    if listing.images:
        count = f"{len(listing.images)} image" + "s" * (len(listing.images) != 1)
        return f"{where}: {count} in one flat folder have no labels; sort them into class folders ({_LAYOUT})"
    if listing.folders:
        return f"{where}: {_some(listing.folders, 'folder')} not ImageNet-1k class ids; expected {_LAYOUT}"
    return f"{where}: no images and no class folders; expected {_LAYOUT}"


def _some(names: Sequence[str], noun: str) -> str:
    """``2 folders (cat, dog) are``."""
    return f"{len(names)} {noun}{'s' * (len(names) != 1)} ({_few(names)}) {'is' if len(names) == 1 else 'are'}"


def _few(names: Sequence[str]) -> str:
    return ", ".join(map(printable, names[:_SHOWN])) + (", ..." if len(names) > _SHOWN else "")


def _name(root: Path) -> str:
    """The folder's own name; for a validation part with the name of the data set before it."""
    path = Path(os.path.abspath(root))  # noqa: PTH100 (no symlink resolved: the name the user knows)
    return printable("/".join(path.parts[-2:]) if path.name in _PARTS else path.name)


def _note(classes: int, images: int, empty: int, ignored: int) -> str | None:
    parts = []
    if classes < NUM_CLASSES:
        parts.append(f"partial: {classes} of {NUM_CLASSES} classes, {images} images")
    elif images != VALIDATION_IMAGES:
        parts.append(f"{classes} classes, {images} images")
    if empty:
        parts.append(f"{empty} empty class folders" if empty > 1 else "1 empty class folder")
    if ignored:
        parts.append(f"{ignored} other files ignored" if ignored > 1 else "1 other file ignored")
    return "; ".join(parts) or None


def _digest(names: Iterable[str], labels: Iterable[int]) -> str:
    """The sha256 over names and labels in order; neither can hold the NUL that separates them."""
    digest = hashlib.sha256()
    for name, label in zip(names, labels, strict=True):
        digest.update(os.fsencode(name) + b"\0%d\0" % label)
    return digest.hexdigest()
