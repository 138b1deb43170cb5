"""List folders: sub-folders, images by file extension, other files; refuse an image that is listed twice."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from tomebench.datasets.decode import FORMATS, printable
from tomebench.errors import DataError

_EXTENSIONS = frozenset(f".{suffix}" for suffixes in FORMATS.values() for suffix in suffixes)
LAYOUT = "n01440764/*.JPEG, n01443537/*.JPEG, ..."


@dataclass(frozen=True)
class Listing:
    """Content of one folder: sub-folders, images and other files, each sorted by name as bytes."""

    folders: list[str]
    images: list[str]
    others: list[str]


def is_image_name(name: str) -> bool:
    """Whether a file is meant to be an image, by its extension."""
    return os.path.splitext(name)[1].lower() in _EXTENSIONS  # noqa: PTH122 (50 000 Paths are slow)


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether a directory entry is a folder; a broken or circular link counts as a file."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def sorted_listing(folders: Iterable[str], files: Iterable[str]) -> Listing:
    """Sort the content of a folder into a Listing; names that begin with a dot are left out."""
    images: list[str] = []
    others: list[str] = []
    for name in files:
        if not name.startswith("."):
            (images if is_image_name(name) else others).append(name)
    shown = (name for name in folders if not name.startswith("."))
    return Listing(*(sorted(names, key=os.fsencode) for names in (shown, images, others)))


def list_folder(folder: str) -> Listing:
    """List a folder on disk.

    Raises:
        DataError: there is none, or it cannot be read.
    """
    folders: list[str] = []
    files: list[str] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                (folders if is_folder(entry) else files).append(entry.name)
    except FileNotFoundError:
        raise DataError(f"{printable(folder)}: no such folder; give a folder with {LAYOUT}") from None
    except NotADirectoryError:
        raise DataError(f"{printable(folder)} is a file; give the folder that holds {LAYOUT}") from None
    except OSError as exc:
        raise DataError(f"{printable(folder)}: {exc.strerror}; make the folder readable") from exc
    return sorted_listing(folders, files)


def same_name(name: str) -> str:
    """A name in NFC and lower case: equal for names that some file systems cannot tell apart."""
    return unicodedata.normalize("NFC", name).lower()


def check_distinct(folder: str, paths: Sequence[str]) -> None:
    """Refuse images that would count twice: one file by links, or names that some file systems cannot tell apart.

    Args:
        folder: that holds them.
        paths: of the images in it.

    Raises:
        DataError: two paths lead to one file, or to two that some file systems cannot tell apart; names both.
    """
    files: dict[object, str] = {}
    for path in paths:
        within, _, name = path.rpartition("/")
        keys: list[object] = [f"{within}/{same_name(name)}"]
        with suppress(OSError):  # an unreadable file is reported where images are read
            found = os.stat(f"{folder}/{path}")  # noqa: PTH116 (asked for every image)
            keys.append((found.st_dev, found.st_ino))
        for key in keys:
            if (other := files.setdefault(key, path)) != path:
                what = "differ in capitals or the coding of accents only" if isinstance(key, str) else "are one file"
                raise DataError(
                    f"{printable(folder)}: {printable(other)} and {printable(path)} {what}, which would count twice; "
                    "take one of them out"
                )


def all_inside(folder: str, look: Callable[[str], Listing]) -> tuple[list[str], list[str]]:
    """Images in a class folder and all folders in it, as ImageFolder takes them, and its other files.

    A link to a folder that it lies in is not followed.

    Args:
        folder: path of a class folder.
        look: lists the folder at a path.

    Returns:
        Both as paths relative to the folder, sorted as bytes.
    """
    images: list[str] = []
    others: list[str] = []

    def walk(below: str, above: tuple[str, ...]) -> None:
        path = f"{folder}/{below}".rstrip("/")
        real = os.path.realpath(path)
        if real in above:
            return
        listing = look(path)
        images.extend(f"{below}{name}" for name in listing.images)
        others.extend(f"{below}{name}" for name in listing.others)
        for name in listing.folders:
            walk(f"{below}{name}/", (*above, real))

    walk("", (os.path.realpath(os.path.dirname(folder)),))  # noqa: PTH120 (in a tar it is no path)
    return sorted(images, key=os.fsencode), sorted(others, key=os.fsencode)
