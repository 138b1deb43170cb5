"""PixelCache: preprocessed images on disk, so that a second evaluation of the same list decodes nothing.

One file of fixed-size records, one for each image, read from the system's page cache. A record is the image, the
digest of the bytes that it was decoded from, and a checksum over both and over the state of the file it came from. A
record that was never written, is incomplete or damaged, or whose image file has changed fails its checksum: the image
is decoded again, and no wrong pixel is ever used. Many processes may read and fill one cache at the same time. The file
is not mapped into memory, because it would count as this process's memory, and a truncated one would end the process
with a signal instead of an error.
"""

from __future__ import annotations

import errno
import functools
import json
import math
import os
import re
import shutil
import stat
import zlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tomebench.errors import DataError, StorageError
from tomebench.schema import fingerprint
from tomebench.whole import beside, write_whole
from tomebench.words import counted

_DIGEST, _CHECKSUM = 16, 4
"""Bytes of the digest behind the pixels of a record, and of the checksum at its end."""
_SPARE = 64 * 2**20
"""Bytes of disk that must stay free when the cache is full."""


@dataclass(frozen=True)
class PixelCache:
    """The preprocessed images of one list. Picklable, so that worker processes can read and fill it."""

    path: str
    count: int  # images
    shape: tuple[int, int, int]  # of one image: channels, height, width
    dtype: str = "uint8"  # of its pixels, as numpy names it

    @classmethod
    def open(
        cls,
        folder: Path,
        name: str,
        key: Mapping[str, Any],
        count: int,
        shape: tuple[int, int, int],
        dtype: str = "uint8",
    ) -> PixelCache:
        """Open the cache of a list of images in a folder of caches; create it if it is not there.

        Args:
            folder: made if it is missing.
            name: of the image list, a readable part of the file name.
            key: JSON object of all that decides the pixels: images, preprocessing, library versions. Every key has a
                file of its own.
            count: number of images.
            shape: of every image: channels, height, width.
            dtype: of its pixels.

        Raises:
            DataError: the folder cannot be used.
            StorageError: the disk has no room for all images.
        """
        path = folder / f"{re.sub(r'[^A-Za-z0-9._-]+', '-', name)[:60]}-{fingerprint(dict(key))}.pixels"
        cache = cls(str(path), count, shape, dtype)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            present = path.stat() if path.exists() else None
            missing = cache._bytes - (present.st_blocks * 512 if present else 0)
            if missing > 0 and missing > (free := shutil.disk_usage(folder).free) - _SPARE:
                raise StorageError(
                    f"--cache {folder} needs {missing / 2**30:.1f} GiB more for {counted(count, 'image')} and the disk "
                    f"has {free / 2**30:.1f} GiB; free some, or leave --cache out"
                )
            if present is None or present.st_size != cache._bytes:
                cache._begin(path, key)
            _descriptor(cache.path)  # fails here if it cannot be read and written
        except OSError as error:
            raise DataError(
                f"--cache {folder}: {error.strerror or error}; give a folder that can be written"
            ) from error
        return cache

    def get(self, index: int, file: str) -> tuple[Tensor, str] | None:
        """One image as tensor ``shape`` and the digest of its bytes, or None if it has to be decoded.

        Args:
            index: of the image.
            file: state of the file it comes from, as :meth:`tomebench.datasets.images.ImageSet.state` gives it.
        """
        try:
            record = bytearray(os.pread(_descriptor(self.path), self._record, index * self._record))
        except OSError:
            return None  # a damaged disk; the image is decoded, and put() fails if it cannot be written
        if len(record) < self._record:
            return None  # cut off
        if _checksum(record[:-_CHECKSUM], file) != record[-_CHECKSUM:]:
            return None
        pixels = np.frombuffer(record, self.dtype, math.prod(self.shape))
        return torch.from_numpy(pixels.reshape(self.shape)), record[-_DIGEST - _CHECKSUM : -_CHECKSUM].hex()

    def put(self, index: int, file: str, digest: str, image: Tensor) -> None:
        """Store one image.

        Args:
            index: of the image.
            file: as in :meth:`get`.
            digest: of the bytes it was decoded from, :func:`tomebench.datasets.files.bytes_digest`.
            image: tensor ``shape``, of ``dtype``.

        Raises:
            StorageError: it cannot be written.
        """
        kept = np.ascontiguousarray(image.numpy()).tobytes() + bytes.fromhex(digest)
        record = kept + _checksum(kept, file)
        try:
            written = os.pwrite(_descriptor(self.path), record, index * self._record)
            if written < len(record):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise StorageError(
                f"{self.path} cannot be written: {error.strerror}; free some space, or leave --cache out"
            ) from error

    @property
    def _record(self) -> int:
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize + _DIGEST + _CHECKSUM

    @property
    def _bytes(self) -> int:
        return self.count * self._record

    def _begin(self, path: Path, key: Mapping[str, Any]) -> None:
        """Create a sparse file of the full size, and a JSON file beside it that describes it."""
        new = beside(path)
        try:
            new.touch(exist_ok=False)
            os.truncate(new, self._bytes)
            if path.exists():
                new.replace(path)  # the file there has another size, so it cannot be used
            else:
                with suppress(FileExistsError):  # another process was faster: both must fill the same file
                    _put(new, path)
                new.unlink(missing_ok=True)
            text = json.dumps({**key, "count": self.count, "shape": self.shape}, indent=1, allow_nan=False) + "\n"
            write_whole(path.with_suffix(".json"), text)
        finally:
            new.unlink(missing_ok=True)


@functools.cache
def _descriptor(path: str) -> int:
    """File descriptor of a cache's file, opened once in every process; OSError if another user owns the file."""
    file = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    found = os.fstat(file)
    if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
        os.close(file)
        raise OSError(errno.EPERM, f"{Path(path).name} is not a file of this user")
    return file


def _put(new: Path, path: Path) -> None:
    """Move a new file to its final name; FileExistsError if there is one of that name."""
    try:
        path.hardlink_to(new)
    except FileExistsError:
        raise
    except OSError:  # not every file system has hard links; there the slower of two processes fills a file of its own
        new.replace(path)


def _checksum(kept: bytes | bytearray, file: str) -> bytes:
    state = file.encode()
    return zlib.crc32(kept, zlib.crc32(b"%d:" % len(state) + state)).to_bytes(_CHECKSUM, "little")
