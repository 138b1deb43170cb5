"""One image file to RGB pixels, by what the file holds rather than by its name; and the reason when that fails."""

from __future__ import annotations

import struct
import warnings
import zlib
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from tomebench.errors import DataError

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
"""What PIL raises for damaged files. Nothing but PIL runs where these are caught."""

_WHOLE = ((b"\xff\xd8\xff", b"\xff\xd9"), (b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"))
"""First and last bytes of a complete JPEG and a complete PNG."""
_HEAD_TAIL = 8


def decode_rgb(path: str) -> Image.Image:
    """Decode a file as published accuracies do: converted to RGB, its EXIF orientation ignored.

    Args:
        path: a JPEG, PNG, ... file; CMYK, gray, palette and alpha images are converted, whatever the extension says.

    Raises:
        DataError: the file cannot be decoded to its end, or has so many pixels that it may be a decompression bomb.
    """
    try:
        return _decode(path)
    except _DECODE_ERRORS as exc:
        raise DataError(
            f"cannot read image {printable(path)}: {_reason(exc, path)}; replace it or take it out"
        ) from exc


def problem(path: str) -> str | None:
    """Why a file is not a readable image, or None. Cheap: decodes only files that do not look complete.

    A JPEG or PNG with damage in its middle passes; :func:`decode_rgb` finds it.
    """
    try:
        if not _looks_whole(path):
            _decode(path)
    except _DECODE_ERRORS as exc:
        return _reason(exc, path)
    return None


def printable(name: object) -> str:
    """A file name on one line: bytes that are not UTF-8, newlines and control characters as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(name))


def _decode(path: str) -> Image.Image:
    with warnings.catch_warnings():
        # PIL warns about odd metadata, which does not touch the pixels, and about bombs, which must not be decoded.
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with Image.open(path) as image:
            return image.convert("RGB")


def _looks_whole(path: str) -> bool:
    with Path(path).open("rb", buffering=0) as file:
        head = file.read(_HEAD_TAIL)
        if len(head) < _HEAD_TAIL:
            return False
        file.seek(-_HEAD_TAIL, 2)
        tail = file.read(_HEAD_TAIL)
    return any(head.startswith(first) and tail.endswith(last) for first, last in _WHOLE)


def _reason(exc: BaseException, path: str) -> str:
    match exc:
        case FileNotFoundError():
            return "no such file"
        case PermissionError():
            return "no permission"
        case UnidentifiedImageError():
            return "empty file" if Path(path).stat().st_size == 0 else "not an image"
        case Image.DecompressionBombWarning() | Image.DecompressionBombError():
            return f"more than {Image.MAX_IMAGE_PIXELS} pixels, which may be a decompression bomb"
        case OSError(strerror=str(text)):
            return text
    return printable(str(exc).partition("\n")[0]) or type(exc).__name__
