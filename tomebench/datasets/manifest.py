"""Manifests of checksums, read and written as by ``sha256sum``: hash, two spaces, name in the data folder.

They are needed because a JPEG with a flipped bit still decodes, to other pixels.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path

from tomebench.datasets.decode import printable
from tomebench.errors import DataError, StorageError
from tomebench.regular import read_bytes
from tomebench.whole import write_whole

_LINE = re.compile(rb"(\\?)([0-9a-fA-F]{64}) [ *](.+)", re.DOTALL)
_BOM = b"\xef\xbb\xbf"
_ESCAPES = {b"\\\\": b"\\", b"\\n": b"\n", b"\\r": b"\r"}


def sha256(data: bytes) -> str:
    """The sha256 of a file's bytes, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def write_manifest(path: Path, checksums: Mapping[str, str]) -> None:
    """Write a manifest, whole or not at all.

    Args:
        path: the file; one that is there is replaced.
        checksums: name relative to the data folder to sha256 in hexadecimal.

    Raises:
        StorageError: it cannot be written.
    """
    try:
        write_whole(path, b"".join(_line(name, checksum) for name, checksum in checksums.items()))
    except OSError as error:
        raise StorageError(
            f"{printable(path)} cannot be written: {error.strerror}; give --manifest elsewhere"
        ) from error


def read_manifest(path: Path) -> dict[str, str]:
    """Read a manifest: name relative to the data folder, without a leading ``./``, to checksum in lower case.

    Raises:
        DataError: there is no such file, it cannot be read, it is no manifest, or it contradicts itself.
    """
    try:
        lines = read_bytes(str(path)).removeprefix(_BOM).split(b"\n")
    except OSError as error:
        raise DataError(f"--verify {printable(path)}: {error.strerror}; {_HOW}") from error
    if all(line.endswith(b"\r") for line in lines if line):  # as Windows writes it; a name's own is escaped
        lines = [line.removesuffix(b"\r") for line in lines]
    found: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        if not line:
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            raise DataError(f"--verify {printable(path)}: line {number} is not a sha256 checksum and a name; {_HOW}")
        name = re.sub(rb"\\[\\nr]", lambda escape: _ESCAPES[escape[0]], match[3]) if match[1] else match[3]
        file, checksum = os.fsdecode(name.removeprefix(b"./")), match[2].decode().lower()
        if found.setdefault(file, checksum) != checksum:
            raise DataError(
                f"--verify {printable(path)}: line {number} gives {printable(file)} another checksum than a line "
                f"before; {_HOW}"
            )
    if not found:
        raise DataError(f"--verify {printable(path)} lists no files; {_HOW}")
    return found


_HOW = "tomebench doctor --data DIR --manifest FILE writes one, and so does sha256sum"


def _line(name: str, checksum: str) -> bytes:
    raw = os.fsencode(name)
    for escape, character in _ESCAPES.items():  # the backslash first
        raw = raw.replace(character, escape)
    return b"\\" * (raw != os.fsencode(name)) + checksum.encode() + b"  " + raw + b"\n"
