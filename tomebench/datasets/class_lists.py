"""Read lists of class names: a text file with a name in each line, or JSON (``class_to_idx``, ``id2label``, ...)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tomebench.datasets.classes import ClassNames, agreed
from tomebench.datasets.decode import printable
from tomebench.errors import DataError
from tomebench.regular import read_bytes

BESIDE = ("classes.txt", "class_to_idx.json", "labels.txt", "class_names.txt", "class_names.json")
"""Names of files beside a model or data set that hold its list of class names."""
CONFIG = "config.json"
"""The file in which timm and transformers keep a model's settings, its class names among them."""
_KEYS = ("label_names", "class_names", "classes", "class_to_idx", "label2id", "id2label", "labels")
_SAMPLES = "labels"
"""The one of these keys that may also hold the labels of single images."""
_LARGEST = 16 << 20


def read_class_names(path: Path, source: str | None = None) -> ClassNames:
    """Read a file of class names.

    Args:
        path: text with a name in each line; or JSON: a list of names, a mapping of names to numbers
            (``class_to_idx.json``) or of numbers to names (``id2label``), or settings with one of these in them.
        source: how messages call the file; by default its path.

    Raises:
        DataError: there is no such file, or it is in none of these forms.
    """
    source = source or printable(path)
    text = _text(path)
    if not text.lstrip().startswith(("{", "[")):
        lines = [line.strip() for line in text.rstrip().splitlines()]
        if not lines:
            raise DataError(f"{source} is empty; write a class name in each line, in the order of the model's outputs")
        return ClassNames(tuple(lines), source)
    content = _json(path, text)
    lists = lists_in(content, source, strict=True) if isinstance(content, dict) else []
    names = agreed(lists) or as_names(content, source)
    if names is None:
        raise DataError(
            f"{source} is no list of class names; give a name in each line, a JSON list, or names with their numbers"
        )
    return names


def lists_in(content: Mapping[Any, Any], source: str, *, strict: bool = False) -> list[ClassNames]:
    """Every list of class names that settings or a checkpoint hold under one of the usual keys.

    Args:
        content: the settings; a single number or word under such a key is ignored.
        source: how messages call them.
        strict: refuse a list or mapping that does not name classes, instead of leaving it out.

    Raises:
        DataError: a list or mapping does not name classes.
    """
    found = []
    for key in _KEYS:
        value = content.get(key)
        names = as_names(value, f"{key} in {source}")
        if names is not None:
            found.append(names)
        elif strict and value and isinstance(value, list | Mapping) and key != _SAMPLES:
            raise DataError(
                f"{key} in {source} does not name the classes 0, 1, 2, ... once each; correct it, or give another list "
                "with --class-names"
            )
    return found


def as_names(content: Any, source: str) -> ClassNames | None:
    """Class names in order, from a list of names or a mapping between names and numbers; None for anything else."""
    if isinstance(content, list | tuple) and content and all(isinstance(name, str) for name in content):
        return ClassNames(tuple(content), source)
    if not isinstance(content, Mapping) or not content:
        return None
    if all(isinstance(name, str) and type(number) is int for name, number in content.items()):
        numbered = {number: str(name) for name, number in content.items()}
    elif all(str(number).isdecimal() and isinstance(name, str) for number, name in content.items()):
        numbered = {int(number): name for number, name in content.items()}
    else:
        return None
    if len(numbered) < len(content) or sorted(numbered) != list(range(len(numbered))):
        return None
    return ClassNames(tuple(numbered[number] for number in range(len(numbered))), source)


def names_beside(folder: Path, of: str = "") -> ClassNames | None:
    """The list of class names in a folder of images or shards, from a file of ``BESIDE``; None if there is none.

    Raises:
        DataError: there are two that disagree, or one cannot be read.
    """
    found = all_beside(folder, of)
    for other in found[1:]:
        if other.names != found[0].names:
            raise DataError(f"{other.source} and {found[0].source} name other classes; take the wrong one away")
    return found[0] if found else None


def all_beside(folder: Path, of: str = "") -> list[ClassNames]:
    """Every list of class names in a folder, in the order of ``BESIDE``.

    Raises:
        DataError: one cannot be read.
    """
    where = of or printable(folder)
    return [
        read_class_names(folder / name, f"{name} in {where}" if not of else f"{name} beside {of}")
        for name in BESIDE
        if (folder / name).is_file()
    ]


def lists_in_config(path: Path) -> list[ClassNames]:
    """Every list of class names that a ``config.json`` holds, at its top level or in timm's ``pretrained_cfg``.

    Raises:
        DataError: it cannot be read, or a list or mapping in it does not name classes.
    """
    content = _json(path, _text(path))
    if not isinstance(content, dict):
        return []
    found = lists_in(content, printable(path), strict=True)
    if isinstance(inner := content.get("pretrained_cfg"), dict):
        found += lists_in(inner, f"pretrained_cfg of {printable(path)}", strict=True)
    return found


def _text(path: Path) -> str:
    try:
        return read_bytes(str(path), most=_LARGEST).decode("utf-8-sig")
    except OSError as error:
        raise DataError(f"{printable(path)}: {error.strerror}; give a file of class names") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{printable(path)} is not UTF-8 text; give a file of class names") from error


def _json(path: Path, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{printable(path)} is not valid JSON ({str(error)[:80]}); correct it, or give a list of "
            "class names with --class-names"
        ) from error
