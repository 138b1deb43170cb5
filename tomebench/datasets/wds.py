"""Reader of WebDataset shards (``wds/PATH``): tars that hold an image and its label under one key."""

from __future__ import annotations

import filecmp
import itertools
import json
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tomebench.datasets.class_lists import names_beside
from tomebench.datasets.classes import (
    ANY_HEAD,
    IMAGENET_21K,
    NUM_CLASSES,
    TO_FIT,
    ClassHead,
    ClassMap,
    few,
    imagenet,
    map_classes,
)
from tomebench.datasets.decode import FORMATS, printable
from tomebench.datasets.files import PackedImages
from tomebench.datasets.imagenet import ClassFolders, check_named_class, data_name
from tomebench.datasets.tar import Member, index_tar
from tomebench.errors import DataError
from tomebench.regular import read_bytes
from tomebench.schema import ImageList
from tomebench.vocabulary import MOST_CLASSES

_KINDS = {suffix: form for form, suffixes in FORMATS.items() for suffix in suffixes}
"""Image format by file extension. Of an image and its mask in one sample the first in this order is the image."""


def read_wds(root: Path, head: ClassHead | None = None) -> tuple[ImageList, PackedImages]:
    """List the images of shards, in place.

    timm's own reader gives images in sequence only; resuming a run and distributing batches over processes need random
    access.

    Args:
        root: one ``.tar``, or a folder of them; if some are named ``*val*``, only these are taken. A sample is
            ``key.jpg`` (png, webp, ...) and ``key.cls``, or ``key.json`` with ``"label"``: the number of the class in
            the list of class names beside the shards, or without one among the model's outputs, which for ImageNet-1k
            are the sorted class ids.
        head: the model's class head; None: one for ImageNet-1k.

    Returns:
        The list sorted by class and then by name as bytes, named like class folders, and its images.

    Raises:
        DataError: no shards, damaged shards, an image without a valid label, or a label that contradicts a class id in
            the image's name.
    """
    shards = _shards(root)
    classes, numbers = _classes(root, head)
    found: list[tuple[int, str, str, tuple[int, int, int]]] = []  # class, name, member of its shard, place
    extra: list[str] = []
    members = [index_tar(str(shard)) for shard in shards]
    _check_apart(shards, members)
    for number, shard in enumerate(shards):
        samples, others = _samples(shard, members[number])
        extra += others
        for key, fields in samples.items():
            images = [name for name in _KINDS if name in fields]
            if not images:
                extra += (f"{key}.{field}" for field in fields)
                continue
            image, *others = images
            if same := [other for other in others if _KINDS[other] == _KINDS[image]]:
                raise _twice(shard, key, [image, *same])
            extra += (f"{key}.{other}" for other in others)  # such as a mask
            label = _label(shard, key, fields, numbers, classes)
            check_named_class(key, label, classes)
            member = f"{key}.{image}"
            found.append((label, member.rpartition("/")[2], member, (number, *fields[image])))
    if not found:
        raise DataError(f"{printable(root)}: no images in the shards; a sample is KEY.jpg with KEY.cls")
    if len({(label, name) for label, name, _, _ in found}) < len(found):  # only their shard or folder tells them apart
        found = [(label, f"{shards[place[0]].stem}/{member}", member, place) for label, _, member, place in found]
    found.sort(key=lambda item: (item[0], item[1].encode("utf-8", "surrogateescape")))
    labels = [label for label, *_ in found]
    names = [f"{classes.names[label]}/{name}" for label, name, _, _ in found]
    listed = ClassFolders(str(root), names, labels, [], extra, _fitting(classes, head, labels))
    places = tuple(place for *_, place in found)
    return listed.image_list(data_name(root)), PackedImages(tuple(map(str, shards)), tuple(names), places, tuple(extra))


def _classes(root: Path, head: ClassHead | None) -> tuple[ClassMap, list[int]]:
    """The model's classes, and the class number of each label in the shards."""
    own = None if head is None else names_beside(root if root.is_dir() else root.parent)
    if head is None or (head == ANY_HEAD and own is None):
        return imagenet(), list(range(NUM_CLASSES))
    if head == TO_FIT and own is None:
        return ClassMap(tuple(map(str, range(MOST_CLASSES))), "classes by their numbers"), list(range(MOST_CLASSES))
    if own is not None:
        classes = map_classes(str(root), own.names, head, ordered=True)
        return classes, [classes.numbers[name] for name in own.names]
    if (names := head.names()) is not None:
        classes = ClassMap(names.names, f"classes by {names.source}")
    elif head.num_classes in (0, NUM_CLASSES):
        classes = imagenet()
    else:
        classes = ClassMap(tuple(map(str, range(head.num_classes))), "classes by their numbers in the shards")
    return classes, list(range(len(classes.names)))


def _fitting(classes: ClassMap, head: ClassHead | None, labels: Sequence[int]) -> ClassMap:
    """The classes of ImageNet-1k for a class head of ImageNet-21k without names if all labels fit; else ``classes``."""
    unnamed = head is not None and head.num_classes in IMAGENET_21K and head.names() is None
    return imagenet() if unnamed and max(labels) < NUM_CLASSES else classes


def _shards(root: Path) -> list[Path]:
    if root.is_file():
        return [root]
    shards = sorted(shard for shard in root.glob("*.tar") if not shard.name.startswith("."))
    validation = [shard for shard in shards if "val" in shard.name]
    if not shards:
        raise DataError(f"{printable(root)}: no .tar shards there; give the folder that holds them, or one of them")
    if not validation and any("train" in shard.name for shard in shards):
        raise DataError(f"{printable(root)}: only training shards ({few([s.name for s in shards])}); none named *val*")
    return validation or shards


def _samples(shard: Path, members: dict[str, Member]) -> tuple[dict[str, dict[str, Member]], list[str]]:
    """Group members into samples: (fields by key, which ends at the first dot of a file name; files without a dot)."""
    samples: defaultdict[str, dict[str, Member]] = defaultdict(dict)
    others = []
    for name, member in members.items():
        folder, slash, file = name.rpartition("/")
        key, dot, field = file.partition(".")
        if not dot:
            others.append(name)
        elif field.lower() in (fields := samples[f"{folder}{slash}{key}"]):
            raise _twice(shard, f"{folder}{slash}{key}", [field.lower(), field])
        else:
            fields[field.lower()] = member
    return samples, others


def _twice(shard: Path, key: str, fields: Sequence[str]) -> DataError:
    return DataError(
        f"{printable(shard)}: {printable(key)} has {' and '.join(map(printable, fields))}, and nothing says "
        "which is meant; write the shards again"
    )


def _check_apart(shards: Sequence[Path], members: Sequence[dict[str, Member]]) -> None:
    """Refuse a shard that is there twice, as after a repeated download.

    Raises:
        DataError: two hold the same bytes; names both.
    """
    for (first, one), (second, other) in itertools.combinations(zip(shards, members, strict=True), 2):
        if one == other and filecmp.cmp(first, second, shallow=False):
            raise DataError(f"{printable(first)} and {printable(second)} are the same shard; take one of them away")


def _label(shard: Path, key: str, fields: dict[str, Member], numbers: Sequence[int], classes: ClassMap) -> int:
    """Class number of a sample, from its ``.cls`` and its ``.json``, which must agree."""
    where = f"{printable(shard)}: {printable(key)}"
    stated = []
    try:
        if "cls" in fields:
            stated.append(_whole(read_bytes(str(shard), *fields["cls"]).decode("ascii").strip()))
        if "json" in fields:
            told = json.loads(read_bytes(str(shard), *fields["json"]), object_pairs_hook=_one_label)
            if isinstance(told, dict) and "label" in told:
                stated.append(_whole(str(told["label"])))  # 3.0 and true are no labels
    except (ValueError, TypeError, RecursionError) as error:
        raise DataError(
            f"{where} has a label that is no whole number, or two of them; write the shards again"
        ) from error
    except OSError as error:
        raise DataError(f"{where}: {error.strerror}; give shards that can be read") from error
    if not stated:
        raise DataError(f"{where} has no label; write {key.rpartition('/')[2]}.cls with the class's number")
    if len(set(stated)) > 1:
        raise DataError(f"{where} has two labels, .cls says {stated[0]} and .json says {stated[1]}; keep the true one")
    if not 0 <= stated[0] < len(numbers):
        order = "numbered by the sorted class ids" if classes.is_imagenet else classes.how
        raise DataError(f"{where} has label {stated[0]}; expected 0 to {len(numbers) - 1}, {order}")
    return numbers[stated[0]]


def _whole(text: str) -> int:
    """Parse a label of plain digits; ValueError for other forms that ``int`` would take, such as ``1_0``."""
    if not re.fullmatch(r"-?[0-9]{1,9}", text):
        raise ValueError(text)
    return int(text)


def _one_label(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if [name for name, _ in pairs].count("label") > 1:
        raise ValueError("two labels")
    return dict(pairs)
