"""Reader of ImageNetV2 (``imagenetv2/DIR``), whose folders 0 to 999 are class numbers; used on request only."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tomebench.datasets.classes import NUM_CLASSES, ClassHead, few, wnids
from tomebench.datasets.decode import printable
from tomebench.datasets.files import ImageFiles
from tomebench.datasets.imagenet import ClassFolders, coverage, data_name
from tomebench.datasets.listing import all_inside, check_distinct, list_folder
from tomebench.errors import DataError
from tomebench.schema import ImageList
from tomebench.words import counted

_IMAGES = 10_000


def read_imagenetv2(root: Path, head: ClassHead | None = None) -> tuple[ImageList, ImageFiles]:
    """List a folder of folders ``0`` to ``999``, each the number of a class among the 1000 sorted class ids.

    The list is sorted by class number and then by file name as bytes, and named by class id: its digest is that of the
    same files in class folders.

    Args:
        root: the folder.
        head: not used: the classes are those of ImageNet-1k.

    Raises:
        DataError: no such folder, or folders that are no class numbers.
    """
    listing = list_folder(str(root))
    numbers = {name: int(name) for name in listing.folders if name.isascii() and name.isdecimal()}
    foreign = [name for name in listing.folders if numbers.get(name, NUM_CLASSES) >= NUM_CLASSES]
    if foreign or not numbers or len(set(numbers.values())) < len(numbers):
        what = f"({few(foreign or listing.folders)})" if listing.folders else "(none)"
        raise DataError(
            f"{printable(root)}: ImageNetV2 is a folder of folders named 0 to 999, not {what}; "
            "give the folder that holds them, or leave imagenetv2/ out if these are class ids"
        )
    found = ClassFolders(str(root), [], [], [], [*listing.images, *listing.others])
    paths: list[str] = []
    for folder, number in sorted(numbers.items(), key=lambda item: item[1]):
        images, others = all_inside(f"{root}/{folder}", list_folder)
        paths += (f"{folder}/{name}" for name in images)
        found.names.extend(f"{wnids()[number]}/{name}" for name in images)
        found.labels.extend([number] * len(images))
        found.empty.extend([folder] * (not images))
        found.extra.extend(f"{folder}/{name}" for name in others)
    if not found.names:
        raise DataError(f"{printable(root)}: the folders hold no images; give the folder of ImageNetV2")
    check_distinct(str(root), paths)
    more = coverage(found.labels, len(found.empty), len(found.extra), expected=_IMAGES)
    note = f"ImageNetV2: {counted(len(found.names), 'image')}"
    info = replace(found.image_list(data_name(root)), note=f"{note}; {more}" if more else note)
    return info, ImageFiles(str(root), tuple(found.names), tuple(paths), tuple(found.extra))
