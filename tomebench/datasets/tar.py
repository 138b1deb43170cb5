"""What is in a tar and where, so that its members can be read in place."""

from __future__ import annotations

import os
import tarfile
from typing import NamedTuple

from tomebench.datasets.decode import printable
from tomebench.errors import DataError
from tomebench.regular import open_regular
from tomebench.words import counted

_COMPRESSED = {b"\x1f\x8b": "gzip -d", b"BZh": "bzip2 -d", b"\xfd7zXZ": "xz -d", b"\x28\xb5\x2f\xfd": "zstd -d"}
_BLOCK = 512
_LONGEST = 4096
"""Characters of a path in a tar; one of many thousand folders would take gigabytes to list."""


class Member(NamedTuple):
    """Where a file lies in its tar, in bytes."""

    offset: int
    size: int


def index_tar(path: str) -> dict[str, Member]:
    """The files in a tar: name, without a leading ``./``, to place. Links, devices and hidden files are left out.

    Of two members with one name the later counts, as it would if they were extracted.

    Raises:
        DataError: not a tar, a compressed one, one that is cut off or damaged, or one that cannot be read.
    """
    found: dict[str, Member] = {}
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
                    if member.isreg() and not member.issparse() and not name.rpartition("/")[2].startswith("."):
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
    return found
