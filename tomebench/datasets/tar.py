"""What is in a tar and where, so that its members can be read in place."""

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
"""Characters of a path in a tar; one of many thousand folders would take gigabytes to list."""


_IMAGES = frozenset(ending for endings in FORMATS.values() for ending in endings)
_NOTES = (b"D", b"V")
"""Types of members in which GNU tar keeps what was in a folder, and what the tar is called."""


class Member(NamedTuple):
    """Where a file lies in its tar, in bytes."""

    offset: int
    size: int


def index_tar(path: str) -> dict[str, Member]:
    """The files in a tar: name, without a leading ``./``, to place. Hidden files are left out.

    Of two members with one name the later counts, as it would if they were extracted.

    Raises:
        DataError: not a tar, a compressed one, one that is cut off or damaged, one that cannot be read, or one with
            images, or a class folder, that are links, sparse files or devices: they hold no bytes to read in place.
    """
    found: dict[str, Member] = {}
    elsewhere: dict[str, tuple[str, str]] = {}  # members that are no plain files: what they are, where a link leads
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
            # tarfile stops quietly at a damaged header, and where the file ends between two members.
            if os.pread(file.fileno(), _BLOCK, end) != bytes(_BLOCK):
                raise tarfile.ReadError("unexpected end of data")
    # Headers that were made to mislead end in other errors than tarfile's own.
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
    folders = {folder.rpartition("/")[0] for folder in of_images}  # in which those of classes lie
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
    """What a member is that does not hold its bytes as they are; None of one that does."""
    if member.issym() or member.islnk():
        return f"a {'hard ' * member.islnk()}link to {printable(member.linkname)}"
    if member.issparse():
        return "a sparse file"
    return None if member.isreg() else "no plain file"
