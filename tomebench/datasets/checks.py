"""Check all images of a data set before measuring: unreadable, changed, missing and unlisted ones."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from tomebench.datasets.decode import printable, reason
from tomebench.datasets.files import list_digest
from tomebench.datasets.images import ImageSet, sublist
from tomebench.datasets.manifest import read_manifest, sha256
from tomebench.errors import DataError
from tomebench.words import counted, noun

_SHOWN = 3
_THREADS = 16
_T = TypeVar("_T")


@dataclass(frozen=True)
class Mismatch:
    """Differences between images and a manifest of checksums; names are those in the manifest."""

    changed: Mapping[int, str]  # by index of the image
    missing: Sequence[str]  # in the manifest only
    unlisted: Mapping[int, str]  # by index; not in the manifest


def check_images(
    image_set: ImageSet,
    *,
    allow_missing: int = 0,
    verify: Path | None = None,
    whole: bool = True,
    stop_if_asked: Callable[[], None] = lambda: None,
) -> ImageSet:
    """Find all images that are unreadable, changed, missing or unlisted, and leave them out or refuse the data set.

    Args:
        image_set: what is to be evaluated.
        allow_missing: leave out up to this many images that are missing, changed or cannot be read; the note says how
            many. Above 0 every image is decoded, since damage in the middle of a file shows only then.
        verify: manifest of checksums that the images must have.
        whole: count what else the manifest lists as missing; False where a limit chose some of the images.
        stop_if_asked: called between images; its exception ends the check, which can take minutes.

    Returns:
        The images that are left; ``image_set`` itself if that is all of them.

    Raises:
        DataError: more images than ``allow_missing`` cannot be used, or images are not in the manifest; names the first
            few of each kind and counts all.
    """
    mismatch = Mismatch({}, [], {})
    if verify is not None:
        mismatch = compare_with_manifest(image_set, verify, whole=whole, stop_if_asked=stop_if_asked)
    suspects = [index for index in range(len(image_set)) if index not in mismatch.changed]
    unreadable = find_unreadable(image_set, suspects, decode=allow_missing > 0, stop_if_asked=stop_if_asked)
    lost = len(unreadable) + len(mismatch.changed) + len(mismatch.missing)
    if lost > allow_missing or mismatch.unlisted:
        raise DataError(_complaint(image_set, unreadable, mismatch, allow_missing, verify))
    if not lost:
        return image_set
    if not (left := len(suspects) - len(unreadable)):
        raise DataError(f"none of the {len(image_set)} images in {image_set.info.name} can be used; fetch them again")
    kinds = {"unreadable": len(unreadable), "changed": len(mismatch.changed), "missing": len(mismatch.missing)}
    what = " and ".join(f"{count} {kind}" for kind, count in kinds.items() if count)
    note = f"without {what} {noun(lost, 'file')}, {_spaced(left)} {noun(left, 'image')}"
    return leave_out(image_set, {*unreadable, *mismatch.changed}, note)


def leave_out(image_set: ImageSet, indices: Collection[int], note: str) -> ImageSet:
    """The image set without some images. Its digest is that of a folder that never had them.

    Args:
        image_set: images that have names.
        indices: of those to leave out.
        note: what the list's note says of it.
    """
    left = [index for index in range(len(image_set)) if index not in indices]
    labels = image_set.info.labels[left].tolist()
    digest = list_digest([image_set.names[index] for index in left], labels)
    return image_set.only(left, sublist(image_set.info, left, digest, note))


def find_unreadable(
    image_set: ImageSet,
    indices: Sequence[int],
    *,
    decode: bool = False,
    stop_if_asked: Callable[[], None] = lambda: None,
) -> dict[int, str]:
    """Name and reason of images that cannot be read, by index.

    Args:
        image_set: what to look at.
        indices: of the images to look at.
        decode: decode each, instead of a quick check that misses damage in the middle of a file.
        stop_if_asked: as in :func:`check_images`.
    """
    if image_set.problem is None:
        return {}
    found = {}
    for index in indices:
        stop_if_asked()
        if text := image_set.problem(index):
            found[index] = text
    if decode:
        rest = [index for index in indices if index not in found]
        decoded = _each(lambda index: _decoded(image_set, index), rest, stop_if_asked)
        found |= {index: text for index, text in decoded if text}
    return dict(sorted(found.items()))


def compare_with_manifest(
    image_set: ImageSet, manifest: Path, *, whole: bool = True, stop_if_asked: Callable[[], None] = lambda: None
) -> Mismatch:
    """Compare the sha256 of every image with a manifest; arguments as in :func:`check_images`.

    Raises:
        DataError: the manifest cannot be read, or the images are not stored anywhere.
    """
    expected = read_manifest(manifest)
    found = checksums(image_set, stop_if_asked)
    names = dict(enumerate(image_set.paths))
    there = {*(image_set.listed or image_set.paths), *image_set.extra}
    if there.isdisjoint(expected):
        raise DataError(
            f"--verify {printable(manifest)} lists no file of {image_set.info.name}; its names must be like "
            f"{printable(image_set.paths[0])}"
        )
    return Mismatch(
        {index: name for index, name in names.items() if name in expected and found[index] != expected[name]},
        [name for name in expected if name not in there] if whole else [],
        {index: name for index, name in names.items() if name not in expected},
    )


def checksums(image_set: ImageSet, stop_if_asked: Callable[[], None] = lambda: None) -> list[str]:
    """The sha256 of every image as it is stored; empty where it cannot be read. Can be stopped between images.

    Raises:
        DataError: the images are not stored anywhere.
    """
    read = image_set.read
    if read is None:
        raise DataError(f"{image_set.info.name} is part of the package and has no files to verify; leave that out")

    def hashed(index: int) -> str:
        try:
            return sha256(read(index))
        except OSError:
            return ""

    return [checksum for _, checksum in _each(hashed, range(len(image_set)), stop_if_asked)]


def _each(
    look: Callable[[int], _T], indices: Sequence[int], stop_if_asked: Callable[[], None]
) -> Iterator[tuple[int, _T]]:
    """Call a function with every index, in threads (PIL and hashlib release the GIL); results come in order."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with ThreadPoolExecutor(min(usable, _THREADS)) as pool:
        try:
            for found in zip(indices, pool.map(look, indices), strict=True):
                stop_if_asked()
                yield found
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)  # else the rest would be looked at first
            raise


def _decoded(image_set: ImageSet, index: int) -> str | None:
    try:
        image_set.open(index)
    except DataError as error:
        return f"{printable(image_set.paths[index])} ({reason(error.__cause__ or error)})"
    return None


def _complaint(
    image_set: ImageSet, unreadable: Mapping[int, str], mismatch: Mismatch, allowed: int, verify: Path | None
) -> str:
    kinds = {
        "cannot be read": list(unreadable.values()),
        "changed": [printable(name) for name in mismatch.changed.values()],
        "missing": [printable(name) for name in mismatch.missing],
        "not listed": [printable(name) for name in mismatch.unlisted.values()],
    }
    listed = [f"{len(names)} {kind}: {_few(names)}" for kind, names in kinds.items() if names]
    against = f", against {printable(verify)}" if verify else ""
    lost = sum(map(len, kinds.values())) - len(mismatch.unlisted)
    limit = f" (--allow-missing is {allowed})" if allowed else ""
    ways = [f"leave them out with --allow-missing {lost}"] if lost > allowed else []
    ways += ["move those not listed out"] if mismatch.unlisted else []
    return (
        f"of {counted(len(image_set), 'image')} in {image_set.info.name}{against}, {'; '.join(listed)}{limit}; "
        f"replace them, or {' and '.join(ways)}"
    )


def _few(texts: Sequence[str]) -> str:
    return ", ".join(texts[:_SHOWN]) + (", ..." if len(texts) > _SHOWN else "")


def _spaced(number: int) -> str:
    return f"{number:,}".replace(",", " ")
