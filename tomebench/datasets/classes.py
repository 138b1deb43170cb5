"""Class order: the model output that each folder or label of a data set stands for, by ImageNet id or class list.

The position of a class among a model's outputs is never guessed. It comes from a list of names: the one that the user
gives, or those that are found with the model, which must agree. Where there is no list and there are as many folders as
outputs, it is that of the sorted folder names, as ImageFolder and timm number them, and the note of the images says so.
"""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from tomebench.datasets.decode import printable
from tomebench.datasets.listing import same_name
from tomebench.errors import DataError
from tomebench.words import are, counted

NUM_CLASSES = 1000
IMAGENET_21K = frozenset({11221, 11821, 21841, 21842, 21843})
"""Sizes of class heads that were trained on ImageNet-21k or most of it."""
SORTED, NATURAL = "sorted", "natural"
ORDERS = (SORTED, NATURAL)
"""Values of ``--class-names`` instead of a list: folders sorted as text, as ImageFolder does, or naturally, as timm."""
_SHOWN = 5


@functools.cache
def wnids() -> tuple[str, ...]:
    """The 1000 class ids (WordNet ids) of ImageNet-1k, sorted; a class's number is its position here."""
    return tuple(Path(__file__).with_name("imagenet_wnids.txt").read_text(encoding="ascii").split())


@functools.cache
def class_numbers() -> dict[str, int]:
    """Class id to class number, in [0, 1000)."""
    return {wnid: number for number, wnid in enumerate(wnids())}


@dataclass(frozen=True)
class ClassNames:
    """A list of class names in the order of a model's outputs, and its source."""

    names: tuple[str, ...]
    source: str

    def __str__(self) -> str:
        return f"{self.source} ({len(self.names)} names: {few(self.names, _SHOWN)})"


@dataclass(frozen=True)
class ClassHead:
    """A model's class head: number of outputs, and what is known of the names and order of their classes."""

    num_classes: int  # 0: the model has no class head
    found: tuple[ClassNames, ...] = ()  # every list that came with the model
    chosen: ClassNames | None = None  # the list that the user gave, which overrides all others
    order: str | None = None  # one of ORDERS, where the user gave that
    fitted_on: frozenset[str] = frozenset()  # digests of the images that it was fitted on, as ImageSet.digest has them

    def names(self) -> ClassNames | None:
        """Class names of all outputs; None where there is no list.

        Raises:
            DataError: a list has another length than the outputs, or two lists disagree.
        """
        lists = (self.chosen,) if self.chosen is not None else () if self.order is not None else self.found
        for each in lists:
            if len(each.names) != self.num_classes:
                raise DataError(
                    f"{each} does not fit the model, which has {counted(self.num_classes, 'class')}; "
                    f"{'give' if each is self.chosen else 'pass --class-names with'} a list of {self.num_classes} names"
                )
            _check_names(each)
        return agreed(lists)

    def has_list_of(self, there: Sequence[str]) -> bool:
        """Whether one of the lists contains all these class names."""
        lists = self.found if self.chosen is None else (self.chosen,)
        return any({*there} <= {*each.names} for each in lists)

    def may_be_imagenet(self, there: Sequence[str]) -> bool:
        """Whether a data set with classes of ImageNet-1k in it is ImageNet-1k for this class head.

        A model of ImageNet-21k, or without class head, is refused later, with what to do.
        """
        if self.chosen is not None or self.order is not None or self.has_list_of(there):
            return False
        if self.num_classes in IMAGENET_21K:
            return class_numbers().keys() >= {*there}
        return self.num_classes in (0, NUM_CLASSES)

    def lists_seen(self) -> str:
        """The lists of class names, in words for messages."""
        if self.order is not None:  # none was looked for
            return f"--class-names {self.order} takes no list"
        lists = [*(() if self.chosen is None else (self.chosen,)), *self.found]
        return f"lists of class names: {'; '.join(map(str, lists))}" if lists else "no list of class names was found"


ANY_HEAD = ClassHead(-1)
"""Stands for a class head that fits any data set, to look at one without a model."""
TO_FIT = ClassHead(-1, order=SORTED)
"""Stands for a class head that is to be fitted: the classes are those of the data set, in any order."""


@dataclass(frozen=True)
class ClassMap:
    """The classes of a data set in the order of their numbers."""

    names: tuple[str, ...]
    how: str | None = None  # where the order comes from; None: the class ids of ImageNet-1k
    by_position: bool = False  # the order is that of the folders, not of a list

    @functools.cached_property
    def numbers(self) -> dict[str, int]:
        """Class number by name."""
        return {name: number for number, name in enumerate(self.names)}

    @property
    def is_imagenet(self) -> bool:
        """Whether these are the classes of ImageNet-1k by their ids."""
        return self.how is None


@functools.cache
def imagenet() -> ClassMap:
    """The classes of ImageNet-1k: the 1000 sorted class ids."""
    return ClassMap(wnids())


def map_classes(where: str, there: Sequence[str], head: ClassHead | None, *, ordered: bool = False) -> ClassMap:
    """Map the classes of a data set to the outputs of a model.

    Args:
        where: the data set, for messages.
        there: names of its classes, sorted; or in its own order.
        head: the model's class head; None: one for ImageNet-1k.
        ordered: the data set itself numbers its classes, in this order.

    Raises:
        DataError: nothing says which output a class has; the message says what was found and what to pass.
    """
    ids = class_numbers().keys()
    if head is None:
        return imagenet()
    if head in (ANY_HEAD, TO_FIT):
        if not ids.isdisjoint(there):
            return imagenet()
        _check_apart(where, there)
        return ClassMap(tuple(there), "own classes")
    if not ids.isdisjoint(there) and head.may_be_imagenet(there):
        return imagenet()
    if head.num_classes == 0:
        raise DataError("the model has no classifier; use weights that were trained for classes")
    if (names := head.names()) is not None:
        return _by_list(where, there, names)
    if len(there) != head.num_classes:
        raise DataError(
            f"{printable(where)} has {_counted(there)}, the model has {counted(head.num_classes, 'class')}, and "
            f"{head.lists_seen()}; pass the model's own list with --class-names FILE (a name in each line, in the "
            "order of its outputs), or weights that were trained on these classes with --checkpoint"
        )
    if ordered and head.order is None:
        return ClassMap(tuple(there), "classes in the data set's own order")
    return _by_folders(where, there, head.order)


def agreed(lists: Sequence[ClassNames]) -> ClassNames | None:
    """The first of some lists of class names, which must all agree; None if there is none.

    Raises:
        DataError: two disagree; the message names the first class that they call differently.
    """
    for other in lists[1:]:
        first = lists[0]
        for number, (one, two) in enumerate(zip_longest(first.names, other.names, fillvalue="")):
            if one != two:
                raise DataError(
                    f"two lists of class names disagree: class {number} is {printable(one)!r} in {first.source} and "
                    f"{printable(two)!r} in {other.source}; pass the right one with --class-names"
                )
    return lists[0] if lists else None


def _by_list(where: str, there: Sequence[str], names: ClassNames) -> ClassMap:
    unknown = [name for name in there if name not in names.names]
    if unknown:
        raise DataError(
            f"{printable(where)} has {_counted(there)}, of which {few(unknown, _SHOWN)} "
            f"{are(len(unknown))} not in {names}; rename or move them out, or pass the list that "
            "has them with --class-names"
        )
    return ClassMap(names.names, f"classes by {names.source}")


def _by_folders(where: str, there: Sequence[str], order: str | None) -> ClassMap:
    """Order classes by folder name; where the user names no order, ImageFolder's and timm's must agree."""
    from timm.utils.misc import natural_key

    _check_apart(where, there)
    as_text, as_timm = sorted(there), sorted(there, key=natural_key)
    if order is None and as_text != as_timm:
        number = next(k for k, pair in enumerate(zip(as_text, as_timm, strict=True)) if len({*pair}) > 1)
        raise DataError(
            f"{printable(where)}: ImageFolder and timm number these folders differently (class {number} is "
            f"{printable(as_text[number])!r} or {printable(as_timm[number])!r}); say which the model was trained with, "
            f"--class-names {SORTED} or --class-names {NATURAL}, or pass its list"
        )
    chosen = as_timm if order == NATURAL else as_text
    said = " as timm sorts them" if order == NATURAL and as_text != as_timm else ""
    return ClassMap(tuple(chosen), f"classes in the order of sorted folder names{said}", by_position=True)


def _check_apart(where: str, there: Sequence[str]) -> None:
    """Refuse folders whose names some file systems take for one; single letters differ in capitals on purpose.

    Raises:
        DataError: two names differ in capitals or the coding of accents only; names both.
    """
    seen: dict[str, str] = {}
    for name in there:
        composed = unicodedata.normalize("NFC", name)
        other = seen.setdefault(composed if len(composed) == 1 else same_name(name), name)
        if other != name:
            raise DataError(
                f"{printable(where)}: the folders {other!a} and {name!a} differ in capitals or the coding of "
                "accents only, and are one on other machines; put their images into one, or pass the model's list "
                "that has both with --class-names"
            )


def _check_names(listed: ClassNames) -> None:
    if "" in listed.names:
        raise DataError(f"{listed.source}: class {listed.names.index('')} has an empty name; write all names")
    if len({*listed.names}) < len(listed.names):
        twice = next(name for name in listed.names if listed.names.count(name) > 1)
        raise DataError(f"{listed.source} has {printable(twice)!r} twice; give every class a name of its own")


def _counted(names: Sequence[str]) -> str:
    return f"{counted(len(names), 'class')} ({few(names, _SHOWN)})"


def few(names: Sequence[str], shown: int = 3) -> str:
    """The first few names, printable, in one line."""
    return ", ".join(map(printable, names[:shown])) + (", ..." if len(names) > shown else "")
