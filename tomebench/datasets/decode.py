"""Reading of one image: decode a file to RGB pixels by its content, not its name; or say why it cannot be decoded."""

from __future__ import annotations

import functools
import io
import logging
import os
import struct
import threading
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from tomebench.errors import DataError
from tomebench.regular import open_regular, read_bytes

_DECODE_ERRORS = (
    OSError,
    EOFError,
    SyntaxError,  # what PIL's PNG reader raises for a broken chunk
    ValueError,
    TypeError,
    LookupError,
    MemoryError,
    struct.error,
    zlib.error,
    Image.DecompressionBombWarning,
    Image.DecompressionBombError,
)
"""Exceptions that PIL raises for damaged files; they are caught where nothing but PIL runs."""

FORMATS = {
    "JPEG": ("jpg", "jpeg", "jpe", "jfif"),
    "PNG": ("png", "apng"),
    "WEBP": ("webp",),
    "BMP": ("bmp",),
    "GIF": ("gif",),
    "TIFF": ("tif", "tiff"),
    "AVIF": ("avif", "avifs"),
    "JPEG2000": ("jp2", "j2k", "jpc", "jpf", "jpx", "j2c"),
    "PPM": ("ppm", "pgm", "pbm", "pnm"),
}
"""Image formats that are read, and the file extensions of each, for all readers.

Pillow's other formats are rare, and one of them runs Ghostscript on the content of a file.
"""
logging.getLogger("PIL").addHandler(logging.NullHandler())  # its log lines about damaged files are in the error, too

_WHOLE = ((b"\xff\xd8\xff", b"\xff\xd9"), (b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"))
"""First and last bytes of a complete JPEG and a complete PNG."""
_THINNEST = 300
"""Largest length over width: the resize would make a thinner image over so many times as large as the crop."""
_HEAD_TAIL = 8
_MOST_PIXELS = 1024 * 1024 * 1024 // 4 // 3
"""Pixels above which Pillow warns of a decompression bomb, by its own default."""
_WHITE_IS_ZERO = (262, 0)
"""Tag of a TIFF, and its value where 0 is white."""
_BITS = 258
"""Tag of a TIFF: bits of each sample."""
_NO_WHITE = {"I": "integers of 32 bits", "F": "floating point"}
"""Modes of Pillow without a fixed range of values, so without a value for white."""
_SAMPLES, _SIGNED = 339, 2
"""Tag of a TIFF with the type of its samples, and its value for signed ones, which Pillow reads as unsigned."""


def decode_rgb(path: str, offset: int = 0, size: int | None = None, name: str | None = None) -> Image.Image:
    """Decode an image file as for published accuracies: converted to RGB, EXIF orientation ignored.

    Args:
        path: a JPEG, PNG, ... file, whatever its extension; CMYK, gray, palette and alpha images are converted.
        offset: byte at which the image begins, where the file holds more than it.
        size: bytes of the image there; None is the whole file.
        name: of the image in an error message; by default its path.

    Raises:
        DataError: the file cannot be decoded to its end, or has so many pixels that it may be a decompression bomb.
    """
    return load_rgb(path, offset, size, name)[0]


def load_rgb(path: str, offset: int = 0, size: int | None = None, name: str | None = None) -> tuple[Image.Image, bytes]:
    """:func:`decode_rgb`, and the bytes that were decoded."""
    with _named(name or path):
        data = read_bytes(path, offset, size)
        return _decode(io.BytesIO(data)), data


def decode_bytes(data: bytes, name: str) -> Image.Image:
    """:func:`decode_rgb` of an encoded image in memory; ``name`` is its name in an error message."""
    with _named(name):
        return _decode(io.BytesIO(data))


def problem(path: str, offset: int = 0, size: int | None = None) -> str | None:
    """Why a file is not a readable image, or None. A quick check: decodes only files that do not look complete.

    A JPEG or PNG with damage in its middle passes; :func:`decode_rgb` finds it. The arguments are its own.
    """
    try:
        if not _looks_whole(*_ends(path, offset, size)):
            _decode(io.BytesIO(read_bytes(path, offset, size)))
    except _DECODE_ERRORS as exc:
        return reason(exc)
    return None


def problem_in(data: bytes) -> str | None:
    """:func:`problem` of an encoded image in memory."""
    try:
        if not _looks_whole(data[:_HEAD_TAIL], data[-_HEAD_TAIL:]):
            _decode(io.BytesIO(data))
    except _DECODE_ERRORS as exc:
        return reason(exc)
    return None


def printable(name: object) -> str:
    """A file name on one line: bytes that are not UTF-8, newlines and control characters as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(name))


def _decode(source: BinaryIO) -> Image.Image:
    with _STRICT:
        try:
            with Image.open(source, formats=_decoders()) as image:
                if max(image.size) > _THINNEST * min(image.size):
                    raise ValueError(f"{image.width} x {image.height} pixels, too thin to be resized and cropped")
                with _LIBTIFF_UNHEARD if image.format == "TIFF" else nullcontext():
                    return _eight_bits(image).convert("RGB")
        except UnidentifiedImageError as exc:
            raise ValueError("not an image" if source.seek(0, os.SEEK_END) else "empty file") from exc


@functools.cache
def _decoders() -> tuple[str, ...]:
    """The formats of FORMATS that the installed Pillow can decode."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _eight_bits(image: Image.Image) -> Image.Image:
    """Scale a gray image of 16 bits to 8, as Pillow does with colours; its own conversion would clip values over 255.

    Raises:
        ValueError: pixels without a defined white: signed integers, floating point, integers of 32 bits.
    """
    tags = getattr(image, "tag_v2", {})  # of a TIFF
    if np.any(np.equal(tags.get(_SAMPLES, 1), _SIGNED)):
        kind = "signed integers"
    elif image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        shift = max(int(np.max(tags.get(_BITS, 16))), 9) - 8  # there may be twelve bits, and nothing scales them
        gray = np.minimum(np.asarray(image) >> shift, 255).astype(np.uint8)
        tag, value = _WHITE_IS_ZERO
        return Image.fromarray(255 - gray if tags.get(tag) == value else gray)
    else:
        kind = _NO_WHITE.get(image.mode, "")
    if kind:
        raise ValueError(f"its pixels are {kind}, of which nobody knows what is white; save 8 bits")
    return image


class _OfAllThreads:
    """A process-wide context shared by threads: the first thread in enters it, the last one out leaves it."""

    def __init__(self, make: Callable[[], AbstractContextManager[None]]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._inside = 0
        self._entered = make()

    def __enter__(self) -> None:
        with self._lock:
            self._inside += 1
            if self._inside == 1:
                self._entered = self._make()
                self._entered.__enter__()

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._entered.__exit__(None, None, None)


@contextmanager
def _strict_warnings() -> Iterator[None]:
    """Context in which PIL ignores odd metadata, and refuses truncated files and decompression bombs.

    Set anew each time, since training code may have allowed truncated files and any number of pixels.
    """
    before = ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS
    ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS = False, _MOST_PIXELS
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS = before


@contextmanager
def _libtiff_unheard() -> Iterator[None]:
    """Context with stderr closed to libtiff, which writes its complaints there; Pillow raises them as errors, too."""
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
    except OSError:
        yield
        return
    try:
        kept = os.dup(2)
    except OSError:  # there is no stderr
        os.close(nowhere)
        yield
        return
    os.dup2(nowhere, 2)
    os.close(nowhere)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


_STRICT, _LIBTIFF_UNHEARD = _OfAllThreads(_strict_warnings), _OfAllThreads(_libtiff_unheard)


@contextmanager
def _named(name: str) -> Iterator[None]:
    """Context that turns exceptions of PIL into a DataError that names the image and says what to do."""
    try:
        yield
    except _DECODE_ERRORS as exc:
        raise DataError(
            f"cannot read image {printable(name)}: {reason(exc)}; "
            "replace it, or take it out with --allow-missing and a new --out"
        ) from exc


def _ends(path: str, offset: int, size: int | None) -> tuple[bytes, bytes]:
    """The first and last bytes of an image."""
    # Called for 50 000 files: a Path and a file object would cost more than the read.
    file, whole = open_regular(path)
    try:
        size = whole if size is None else size
        if size < _HEAD_TAIL:
            return b"", b""
        return os.pread(file, _HEAD_TAIL, offset), os.pread(file, _HEAD_TAIL, offset + size - _HEAD_TAIL)
    finally:
        os.close(file)


def _looks_whole(head: bytes, tail: bytes) -> bool:
    return any(head.startswith(first) and tail.endswith(last) for first, last in _WHOLE)


def reason(exc: BaseException) -> str:
    """What is wrong with an image, in a few words, from the exception that reading it raised."""
    match exc:
        case FileNotFoundError():
            return "no such file"
        case PermissionError():
            return "no permission"
        case Image.DecompressionBombWarning() | Image.DecompressionBombError():
            return f"more than {_MOST_PIXELS} pixels, which may be a decompression bomb"
        case OSError(strerror=str(text)):
            return text
    return printable(str(exc).partition("\n")[0]) or type(exc).__name__
