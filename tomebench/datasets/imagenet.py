"""Reader of images in class folders, of ImageNet or of own classes, with labels that a missing folder cannot shift.

The label of a folder that is named by an ImageNet class id is the position of its name among the 1000 sorted class ids
in the package, never its position among the folders that are there. For other classes
:mod:`tomebench.datasets.classes` gives the order.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tomebench.datasets.classes import (
    ANY_HEAD,
    NUM_CLASSES,
    ClassHead,
    ClassMap,
    class_numbers,
    few,
    imagenet,
    map_classes,
    wnids,
)
from tomebench.datasets.decode import printable
from tomebench.datasets.files import ImageFiles, list_digest
from tomebench.datasets.listing import LAYOUT, Listing, all_inside, check_distinct, list_folder
from tomebench.errors import DataError
from tomebench.schema import ImageList
from tomebench.words import are, counted

VALIDATION_IMAGES = 50_000
PARTS = ("val", "validation")
_SPLITS = (*PARTS, "valid", "eval", "test", "testing", "train", "training")
"""Folder names that mean parts of a data set where a folder holds nothing else, the best to evaluate first."""
_WNID = re.compile(r"(?<![0-9A-Za-z])n[0-9]{8}(?![0-9])")


def read_class_folders(
    root: Path, head: ClassHead | None = None, *, tolerant: bool = False
) -> tuple[ImageList, ImageFiles]:
    """List the images of a folder that holds one folder per class, or whose ``val`` or ``validation`` does.

    Args:
        root: the folder. Names that start with a dot are skipped; so are files that are no images, which the list's
            note counts.
        head: the model's class head; None: one for ImageNet-1k.
        tolerant: skip unknown class folders as well, instead of refusing them.

    Returns:
        The list, sorted by class number and then by file name as bytes, and its files.

    Raises:
        DataError: no such folder, unknown or numbered class folders, images without a class folder, no images.
    """
    found = find_classes(str(root), list_folder, head, tolerant=tolerant)
    check_distinct(found.folder, found.names)
    files = ImageFiles(found.folder, tuple(found.names), extra=tuple(found.extra))
    return found.image_list(data_name(Path(found.folder))), files  # named after the part that was read


@dataclass(frozen=True)
class ClassFolders:
    """Images found in class folders, sorted by class number and then by name as bytes."""

    folder: str  # that holds the class folders
    names: list[str]  # relative to it
    labels: list[int]
    empty: list[str]  # class folders without images
    extra: list[str]  # files and folders that are no images of the set
    classes: ClassMap = field(default_factory=imagenet)

    def image_list(self, name: str) -> ImageList:
        """Make the image list, under a name.

        Raises:
            DataError: the file name of an image holds the id of another class.
        """
        for image, label in zip(self.names, self.labels, strict=True):
            check_named_class(image, label, self.classes)
        return ImageList(
            name=name,
            digest=list_digest(self.names, self.labels),
            labels=np.array(self.labels, dtype=np.int64),
            num_classes=len(self.classes.names),
            note=coverage(self.labels, len(self.empty), len(self.extra), classes=self.classes),
            class_names=self.classes.names,
        )


def find_classes(
    root: str, look: Callable[[str], Listing], head: ClassHead | None = None, *, tolerant: bool = False
) -> ClassFolders:
    """Find class folders and the images in them, on disk or in a tar.

    Args:
        root: the folder that holds the class folders, or whose ``val`` or ``validation`` does.
        look: lists the folder at a path that begins with ``root``; DataError if it is none.
        head: the model's class head; None: one for ImageNet-1k.
        tolerant: skip unknown class folders instead of refusing them.

    Raises:
        DataError: no class folders, unknown ones, no images.
    """
    folder, listing = _class_root(root, look, head)
    classes = map_classes(folder, listing.folders, head)
    unknown = [name for name in listing.folders if name not in classes.numbers]
    if unknown and not tolerant:
        mostly = len(unknown) > len(listing.folders) / 2  # then own classes, a few of which are named by class ids
        way = "move them out" + (", or pass the model's list of names with --class-names" if mostly else "")
        raise DataError(f"{printable(folder)}: {_some(unknown, 'folder')} not ImageNet-1k class ids; {way}")
    extra = [f"{name}/" for name in unknown] + listing.images + listing.others
    found = ClassFolders(folder, [], [], [], extra, classes)
    for name in sorted((name for name in listing.folders if name in classes.numbers), key=classes.numbers.__getitem__):
        images, others = all_inside(f"{folder}/{name}", look)
        found.names.extend(f"{name}/{file}" for file in images)
        found.labels.extend([classes.numbers[name]] * len(images))
        found.empty.extend([name] * (not images))
        found.extra.extend(f"{name}/{other}" for other in others)
    if not found.names:
        layout = LAYOUT if classes.is_imagenet else f"{printable(listing.folders[0])}/*.jpg, ..."
        raise DataError(
            f"{printable(folder)}: the class folders hold no images ({few(listing.folders)}); expected {layout}"
        )
    if found.empty and classes.by_position:
        raise DataError(
            f"{printable(folder)}: class {_some(found.empty, 'folder')} empty, which in some tools shifts the classes "
            "after it; put its images there, or pass the model's list with --class-names"
        )
    return found


def _class_root(root: str, look: Callable[[str], Listing], head: ClassHead | None) -> tuple[str, Listing]:
    """Find the folder that holds the class folders: the root itself or its validation part."""
    listing = look(root)
    parts = [f"{root}/{part}" for part in PARTS if part in listing.folders]
    found = [(root, listing)] + [(part, look(part)) for part in parts]
    with_ids = [(folder, inside) for folder, inside in found if not class_numbers().keys().isdisjoint(inside.folders)]
    if len(with_ids) > 1 and with_ids[0][0] != root:
        both = " and ".join(folder.rpartition("/")[2] for folder, _ in with_ids)
        raise DataError(
            f"{printable(root)} holds {both}, each with class folders; say which: --data {printable(with_ids[0][0])}"
        )
    if with_ids:
        return with_ids[0]
    shown, inside = found[min(1, len(found) - 1)]
    if head is None or not any(listed.folders for _, listed in found):
        raise DataError(_complaint(shown, inside))
    others = not {*listing.folders} <= {*_SPLITS}
    if others and not _holds_parts(root, listing, look, head):
        shown, inside = found[0]  # own classes, of which one may be called like a part, such as "test"
    elif others or len(parts) != 1:
        best = next(part for part in _SPLITS if part in listing.folders)
        raise DataError(
            f"{printable(root)} holds {few(listing.folders, 6)}; give the part to evaluate: --data "
            f"{printable(f'{root}/{best}')}"
        )
    if head.num_classes > 1 and len(inside.folders) == 1 and not inside.images:
        only = f"{shown}/{inside.folders[0]}"
        deeper = look(only)
        if len(deeper.folders) > 1 and not deeper.images:
            raise DataError(
                f"{printable(shown)} holds one folder, with {counted(len(deeper.folders), 'folder')} in it "
                f"({few(deeper.folders)}); if those are the classes, give --data {printable(only)}"
            )
    unnamed = head in (ClassHead(NUM_CLASSES), ANY_HEAD)
    if unnamed and inside.folders and all(name.isdecimal() for name in inside.folders):
        raise DataError(_complaint(shown, inside))
    return shown, inside


def _holds_parts(root: str, listing: Listing, look: Callable[[str], Listing], head: ClassHead) -> bool:
    """Whether some folders are parts of a data set, such as ``train``: called so, and with folders only in them."""
    if head.has_list_of(listing.folders):
        return False
    parts = (look(f"{root}/{name}") for name in listing.folders if name in _SPLITS)
    return any(part.folders and not part.images for part in parts)


def _complaint(folder: str, listing: Listing) -> str:
    """Error text for a folder without class folders: what was found, and what to do."""
    where = printable(folder)
    if listing.folders and all(name.isdecimal() for name in listing.folders):
        return (
            f"{where}: numbered class folders ({few(listing.folders)}) are ambiguous, some tools sort them as text; "
            f"rename each to its class id (0 is {wnids()[0]}, line 1 of tomebench/datasets/imagenet_wnids.txt); "
            "if this is ImageNetV2, whose folders are class numbers: --data imagenetv2/PATH"
        )
    if listing.images:
        count = counted(len(listing.images), "image")
        ways = f"sort them into class folders ({LAYOUT}), or pass --no-labels"
        return f"{where}: {count} in one flat folder have no labels; {ways}"
    if listing.folders:
        return f"{where}: {_some(listing.folders, 'folder')} not ImageNet-1k class ids; expected {LAYOUT}"
    return f"{where}: no images and no class folders; expected {LAYOUT}"


def _some(names: Sequence[str], noun: str) -> str:
    """``2 folders (cat, dog) are``."""
    return f"{counted(len(names), noun)} ({few(names)}) {are(len(names))}"


def data_name(root: Path) -> str:
    """Name of a data set: the folder's name; for a validation part the folder above is in front, ``imagenet/val``."""
    path = Path(os.path.abspath(root))  # noqa: PTH100 (no symlink resolved: the name the user knows)
    return printable("/".join(path.parts[-2:]) if path.name in PARTS else path.name)


def coverage(
    labels: Sequence[int],
    empty: int = 0,
    ignored: int = 0,
    expected: int | None = None,
    classes: ClassMap | None = None,
) -> str | None:
    """Note on how an image list differs from the full set, and how own classes are ordered; None if in no way.

    Args:
        labels: class number of every image.
        empty: class folders without images.
        ignored: files that are no images.
        expected: images of the full set; by default of the validation set of ImageNet-1k.
        classes: of the full set; by default those of ImageNet-1k.
    """
    classes = classes or imagenet()
    seen, images, total = len(set(labels)), len(labels), len(classes.names)
    parts = [classes.how] if classes.how else []
    if seen < total:
        parts.append(f"partial: {seen} of {counted(total, 'class')}, {counted(images, 'image')}")
    elif not classes.is_imagenet or images != (VALIDATION_IMAGES if expected is None else expected):
        parts.append(f"{counted(seen, 'class')}, {counted(images, 'image')}")
    if empty:
        parts.append(counted(empty, "empty class folder"))
    if ignored:
        parts.append(f"{counted(ignored, 'other file')} ignored")
    return "; ".join(parts) or None


def check_named_class(name: str, label: int, classes: ClassMap) -> None:
    """Refuse a label that a class id in the image's own name contradicts, since labels may be shifted.

    A name with several class ids passes if the label's is among them, as for a mix of two images or an adversarial one.

    Args:
        name: of the image, with its folders within the data set.
        label: its class number.
        classes: of the data set; a class that is not named by an id of ImageNet-1k passes.

    Raises:
        DataError: the name holds the id of another class.
    """
    own, ids = classes.names[label], class_numbers()
    if own not in ids:
        return
    for part in map(_WNID.findall, name.split("/")):
        if own not in part and (wnid := next((each for each in part if each in ids), None)):
            said = f"{classes.numbers[wnid]} ({wnid})" if wnid in classes.numbers else wnid
            raise DataError(
                f"{printable(name)}: its name says class {said}, its label says {label} ({own}); it lies in a wrong "
                "folder, or the labels belong to other images or are numbered in another order"
            )
