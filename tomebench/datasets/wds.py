"""WebDataset shards: plain tars that hold an image and its label under one key."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

from tomebench.datasets.decode import printable, read_bytes
from tomebench.datasets.files import PackedImages
from tomebench.datasets.imagenet import NUM_CLASSES, ClassFolders, check_named_class, data_name, few, wnids
from tomebench.datasets.tar import Member, index_tar
from tomebench.errors import DataError
from tomebench.schema import ImageList

_IMAGES = ("jpg", "jpeg", "png", "webp")


def read_wds(root: Path) -> tuple[ImageList, PackedImages]:
    """List the images of shards, in place.

    timm's reader of shards can only go through them from the first image to the last; resuming a run and dealing
    batches to several processes need any image at any time, hence this one.

    Args:
        root: one ``.tar``, or a folder of them. Of shards of which some are named ``*val*``, these are taken. A sample
            is ``key.jpg`` (jpeg, png, webp) and ``key.cls``, or ``key.json`` with ``"label"``: the class's number in
            [0, 1000) among the sorted class ids, which is how timm numbers them.

    Returns:
        The list sorted by class and then by name as bytes, named like class folders, and its images.

    Raises:
        DataError: no shards, damaged ones, an image without label or a label that is none, or one that contradicts a
            class id in the image's name.
    """
    shards = _shards(root)
    found: list[tuple[int, str, str, tuple[int, int, int]]] = []  # class, name, member of its shard, place
    extra: list[str] = []
    for number, shard in enumerate(shards):
        samples, others = _samples(index_tar(str(shard)))
        extra += others
        for key, fields in samples.items():
            image = next((name for name in _IMAGES if name in fields), None)
            if image is None:
                extra += (f"{key}.{field}" for field in fields)
                continue
            label = _label(shard, key, fields)
            check_named_class(key, label)
            member = f"{key}.{image}"
            found.append((label, member.rpartition("/")[2], member, (number, *fields[image])))
    if not found:
        raise DataError(f"{printable(root)}: no images in the shards; a sample is KEY.jpg with KEY.cls")
    if len({(label, name) for label, name, _, _ in found}) < len(found):  # only their shard or folder tells them apart
        found = [(label, f"{shards[place[0]].stem}/{member}", member, place) for label, _, member, place in found]
    found.sort(key=lambda item: (item[0], item[1].encode("utf-8", "surrogateescape")))
    labels = [label for label, *_ in found]
    names = [f"{wnids()[label]}/{name}" for label, name, _, _ in found]
    listed = ClassFolders(str(root), names, labels, [], extra)
    places = tuple(place for *_, place in found)
    return listed.image_list(data_name(root)), PackedImages(tuple(map(str, shards)), tuple(names), places, tuple(extra))


def _shards(root: Path) -> list[Path]:
    if root.is_file():
        return [root]
    shards = sorted(root.glob("*.tar"))
    validation = [shard for shard in shards if "val" in shard.name]
    if not shards:
        raise DataError(f"{printable(root)}: no .tar shards there; give the folder that holds them, or one of them")
    if not validation and any("train" in shard.name for shard in shards):
        raise DataError(f"{printable(root)}: only training shards ({few([s.name for s in shards])}); none named *val*")
    return validation or shards


def _samples(members: dict[str, Member]) -> tuple[dict[str, dict[str, Member]], list[str]]:
    """Fields by key: the key ends at the first dot of the file name; and the files that have none."""
    samples: defaultdict[str, dict[str, Member]] = defaultdict(dict)
    others = []
    for name, member in members.items():
        folder, slash, file = name.rpartition("/")
        key, dot, field = file.partition(".")
        if dot:
            samples[f"{folder}{slash}{key}"][field.lower()] = member
        else:
            others.append(name)
    return samples, others


def _label(shard: Path, key: str, fields: dict[str, Member]) -> int:
    """The class of a sample, from its ``.cls`` and its ``.json``, which must agree."""
    where = f"{printable(shard)}: {printable(key)}"
    stated = []
    try:
        if "cls" in fields:
            stated.append(int(read_bytes(str(shard), *fields["cls"])))
        if "json" in fields:
            told = json.loads(read_bytes(str(shard), *fields["json"]))
            if isinstance(told, dict) and "label" in told:
                stated.append(int(str(told["label"])))  # 3.0 and true are no labels
    except (ValueError, TypeError, RecursionError) as error:
        raise DataError(f"{where} has a label that is no whole number; write the shards again") from error
    except OSError as error:
        raise DataError(f"{where}: {error.strerror}; give shards that can be read") from error
    if not stated:
        raise DataError(f"{where} has no label; write {key.rpartition('/')[2]}.cls with the class's number")
    if len(set(stated)) > 1:
        raise DataError(f"{where} has two labels, .cls says {stated[0]} and .json says {stated[1]}; keep the true one")
    if not 0 <= stated[0] < NUM_CLASSES:
        raise DataError(
            f"{where} has label {stated[0]}; expected 0 to {NUM_CLASSES - 1}, numbered by the sorted class ids"
        )
    return stated[0]
