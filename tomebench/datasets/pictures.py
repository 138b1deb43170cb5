"""Reader of pictures without labels (``--no-labels``): all images of a folder and its sub-folders, a tar, or shards."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from tomebench.datasets.classes import few
from tomebench.datasets.decode import printable
from tomebench.datasets.files import Files, ImageFiles, PackedImages, list_digest
from tomebench.datasets.listing import check_distinct, is_folder, is_image_name
from tomebench.datasets.tar import index_tar
from tomebench.errors import DataError
from tomebench.schema import NO_LABEL, ImageList
from tomebench.words import counted


def read_pictures(path: Path, *, shards: bool = False) -> tuple[ImageList, Files]:
    """List every picture of a folder and of the folders in it, or of a tar or a folder of tars.

    Args:
        path: the folder or tar. Names that start with a dot are skipped. A folder that a link leads back to is not
            entered twice. Tars in a folder are read only where the folder holds no pictures.
        shards: read the tars of a folder whatever lies beside them.

    Returns:
        The list, sorted by path as bytes, none of whose images has a label, and its files.

    Raises:
        DataError: it cannot be read, or holds no pictures.
    """
    files: Files = _packed([path]) if path.is_file() else _in_folder(path)
    if (shards or not files.names) and (tars := _tars(path)):
        files = _packed(tars)
    if not files.names:
        there = few(files.extra, 5) or "it is empty"
        raise DataError(f"{printable(path)}: no pictures in it ({there}); give a folder of JPEG or PNG files")
    name = Path(os.path.abspath(path)).name  # noqa: PTH100 (no symlink resolved: the name the user knows)
    return unlabelled(printable(name), files), files


def read_shards(path: Path) -> tuple[ImageList, Files]:
    """:func:`read_pictures` of the tars of a folder, whatever lies beside them."""
    return read_pictures(path, shards=True)


def unlabelled(name: str, files: Files) -> ImageList:
    """Make the image list of images without labels."""
    labels = np.full(len(files.names), NO_LABEL, dtype=np.int64)
    note = f"{counted(len(labels), 'image')} without labels"
    if files.extra:
        note += f"; {counted(len(files.extra), 'other file')} ignored"
    return ImageList(name, list_digest(files.names, [""] * len(labels)), labels, num_classes=0, note=note)


def _tars(folder: Path) -> list[Path]:
    """The tars of a folder; none of a file."""
    return sorted(path for path in folder.glob("*.tar") if not path.name.startswith("."))


def _packed(tars: list[Path]) -> PackedImages:
    found: list[tuple[str, tuple[int, int, int]]] = []
    extra: list[str] = []
    for number, tar in enumerate(tars):
        for name, member in index_tar(str(tar)).items():
            hidden = any(part.startswith(".") for part in name.split("/"))
            if is_image_name(name) and not hidden:
                found.append((f"{tar.stem}/{name}" if len(tars) > 1 else name, (number, *member)))
            elif not name.endswith((".cls", ".json")):
                extra.append(name)
    found.sort(key=lambda item: os.fsencode(item[0]))
    names, places = [name for name, _ in found], [place for _, place in found]
    return PackedImages(tuple(map(str, tars)), tuple(names), tuple(places), tuple(extra))


def _in_folder(root: Path) -> ImageFiles:
    names: list[str] = []
    extra: list[str] = []
    entered: set[tuple[int, int]] = set()

    def walk(folder: str) -> None:
        status = os.stat(root / folder)  # noqa: PTH116 (a name need not be valid text)
        if (status.st_dev, status.st_ino) in entered:
            return
        entered.add((status.st_dev, status.st_ino))
        for entry in _entries(str(root / folder)):
            inside = f"{folder}/{entry.name}" if folder else entry.name
            if is_folder(entry):
                walk(inside)
            else:
                (names if is_image_name(entry.name) else extra).append(inside)

    walk("")
    check_distinct(str(root), names)
    return ImageFiles(str(root), tuple(sorted(names, key=os.fsencode)), extra=tuple(sorted(extra, key=os.fsencode)))


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            shown = [entry for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise DataError(f"{printable(folder)}: {error.strerror}; give a folder of pictures that can be read") from error
    return sorted(shown, key=lambda entry: os.fsencode(entry.name))
