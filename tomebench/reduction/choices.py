"""Option values of reduction methods: similarity metric, use of heads, distance, combination, partition into A and B.

Source: Bolya et al., arXiv 2210.09461, Table 1 and appendix D.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

from tomebench.errors import SpecError
from tomebench.vocabulary import WITH_OPTIONS, Scalar

if TYPE_CHECKING:
    from tomebench.reduction.method import BlockSize

Metric = Literal["k", "q", "v", "x", "x_pre", "k_rot"]
"""The similarity metric: attention keys, queries or values, or the tokens after or before the attention residual.

``k`` are the keys before a rotary model rotates them by their place, ``k_rot`` after it.
"""
HeadsChoice = Literal["mean", "concat"]
"""How the attention heads of a metric k, q, v or k_rot become one vector: averaged or concatenated."""
Distance = Literal["cosine", "euclidean", "dot", "softmax"]
"""The similarity: cosine; minus the Euclidean distance; dot product; softmax of m_A m_Bᵀ / sqrt(d) over B."""
Combine = Literal["weighted", "mean", "max", "keep"]
"""What a group is merged into: mean weighted by size, plain mean, maximum in every channel, or the token that stays."""
Partition = Literal["alternating", "sequential", "random"]
"""Sets A and B of bipartite matching: every second token, first and second half of the patches, or random halves."""

FLAGS: Mapping[str, Any] = {
    "metric": Metric, "heads": HeadsChoice, "distance": Distance, "combine": Combine, "partition": Partition
}  # fmt: skip
"""Options that have a flag of their own, with its values."""
_NAME, _RESERVED = re.compile(r"[a-z][a-z0-9_]{0,40}"), {"matching", "more", "source", "merges", *WITH_OPTIONS}


class Bounds(NamedTuple):
    """The least and the largest value of an option that is a number."""

    least: int
    most: int


class Text(NamedTuple):
    """The form of an option that is text, such as a list of numbers."""

    pattern: str  # regular expression of the whole; no white space, comma or =, which the command line reads itself
    form: str  # the same in words
    examples: tuple[str, ...]  # values that go with every model


def choices(kind: type, name: str) -> tuple[Any, ...]:
    """All values of a ``Literal`` option of an options dataclass, the default first."""
    return get_args(get_type_hints(kind)[name])


def check(options: Any) -> None:
    """Raise SpecError, naming the option, unless every field of a dataclass has a value that its type allows."""
    kind: type = type(options)
    hints = _hints(kind)
    for name in (field.name for field in dataclasses.fields(options)):
        hint = hints[name]
        if get_origin(hint) not in (Annotated, Literal):
            continue
        value = getattr(options, name)
        if get_origin(hint) is Annotated:
            if not _fits(value, get_args(hint)[1]):
                raise SpecError(f"{name} is {value!r}; use {_form(get_args(hint)[1])}")
        elif not any(type(each) is type(value) and each == value for each in get_args(hint)):
            raise SpecError(f"{name} is {value!r}; use {', '.join(map(written, get_args(hint)))}")
    if getattr(options, "metric", "k") in ("x", "x_pre") and getattr(options, "heads", "mean") != "mean":
        raise SpecError(f"metric {options.metric} has no heads; leave heads out, or use metric k, q or v")


@functools.cache  # a sweep checks the options of each of its cells
def _hints(kind: type) -> Mapping[str, Any]:
    """The type of every option of an options dataclass, with its bounds."""
    return get_type_hints(kind, include_extras=True)


def _fits(value: object, form: Bounds | Text) -> bool:
    if isinstance(form, Bounds):
        return type(value) is int and form.least <= value <= form.most
    return type(value) is str and re.fullmatch(form.pattern, value) is not None


def _form(form: Bounds | Text) -> str:
    if isinstance(form, Bounds):
        return f"a whole number from {form.least} to {form.most}"
    return form.form


@functools.cache
def check_declared(kind: type) -> None:
    """Check how the options of a method are declared.

    Raises:
        SpecError: an option is neither a Literal whose default comes first nor a whole number with Bounds nor a Text,
            or has the name of something else.
    """
    try:
        hints = _hints(kind)
    except Exception as error:
        raise SpecError(f"its options cannot be read: {error}") from error
    for option in dataclasses.fields(kind):
        name, hint, usual = option.name, hints[option.name], option.default
        if not _NAME.fullmatch(name) or name in _RESERVED or not option.init:
            raise SpecError(f"option {name} cannot be called so; use small letters, and none of {_listed(_RESERVED)}")
        values = get_args(hint)
        if get_origin(hint) is Literal and _can_be_written(values):
            if type(usual) is not type(values[0]) or usual != values[0]:
                raise SpecError(f"option {name} needs a default, the first of its values")
            flag = get_args(FLAGS.get(name, hint))
            if not {*values} <= {*flag} or usual != flag[0]:
                raise SpecError(f"option {name} has other values or another default than --{name}; call it otherwise")
        elif get_origin(hint) is Annotated and values[0] is str and isinstance(values[1], Text):
            if not all(_fits(each, values[1]) and _can_be_written((each,)) for each in (usual, *values[1].examples)):
                raise SpecError(f"option {name} needs a default and examples of its form, which commas do not divide")
        elif get_origin(hint) is not Annotated or values[0] is not int or not _is_range(values[1]):
            raise SpecError(f"option {name} is neither a Literal of words nor a whole number with Bounds")
        elif type(usual) is not int or not values[1].least <= usual <= values[1].most:
            raise SpecError(f"option {name} needs a default within its Bounds")


def _can_be_written(values: tuple[object, ...]) -> bool:
    """Whether values can be given on the command line, each in a way of its own."""
    words = [written(value) for value in values if isinstance(value, str | int)]
    return len({*words}) == len(values) > 0 and not any(re.search(r"[\s,=]|^$", word) for word in words)


def _is_range(bounds: object) -> bool:
    """Whether the numbers within bounds can be given on the command line: from 0 to nine digits."""
    return isinstance(bounds, Bounds) and all(type(each) is int and 0 <= each < 10**9 for each in bounds)


def written(value: object) -> str:
    """Write the value of an option as the command line and tables do: ``true`` and ``false`` for truth values."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def canonical(kind: type, name: str, texts: Iterable[str]) -> list[str]:
    """Values of an option, each written in one way and only once, in the order given.

    Raises:
        SpecError: one of them is no allowed value.
    """
    return list(dict.fromkeys(written(typed(kind, name, text)) for text in texts))


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))


def range_of(kind: type, name: str) -> str:
    """The values that an option of a dataclass accepts, as text: ``1 to 100``, or ``k, q, v, x, x_pre``."""
    hint = get_type_hints(kind, include_extras=True)[name]
    if get_origin(hint) is Annotated:
        form: Bounds | Text = get_args(hint)[1]
        return f"{form.least} to {form.most}" if isinstance(form, Bounds) else _form(form)
    return ", ".join(map(written, get_args(hint)))


def typed(kind: type, name: str, text: str) -> Scalar:
    """Parse text as a value of an option of a dataclass.

    Raises:
        SpecError: it is no allowed value; the message lists these.
    """
    hint = get_type_hints(kind, include_extras=True)[name]
    if get_origin(hint) is Annotated:
        form: Bounds | Text = get_args(hint)[1]
        number = isinstance(form, Bounds) and text.isascii() and text.isdigit() and len(text) < 10
        value: Scalar = int(text) if number else text
        if _fits(value, form):
            return value
        raise SpecError(f"{name} is {text!r}; use {_form(form)}")
    found: Scalar | None = next((each for each in get_args(hint) if written(each) == text), None)
    if found is None:
        raise SpecError(f"{name} is {text!r}; use {range_of(kind, name)}")
    return found


def metric_channels(metric: Metric, heads: HeadsChoice, block: BlockSize) -> int:
    """Channels d of the similarity metric [B, N, d] in a block."""
    if metric in ("x", "x_pre"):
        return block.token_dim
    return block.heads_dim if heads == "concat" else block.head_dim
