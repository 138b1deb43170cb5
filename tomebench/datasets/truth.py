"""Labels of ImageNet's numbered validation images, read from a ground-truth file (class ids, Kaggle's csv, devkit).

The images of the original validation tar are named by number alone. The devkit's ground truth numbers the classes 1 to
1000 in an order that is *not* that of the sorted class ids; its ``meta.mat`` has the mapping. An order is never
guessed: without that file the labels are refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from tomebench.datasets.classes import class_numbers
from tomebench.datasets.decode import printable
from tomebench.datasets.imagenet import VALIDATION_IMAGES
from tomebench.errors import DataError
from tomebench.extras import is_installed
from tomebench.regular import read_bytes
from tomebench.words import counted

_MOST = 64 * 2**20
SYNSETS = "imagenet_2012_validation_synset_labels.txt"
SOLUTION = "LOC_val_solution.csv"
DEVKIT = "ILSVRC2012_validation_ground_truth.txt"
META = "meta.mat"
_PLACES = (".", "data", "ILSVRC2012_devkit_t12", "ILSVRC2012_devkit_t12/data")
_NUMBER = re.compile(r"ILSVRC2012_val_([0-9]{8})(?![0-9])")


def file_number(name: str) -> int | None:
    """Number of a validation image in its file name, from 1; None if there is none."""
    found = _NUMBER.search(name.rpartition("/")[2])
    return int(found[1]) if found else None


def find_truth(folder: Path) -> Mapping[int, int] | None:
    """Read the first ground-truth file in a folder: number of the validation image to class number in [0, 1000).

    Args:
        folder: of the data; an unpacked devkit in it is searched, too.

    Returns:
        None if there is no such file.

    Raises:
        DataError: a file cannot be read, or has devkit numbers without a ``meta.mat``.
    """
    readers: dict[str, Callable[[Path, list[str]], Mapping[int, int]]] = {
        SYNSETS: _numbered_lines,
        SOLUTION: _solution,
        DEVKIT: _numbered_lines,
    }
    for name, read in readers.items():
        if (path := _look_for(name, folder)) is not None:
            return read(path, _lines(path))
    return None


def check_truth(names: Sequence[str], labels: Iterable[int], folder: Path) -> None:
    """Refuse class folders that a ground-truth file of class ids in the same folder contradicts.

    Args:
        names: of the images.
        labels: their class numbers, by the folders they lie in.
        folder: of the data.

    Raises:
        DataError: an image lies in the folder of another class, or the file cannot be read.
    """
    if all(_look_for(name, folder) is None for name in (SYNSETS, SOLUTION)):
        return
    truth = find_truth(folder) or {}
    for name, label in zip(names, labels, strict=True):
        number = file_number(name)
        if number is not None and truth.get(number, label) != label:
            raise DataError(
                f"{printable(name)}: its folder says class {label}, the file of labels in {printable(folder)} says "
                f"{truth[number]}; move it where it belongs, or take the wrong file of labels away"
            )


def missing_truth(where: str) -> DataError:
    """The error for numbered images without a ground-truth file."""
    return DataError(
        f"{printable(where)}: file numbers alone do not say the classes; put {SYNSETS} or {SOLUTION} beside it, or "
        f"{DEVKIT} with {META} (both are in ILSVRC2012_devkit_t12/data)"
    )


def _look_for(name: str, folder: Path) -> Path | None:
    return next((path for place in _PLACES if (path := folder / place / name).is_file()), None)


def _lines(path: Path) -> list[str]:
    try:
        return read_bytes(str(path), most=_MOST).decode("ascii").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{printable(path)} cannot be read ({error.__class__.__name__}); fetch it again") from error


def _numbered_lines(path: Path, lines: Sequence[str]) -> dict[int, int]:
    """Read one class per line, in the order of the image numbers: class ids, or the devkit's numbers of classes."""
    entries = [line.strip() for line in lines]
    if len(entries) != VALIDATION_IMAGES:
        raise DataError(
            f"{printable(path)} has {counted(len(entries), 'line')}, not {VALIDATION_IMAGES}; fetch it again"
        )
    if all(entry.isdecimal() for entry in entries):
        classes = _devkit_classes(path)
        found = {number: classes.get(int(entry)) for number, entry in enumerate(entries, start=1)}
    else:
        found = {number: class_numbers().get(entry) for number, entry in enumerate(entries, start=1)}
    return _known(path, found)


def _solution(path: Path, lines: Sequence[str]) -> dict[int, int]:
    """Read lines ``ILSVRC2012_val_00048981,n03995372 85 1 499 272``: image, then class ids and boxes of one class."""
    found: dict[int, int | None] = {}
    for place, line in enumerate(lines[1:], start=2):
        name, _, prediction = line.partition(",")
        if (number := file_number(name)) is None:
            continue
        classes = [word for word in prediction.split() if word in class_numbers()]
        if number in found or len({*classes}) > 1:
            what = f"names image {number} again" if number in found else f"gives image {number} several classes"
            raise DataError(f"{printable(path)}: line {place} {what} ({', '.join(classes)}); fetch the file again")
        found[number] = class_numbers().get(prediction.partition(" ")[0])
    return _known(path, found)


def _known(path: Path, classes: Mapping[int, int | None]) -> dict[int, int]:
    found = {number: label for number, label in classes.items() if label is not None}
    if len(found) < len(classes) or not found:
        first = next((number for number, label in classes.items() if label is None), 1)
        raise DataError(f"{printable(path)}: image {first} has no class of ImageNet-1k there; fetch the file again")
    return found


def _devkit_classes(truth: Path) -> dict[int, int]:
    """Read the devkit's ``meta.mat``: its number of a class, 1 to 1000, to the position among the sorted class ids."""
    meta = truth.with_name(META)
    if not meta.is_file():
        raise DataError(
            f"{printable(truth)} numbers the classes in the devkit's own order; put {META} of the same devkit beside "
            f"it, or {SYNSETS}"
        )
    if not is_installed("scipy"):
        raise DataError(f"{printable(meta)}: scipy is needed to read it; pip install scipy, or put {SYNSETS} there")
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        synsets = loadmat(meta, squeeze_me=True)["synsets"]
        numbers = {int(entry["ILSVRC2012_ID"]): class_numbers().get(str(entry["WNID"])) for entry in synsets}
    except (MatReadError, OSError, KeyError, IndexError, TypeError, ValueError) as error:
        raise DataError(f"{printable(meta)} is no {META} of the devkit; fetch it again") from error
    leaves = {number: label for number, label in numbers.items() if 1 <= number <= 1000 and label is not None}
    if len(set(leaves.values())) != len(class_numbers()):  # each class once; inner nodes have numbers above 1000
        raise DataError(f"{printable(meta)} does not name each class of ImageNet-1k once; fetch it again")
    return leaves
