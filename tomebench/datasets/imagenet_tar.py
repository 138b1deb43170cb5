"""Reader of images in one tar: ImageNet's original validation tar of numbered images, or a tar of class folders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from tomebench.datasets.classes import ClassHead, class_numbers, wnids
from tomebench.datasets.decode import printable
from tomebench.datasets.files import PackedImages
from tomebench.datasets.imagenet import (
    PARTS,
    ClassFolders,
    data_name,
    find_classes,
)
from tomebench.datasets.listing import Listing, check_distinct, sorted_listing
from tomebench.datasets.tar import Member, index_tar
from tomebench.datasets.truth import file_number, find_truth, missing_truth
from tomebench.errors import DataError
from tomebench.schema import ImageList
from tomebench.words import counted

ORIGINAL = "ILSVRC2012_img_val.tar"


def read_imagenet_tar(
    path: Path, head: ClassHead | None = None, *, tolerant: bool = False
) -> tuple[ImageList, PackedImages]:
    """List the images of a tar in place; nothing is extracted.

    Class folders in it are read like those on disk. Images that are only numbered, as in the original tar, get their
    labels from a file beside the tar (:mod:`tomebench.datasets.truth`). Either way list and digest are the same as for
    these images in class folders.

    Args:
        path: a tar, not compressed.
        head: the model's class head; None: one for ImageNet-1k.
        tolerant: skip unknown class folders instead of refusing them.

    Raises:
        DataError: the tar cannot be read, or its images have no labels.
    """
    members = index_tar(str(path))
    tree = _Tree(str(path), members)
    if numbered := tree.numbered_images():
        truth = find_truth(path.parent)
        if truth is None:
            raise missing_truth(str(path))
        found, inside = _label(path, numbered, truth)
    else:
        found = find_classes(tree.top, tree.look, head, tolerant=tolerant)
        check_distinct(found.folder, found.names)
        inside = [f"{tree.member(found.folder)}{name}" for name in found.names]
    files = PackedImages(
        (str(path),),
        tuple(found.names),
        tuple((0, *members[name]) for name in inside),
        tuple(found.extra),
    )
    return found.image_list(data_name(path)), files


class _Tree:
    """The folders of a tar, listed like those on disk; paths are the tar's path and the path within it."""

    def __init__(self, tar: str, names: Mapping[str, Member]) -> None:
        self._tar = tar
        self._folders: dict[str, set[str]] = {"": set()}
        self._files: dict[str, list[str]] = {"": []}
        for name in names:
            folder, _, file = name.rpartition("/")
            self._files.setdefault(folder, []).append(file)
            while folder:
                above, _, last = folder.rpartition("/")
                self._folders.setdefault(above, set()).add(last)
                folder = above
        # A tar of a single folder has that folder's name in front of every member.
        self.top = tar
        while self._only_folder() is not None:
            self.top += f"/{self._only_folder()}"

    def look(self, path: str) -> Listing:
        """What is in a folder of the tar."""
        folder = self.member(path).rstrip("/")
        return sorted_listing(self._folders.get(folder, ()), self._files.get(folder, ()))

    def member(self, path: str) -> str:
        """Prefix of the member names in a folder of the tar: empty, or the folder and a slash."""
        inside = path.removeprefix(self._tar).strip("/")
        return inside and f"{inside}/"

    def numbered_images(self) -> list[str]:
        """Members, if the tar holds numbered images without class folders, as the original one; else empty."""
        for folder in (self.top, *(f"{self.top}/{part}" for part in PARTS)):
            listing = self.look(folder)
            if not class_numbers().keys().isdisjoint(listing.folders):
                return []
            if listing.images and all(file_number(name) is not None for name in listing.images):
                return [f"{self.member(folder)}{name}" for name in listing.images]
        return []

    def _only_folder(self) -> str | None:
        listing = self.look(self.top)
        if len(listing.folders) != 1 or listing.images:
            return None
        (only,) = listing.folders
        return None if only in PARTS or only in class_numbers() else only


def _label(path: Path, members: Sequence[str], truth: Mapping[int, int]) -> tuple[ClassFolders, list[str]]:
    """Put numbered images into the class folders of their labels; (these, the members in the same order)."""
    numbers = {member: file_number(member) for member in members}
    unlabelled = [member for member, number in numbers.items() if number not in truth]
    if unlabelled:
        raise DataError(
            f"{printable(path)}: the file of labels beside it has none for {counted(len(unlabelled), 'image')}, "
            f"{printable(unlabelled[0])}; fetch both again"
        )
    labels = {member: truth[number] for member, number in numbers.items() if number is not None}
    ordered = sorted(members, key=lambda member: (labels[member], member.encode("utf-8", "surrogateescape")))
    names = [f"{wnids()[labels[member]]}/{member.rpartition('/')[2]}" for member in ordered]
    return ClassFolders(str(path), names, [labels[member] for member in ordered], [], []), ordered
