"""Validators of setting values: each returns the value, or raises ValueError that says what is accepted."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from tomebench.reduction.choices import written
from tomebench.reduction.methods.flags import choices
from tomebench.reduction.schedule import parse_schedule, split_schedules
from tomebench.rspec import parse_r

_OPTION_NAME = re.compile(r"([a-z][a-z0-9-]{0,40}\.)?[a-z][a-z0-9_]{0,40}")


def text(value: str) -> str:
    """Refuse characters that neither a name nor a path can hold."""
    if not value.strip():
        raise ValueError("must not be empty")
    if "\0" in value:
        raise ValueError("must not contain a NUL character")
    return value


def path(value: object) -> object:
    """Text to a path, ``~`` expanded as a shell does it."""
    return Path(os.path.expanduser(text(value))) if isinstance(value, str) else value  # noqa: PTH111 (never raises)


def path_text(value: object) -> object:
    """A path back to its text."""
    return str(value) if isinstance(value, Path) else value


def r_text(value: object) -> object:
    """Accept the natural YAML forms ``r: 8`` and ``r: [0, 8]``, as text."""
    items = value if isinstance(value, list | tuple | range) else [value]
    return ",".join(map(str, items)) if items and all(type(item) is int for item in items) else value


def checked_r(value: str) -> str:
    """Check that values of r can be parsed."""
    parse_r(value)
    return value


def listed(value: object) -> object:
    """A list of texts as one text with commas; anything else as it is."""
    several = isinstance(value, list | tuple) and value and all(isinstance(each, str) for each in value)
    return ",".join(value) if several else value  # type: ignore[arg-type]


def names(value: str) -> str:
    """Names with commas between them, each once."""
    return ",".join(dict.fromkeys(text(each).strip() for each in value.split(",")))


def checked_schedule(value: str) -> str:
    """Check that schedules, with commas between them, can be parsed."""
    found = split_schedules(value)
    for each in found:
        parse_schedule(each)
    return ",".join(found)


def checked_device(value: str) -> str:
    """Check that a text is the name of a device."""
    if not re.fullmatch(r"auto|cpu|cuda(:[0-9]{1,3})?", value):
        raise ValueError("use auto, cpu, cuda or cuda:N")
    return value


def checked_name(value: str) -> str:
    """Check that a text is the name of a folder, not a path."""
    text(value)
    if re.search(r"[/\\]", value) or value in (".", "..") or len(value) > 100:
        raise ValueError("is not the name of a folder under results/; use --out for a folder elsewhere")
    return value


def reference_parts(value: str) -> tuple[str, int | None]:
    """Model and input size of a reference, ``MODEL`` or ``MODEL@PIXELS``; None: the model's own size."""
    name, _, size = value.rpartition("@")
    return (name, int(size)) if name and re.fullmatch(r"[0-9]{1,4}", size) else (value, None)


def checked_reference(value: str) -> str:
    """Check that a text names a model, with or without an input size."""
    text(reference_parts(text(value))[0])
    return value


def digits_to_int(value: object) -> object:
    """Text of digits to its number: the command line gives nothing but text."""
    return int(value) if isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}", value) else value


def checked_batch_size(value: str | int) -> str | int:
    """Check a batch size: ``auto``, or a number of images."""
    if value != "auto" and not (isinstance(value, int) and 1 <= value <= 65536):
        raise ValueError("use auto, or a whole number from 1 to 65536")
    return value


def checked_cells(value: str) -> str:
    """Check a part of the values of r, as i/n."""
    found = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", value)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise ValueError("use i/n with i from 1 to n, as in 1/4, 2/4, 3/4 and 4/4")
    return f"{int(found[1])}/{int(found[2])}"


def checked_max_drop(value: float) -> float:
    """Check a loss of top-1 in points.

    Raises:
        ValueError: less than 0, more than 100, or no number.
    """
    if not isinstance(value, int | float) or not 0 <= value <= 100:
        raise ValueError("use a number of points of top-1, from 0 to 100")
    return value


def above_zero(value: float) -> float:
    """Check a number that must be above 0.

    Raises:
        ValueError: it is not.
    """
    if not 0 < value < 1e12:  # nor if it is no number
        raise ValueError("use a number above 0")
    return value


def checked_percentage(value: float) -> float:
    """Check a percentage.

    Raises:
        ValueError: less than 0, more than 100, or no number.
    """
    if not 0 <= value <= 100:
        raise ValueError("use a percentage from 0 to 100")
    return value


def option_text(value: object) -> object:
    """Options of methods, each ``name=a,b`` or ``method.name=a,b``, as one text sorted by name.

    Args:
        value: such a text, a list of them or a mapping of names to values.

    Raises:
        ValueError: an option is not a name with values, or is given twice.
    """
    if isinstance(value, Mapping):
        items = [(str(name), _joined(values)) for name, values in value.items()]
    elif isinstance(value, str | list | tuple):
        words = value.split() if isinstance(value, str) else [word for each in value for word in str(each).split()]
        items = [(name, values) for name, _, values in (word.partition("=") for word in words)]
    else:
        return value
    found: dict[str, str] = {}
    for name, values in items:
        if not _OPTION_NAME.fullmatch(name) or not all(values.split(",")):
            raise ValueError("write NAME=VALUE, or NAME=A,B for several cells (see: tomebench list methods NAME)")
        if name in found:
            raise ValueError(f"{name} is there twice; write {name}=A,B for several cells")
        found[name] = ",".join(dict.fromkeys(values.split(",")))
    return " ".join(f"{name}={found[name]}" for name in sorted(found)) or None


def _joined(values: object) -> str:
    """Values of an option, one or a list of them, with commas between them."""
    several = values if isinstance(values, list | tuple | range) else [values]
    if not all(isinstance(each, str | int | float) for each in several):
        raise ValueError("write a value, or a list of values, for each option")
    words = [written(each) for each in several]
    if any(word.split() != [word] for word in words):
        raise ValueError("write values without spaces, and commas or a list for several cells")
    return ",".join(words)


def option_values(text: object) -> dict[str, list[str]]:
    """Values of every option in a text that :func:`option_text` gives."""
    return {name: values.split(",") for name, _, values in (word.partition("=") for word in str(text or "").split())}


def choice(name: str) -> Callable[[str], str]:
    """Validator of one value of an option, or several with commas between them, each a cell of its own."""

    def checked(value: str) -> str:
        given = [each.strip() for each in value.split(",")]
        for each in given:
            if each not in choices(name):
                raise ValueError(f"use {', '.join(choices(name))}, or several of them with commas")
        return ",".join(dict.fromkeys(given))

    return checked


def between(least: int, most: int | None = None) -> Callable[[int], int]:
    """Validator of a number from ``least`` to ``most``."""

    def checked(value: int) -> int:
        if value < least:
            raise ValueError(f"must be {least} or more")
        if most is not None and value > most:
            raise ValueError(f"must be at most {most}")
        return value

    return checked
