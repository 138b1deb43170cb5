"""Parse and format the value of ``--r``: ``"0..24"``, ``"0..24:4"``, ``"0,8,16"`` <-> tuples of ints."""

from __future__ import annotations

import itertools
import operator
import re
from collections import Counter
from collections.abc import Iterable, Sequence

from tomebench.errors import SpecError

MAX_R = 4096
"""Largest r accepted; far above the token count of any ViT, so that a typing slip is caught."""

_RANGE = re.compile(r"([0-9]+)\.\.([0-9]+)(?::([0-9]+))?")


def parse_r(text: str) -> tuple[int, ...]:
    """Parse an r specification.

    Args:
        text: comma-separated parts; a part is an integer ``a``, a range ``a..b`` (both ends
            included) or a range with a step ``a..b:s``.

    Returns:
        The values in the order given; no value twice; each in ``[0, MAX_R]``.

    Raises:
        SpecError: empty, negative, not a number, reversed, duplicate or too large.
    """
    values: list[int] = []
    given = f"--r {_shorten(text)!r}"
    for part in (p.strip() for p in text.split(",")):
        if match := _RANGE.fullmatch(part):
            low, high, step = (_number(digits, given) for digits in match.groups(default="1"))
            if low > high:
                raise SpecError(f"{given}: range {_shorten(part)!r} runs backwards; write {high}..{low}")
            if step == 0:
                raise SpecError(f"{given}: the step in {_shorten(part)!r} is 0; use 1 or more")
            values.extend(range(low, high + 1, step))
        elif part.isascii() and part.isdigit():
            values.append(_number(part, given))
        elif re.fullmatch(r"-[0-9]+(\.\..*)?", part):
            raise SpecError(f"{given}: r is a number of tokens to remove and cannot be negative")
        else:
            shown = repr(_shorten(part)) if part else "an empty part"
            raise SpecError(f"{given}: cannot read {shown}; write for example 0..24, 0..24:4 or 0,8,16")
    if repeated := [value for value, count in Counter(values).items() if count > 1]:
        raise SpecError(f"{given}: {min(repeated)} is given twice; name every r once")
    return tuple(values)


def format_r(values: Sequence[int]) -> str:
    """Format values of r as text that :func:`parse_r` reads back, as a range if they are one."""
    items = tuple(values)
    if len(items) >= 3:
        step = items[1] - items[0]
        if step > 0 and all(b - a == step for a, b in itertools.pairwise(items)):
            return f"{items[0]}..{items[-1]}" + (f":{step}" if step > 1 else "")
    return ",".join(map(str, items))


def _number(digits: str, given: str) -> int:
    """Convert digits to an int of at most MAX_R; checks their number first, as Python refuses thousands of digits."""
    digits = digits.lstrip("0") or "0"
    if len(digits) > len(str(MAX_R)) or int(digits) > MAX_R:
        raise SpecError(f"{given}: {_shorten(digits)} is more than {MAX_R}; no Vision Transformer has that many tokens")
    return int(digits)


def _shorten(text: str) -> str:
    """Cut text to 40 characters, to fit a message of one line."""
    return text if len(text) <= 40 else f"{text[:37]}..."


def text_of(r: str | int | Iterable[int]) -> str:
    """Values of r as text that :func:`parse_r` reads; integers of any library are accepted.

    Raises:
        SpecError: they are no whole numbers.
    """
    if isinstance(r, str):
        return r
    try:
        return ",".join(str(operator.index(value)) for value in (r if isinstance(r, Iterable) else [r]))
    except TypeError as error:
        raise SpecError(f"r {r!r}: give whole numbers such as 8 or [0, 8, 16], or text such as '0..24'") from error
