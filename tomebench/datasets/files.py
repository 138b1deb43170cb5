"""Reading of listed images from where they are stored: files in a folder, or members of tars; digests of lists."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from PIL import Image

from tomebench.datasets.decode import load_rgb, printable, problem
from tomebench.regular import read_bytes


class Files(Protocol):
    """Interface to the stored images of a list, by index. Picklable, so that worker processes can read them."""

    @property
    def names(self) -> tuple[str, ...]:
        """A name for each image, ``n01440764/ILSVRC2012_val_00000293.JPEG``; the digest of the list covers it."""

    @property
    def paths(self) -> tuple[str, ...]:
        """Path of each image in the data folder, as in a manifest of checksums; empty where names are the paths."""

    @property
    def extra(self) -> tuple[str, ...]:
        """Files that were found among the images and are no images of the list."""

    def load(self, index: int) -> tuple[Image.Image, bytes]:
        """Decode one image: (RGB image, the bytes it was decoded from). DataError naming it if that fails."""

    def problem(self, index: int) -> str | None:
        """Name and reason of an image that cannot be read, or None; see :func:`tomebench.datasets.decode.problem`."""

    def stamp(self, index: int) -> bytes:
        """Bytes that change when the file behind the image does; empty if it is gone."""

    def read(self, index: int) -> bytes:
        """The stored bytes of one image, not decoded; OSError if that fails."""


@dataclass(frozen=True)
class ImageFiles:
    """Image files in one folder, in the order of their list."""

    folder: str
    names: tuple[str, ...]
    paths: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()

    def load(self, index: int) -> tuple[Image.Image, bytes]:
        """Decode one image to RGB, and the bytes of its file; DataError naming the file if that fails."""
        return load_rgb(self._path(index))

    def problem(self, index: int) -> str | None:
        """Name and reason of a file that cannot be read, or None."""
        reason = problem(self._path(index))
        return reason and f"{printable((self.paths or self.names)[index])} ({reason})"

    def stamp(self, index: int) -> bytes:
        """Size, times of change, disk and inode of a file; empty if it is gone."""
        return file_stamp(self._path(index))

    def read(self, index: int) -> bytes:
        """The bytes of the file."""
        return read_bytes(self._path(index))

    def _path(self, index: int) -> str:
        return f"{self.folder}/{(self.paths or self.names)[index]}"


@dataclass(frozen=True)
class PackedImages:
    """Images inside tars, read in place: nothing is extracted, and no path that an archive names is ever opened."""

    tars: tuple[str, ...]
    names: tuple[str, ...]
    places: tuple[tuple[int, int, int], ...]  # of each image: index of its tar, offset and size in bytes
    extra: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()

    def load(self, index: int) -> tuple[Image.Image, bytes]:
        """Decode one image to RGB, and its bytes; DataError naming tar and member if that fails."""
        tar, offset, size = self.places[index]
        return load_rgb(self.tars[tar], offset, size, f"{self.tars[tar]}: {self.names[index]}")

    def problem(self, index: int) -> str | None:
        """Name and reason of an image that cannot be read, or None."""
        tar, offset, size = self.places[index]
        reason = problem(self.tars[tar], offset, size)
        return reason and f"{printable(self.names[index])} ({reason})"

    def stamp(self, index: int) -> bytes:
        """Stamp of the tar, and the image's offset in it; empty if the tar is gone."""
        tar, offset, _ = self.places[index]
        found = file_stamp(self.tars[tar])
        return found and found + b" %d" % offset

    def read(self, index: int) -> bytes:
        """The bytes of the image."""
        tar, offset, size = self.places[index]
        return read_bytes(self.tars[tar], offset, size)


def user_path(text: str) -> Path:
    """A path that the user wrote, with ``~`` expanded; unchanged where there is no such user."""
    return Path(os.path.expanduser(text))  # noqa: PTH111 (pathlib's raises there)


def bytes_digest(data: bytes) -> str:
    """BLAKE2b digest of the bytes of an image: 32 hex digits."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def list_digest(names: Iterable[str], labels: Iterable[Any]) -> str:
    """Digest of an image list: sha256 over names and labels in order, separated by NUL, which neither can hold.

    Args:
        names: of the images.
        labels: of each image its class, or a list of classes padded with -1.
    """
    digest = hashlib.sha256()
    for name, label in zip(names, labels, strict=True):
        text = ",".join(str(each) for each in label if each >= 0) if isinstance(label, list) else str(label)
        digest.update(os.fsencode(name) + b"\0" + text.encode() + b"\0")
    return digest.hexdigest()


def file_stamp(path: str) -> bytes:
    """Size, times of change, disk and inode of a file; empty if there is none."""
    try:
        found = os.stat(path)  # noqa: PTH116 (asked for every image)
    except OSError:
        return b""
    # Two folders may hold other images of the same names, sizes and times; inode and disk tell any two files apart.
    return b"%d %d %d %d %d" % (found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_dev, found.st_ino)
