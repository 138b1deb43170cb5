"""Index of a tar: name, offset and size of each member, so that images are read in place without extraction."""

from __future__ import annotations

import os
import tarfile
from typing import NamedTuple

from tomebench.datasets.decode import FORMATS, printable
from tomebench.errors import DataError
from tomebench.regular import open_regular
from tomebench.words import counted

_COMPRESSED = {b"\x1f\x8b": "gzip -d", b"BZh": "bzip2 -d", b"\xfd7zXZ": "xz -d", b"\x28\xb5\x2f\xfd": "zstd -d"}
_BLOCK = 512
_LONGEST = 4096
"""Most characters of a path in a tar; a path of many thousand folders would take gigabytes to list."""


_IMAGES = frozenset(ending for endings in FORMATS.values() for ending in endings)
_NOTES = (b"D", b"V")
"""Types of GNU tar's own members, with a folder's listing or the label of the tar: no files."""


class Member(NamedTuple):
    """Where a file lies in its tar, in bytes."""

    offset: int
    size: int


def index_tar(path: str) -> dict[str, Member]:
    """Index the files in a tar: name, without a leading ``./``, to offset and size. Hidden files are left out.

    Of two members with one name the later counts, as it would if they were extracted.

    Raises:
        DataError: no tar, or a compressed, truncated, damaged or unreadable one; or images or class folders in it are
            links, sparse files or devices, which cannot be read in place.
    """
    found: dict[str, Member] = {}
    elsewhere: dict[str, tuple[str, str]] = {}  # members that are no plain files: (kind, target of a link)
    try:
        with os.fdopen(open_regular(path)[0], "rb") as file:
            start = file.read(8)
            for magic, command in _COMPRESSED.items():
                if start.startswith(magic):
                    raise DataError(
                        f"{printable(path)} is compressed, so its images cannot be read in place; decompress it first "
                        f"({command})"
                    )
            file.seek(0)
            with tarfile.open(fileobj=file, mode="r:", encoding="utf-8", errors="surrogateescape") as tar:
                for member in tar:
                    name = member.name.removeprefix("./")
                    if len(name) > _LONGEST:
                        raise DataError(
                            f"{printable(path)}: {printable(name[:40])}... is a path of {len(name)} characters, longer "
                            "than any file system allows; write the tar again"
                        )
                    if name.rpartition("/")[2].startswith(".") or member.isdir() or member.type in _NOTES:
                        continue
                    found.pop(name, None)
                    elsewhere.pop(name, None)
                    if kind := _no_plain_file(member):
                        elsewhere[name] = kind, member.linkname if member.issym() else ""
                    else:
                        found[name] = Member(member.offset_data, member.size)
                end = tar.offset
            # tarfile raises nothing at a damaged header, nor where the file ends between two members.
            if os.pread(file.fileno(), _BLOCK, end) != bytes(_BLOCK):
                raise tarfile.ReadError("unexpected end of data")
    # Malformed headers raise other errors than tarfile's own, too.
    except (tarfile.TarError, ValueError, OverflowError, RecursionError) as error:
        if not found:
            raise DataError(
                f"{printable(path)} is not a tar ({error}); give a folder or a tar, or fetch it again"
            ) from error
        raise DataError(
            f"{printable(path)} is cut off or damaged after {counted(len(found), 'file')}; "
            "fetch it again and compare its checksum"
        ) from error
    except OSError as error:
        raise DataError(f"{printable(path)}: {error.strerror}; give a tar that can be read") from error
    of_images = {name.rpartition("/")[0] for name in found if _is_image(name)}
    folders = {folder.rpartition("/")[0] for folder in of_images}  # that hold class folders
    for name, (kind, target) in elsewhere.items():
        above = name.rpartition("/")[0]
        leads = os.path.normpath(f"{above}/{target}".lstrip("/")) if target else None
        if _is_image(name) or (above in folders and leads in of_images):
            raise DataError(
                f"{printable(path)}: {printable(name)} is {kind}, which cannot be read in place; write the tar again "
                "with --dereference --hard-dereference and without --sparse"
            )
    return found


def _is_image(name: str) -> bool:
    return name.rpartition(".")[2].lower() in _IMAGES


def _no_plain_file(member: tarfile.TarInfo) -> str | None:
    """Kind of a member whose bytes are not stored as they are (link, sparse file, ...); None for a plain file."""
    if member.issym() or member.islnk():
        return f"a {'hard ' * member.islnk()}link to {printable(member.linkname)}"
    if member.issparse():
        return "a sparse file"
    return None if member.isreg() else "no plain file"
