"""Validation of stored values: types and ranges of every database row and fact that a sweep can have written.

A run may come from a stranger: a checksum shows that a value is what was written, not that a sweep would write it.
Every database row is validated when a store is opened, so code that reads one need not check again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from tomebench.datasets.decode import printable
from tomebench.runs.budget import BUDGETS
from tomebench.schema import WITH_OPTIONS, Cell, ImageList, Resolved, Status

_LONGEST = 500
_MOST = 2**53  # larger integers are not the same in every JSON reader
Count = Annotated[int, Field(ge=0, le=_MOST)]
Session = Annotated[int, Field(ge=0, le=2**31)]
Positive = Annotated[float, Field(gt=0, le=1e15)]
Amount = Annotated[float, Field(ge=0, le=1e15)]
Text = Annotated[str, Field(max_length=10_000)]
Key = Annotated[str, Field(max_length=200)]
Label = Annotated[int, Field(ge=-1, le=2**31)]
Size = Annotated[int, Field(ge=1, le=65_536)]
Plain = None | bool | Annotated[int, Field(ge=-_MOST, le=_MOST)] | float | Text


class _Record(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


class _Settings(_Record):
    """A stored configuration: the values that code acts on are typed, others may be any plain JSON."""

    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)
    __pydantic_extra__: dict[Key, Plain | list[Plain]]
    model: Text = ""
    r: Text | int = ""
    schedule: Annotated[str, Field(max_length=1_000_000)] = ""  # a search has many
    budget: Text = ""
    processes: Annotated[int, Field(ge=1, le=10_000)] = 1
    threads: Annotated[int, Field(ge=1, le=65_536)] | None = None


class _Images(_Record):
    name: Text
    digest: Key
    num_classes: Annotated[int, Field(ge=0, le=2**31)]
    note: Text | None = None
    labels: list[Label] | list[list[Label]]

    @model_validator(mode="after")
    def _even(self) -> _Images:
        rows = [label for label in self.labels if isinstance(label, list)]
        if rows and len({len(row) for row in rows} | {0}) != 2:
            raise ValueError("images with several labels need equally many")
        return self


class _AboutRound(_Record):
    other_cpus: Annotated[float, Field(ge=-1e6, le=1e6)] | None = None
    gpu_processes: Count | None = None


class _AboutBurst(_Record):
    mhz: Annotated[int, Field(ge=0, le=10**6)] | None = None
    passes: list[Positive] = []
    capped: Annotated[float, Field(ge=0, le=1)] | None = None
    slowed: Annotated[float, Field(ge=0, le=1)] | None = None
    backlog: Annotated[float, Field(ge=-1e6, le=1e6)] | None = None
    allocated: Count = 0
    joules: float | None = None  # in older stores


class _Testbed(_Record):
    """Fields of a testbed that every version has written."""

    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)
    __pydantic_extra__: dict[Key, bool | int | float | Text]
    device_name: Text
    driver: Text
    threads: Count
    usable_cpus: Amount
    torch: Text
    timm: Text
    python: Text


class _Item(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
    cell: Cell
    resolved: Resolved

    @model_validator(mode="after")
    def _fits(self) -> _Item:
        cell, resolved = self.cell, self.resolved
        numbers = (cell.r, cell.img_size, cell.batch_size, *resolved.r_layers, *resolved.tokens, resolved.tokens_in)
        if not all(0 <= number <= 10**9 for number in numbers) or not 1 <= cell.batch_size <= 65_536:
            raise ValueError("numbers that no cell has")
        texts = [*filter(lambda each: isinstance(each, str), vars(cell).values()), str(cell.options)]
        if max(map(len, texts)) > _LONGEST:
            raise ValueError("names that no cell has")
        options = dict(cell.options)
        if any(type(options[name]) is not type(getattr(cell, name)) for name in WITH_OPTIONS if name in options):
            raise ValueError("options that no cell has")
        if not resolved.tokens or len(resolved.tokens) != len(resolved.r_layers):
            raise ValueError("as many tokens as layers are needed")
        if min(resolved.gmacs, resolved.gmacs_unwrapped, resolved.params_m) <= 0:
            raise ValueError("work and parameters must be above 0")
        return self


class _Goal(_Record):
    max_drop: Annotated[float, Field(ge=0, le=100)] | None
    min_agreement: Annotated[float, Field(ge=0, le=100)] | None
    min_speedup: Positive | None
    max_latency_ms: Positive | None


class _Race(_Record):
    until: Literal["decided", "recommended", "all"]
    goal: _Goal | None = None
    total: Annotated[int, Field(ge=1, le=_MOST)] | None = None
    level: Annotated[float, Field(gt=0, lt=1)] | None = None
    over: bool = False
    chosen: Key | None = None
    found: Literal["sure", "seems", "beyond", "best"] | None = None
    against: bool = False

    @model_validator(mode="after")
    def _asks(self) -> _Race:
        if self.until != "all" and None in (self.goal, self.total, self.level):
            raise ValueError("a race that asks nothing")
        return self


class _SearchRace(_Record):
    made: list[Text]
    chosen: Key | None
    found: Literal["sure", "seems"] | None
    run: list[Key]
    rejected: list[Key]


class _Search(_Record):
    question: Key
    by: Key
    races: list[_SearchRace]
    over: bool
    found: Key | None
    constant: Key | None
    decreasing: Key | None


class _Share(_Record):
    share: Annotated[str, Field(pattern=r"^[0-9]{1,6}/[1-9][0-9]{0,5}$")]
    plan: Key
    run: Key
    runs: Annotated[list[Key], Field(min_length=1, max_length=100_000)]


def _differ(items: list[Any]) -> list[Any]:
    if len({item.cell.key for item in items}) < len(items):
        raise ValueError("a cell is there twice")
    return items


_Turn = tuple[Count, Positive] | tuple[Count, Positive, Session]
_Status: Any = Literal[get_args(Status)]
_Budget: Any = Literal[("none", *BUDGETS)]
_FACTS: Mapping[str, Any] = {
    "config": _Settings,
    "cells": Annotated[list[_Item], AfterValidator(_differ)],
    "images": _Images,
    "late": list[Session],
    "status": tuple[_Status, Text | None],
    "peak": Count,
    "round": _AboutRound,
    "read": list[tuple[Key, Key]],
    "number": Key,
    "sum": Annotated[int, Field(ge=0, le=2**62)],
}
"""Schemas of facts by kind."""
_NAMED: Mapping[str, Any] = {
    "batch_size": Size,
    "threads": Annotated[int, Field(ge=1, le=65_536)],
    "max_drop": Annotated[float, Field(ge=0, le=100)],
    "processes": dict[Key, Annotated[int, Field(ge=1, le=10_000)]],
    "budgets": dict[Key, _Budget],
    "timing": list[Key],
    "lost": list[Key],
    "made": dict[Key, Text],
    "end_to_end": dict[Key, Annotated[list[_Turn], Field(min_length=1)] | _Turn],
    "accuracy_sessions": list[Session],
    "device_memory": dict[Key, Count],
    "energy": dict[Key, Amount],
    "tokens_left": dict[Key, Amount],
    "selector": dict[Key, Annotated[list[tuple[Amount, Positive]], Field(min_length=1)]],
    "race": _Race,
    "share": _Share,
    "search": _Search,
    "compile_seconds": dict[Key, Amount],
    "output_excess": dict[Key, Amount],
}
"""Schemas of named facts by name."""


def _adapter(what: Any) -> TypeAdapter[Any]:
    return TypeAdapter(what) if isinstance(what, type) and issubclass(what, BaseModel) else _strict(what)


def _strict(what: Any) -> TypeAdapter[Any]:
    return TypeAdapter(what, config=ConfigDict(strict=True, allow_inf_nan=False))


_FACT = {kind: _adapter(what) for kind, what in _FACTS.items()}
_NAMED_FACT = {name: _adapter(what) for name, what in _NAMED.items()}
_ANY = _strict(Any)
_TESTBED = _adapter(_Testbed)
_Burst = tuple[Key, Count, Amount] | tuple[Key, Count, Amount, Count] | tuple[Key, Count, Amount, Count, _AboutBurst]
_BURSTS = _strict(list[_Burst])
_HALF = re.compile(r"(?<!\\ud[89ab][0-9a-f]{2})\\ud[c-f][0-9a-f]{2}|\\ud[89ab][0-9a-f]{2}(?!\\ud[c-f])")
"""Half of a surrogate pair, as Python escapes a byte that is no UTF-8 in JSON."""
_NUMBERED = frozenset({"round", "read"})
"""Kinds of facts that are named by a number."""


class UnusableValue(ValueError):
    """A value that no sweep writes; the text says which."""


def check_row(table: str, row: Sequence[Any]) -> None:
    """Refuse a database row with a value that no sweep writes.

    Args:
        table: its name.
        row: its values, without the checksum.

    Raises:
        UnusableValue: it has one.
    """
    try:
        _LOOKS[table](*row)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = printable(".".join(map(str, first["loc"])))[:60]
        raise UnusableValue(f"{_what(table, row)}{f' ({where})' if where else ''}: {first['msg'][:100]}") from error
    except (TypeError, ValueError, RecursionError) as error:
        raise UnusableValue(f"{_what(table, row)}: {str(error)[:100]}") from error


def check_together(
    cells: Sequence[Cell],
    images: ImageList | None,
    chunks: Mapping[int, int],
    answers: Iterable[tuple[int, int]],
    measured: bool,
) -> None:
    """Refuse values that are valid each but do not belong together: batches of other images, predictions for none.

    Args:
        cells: of the store.
        images: list of the images they are evaluated on.
        chunks: number of images by index of the evaluated batch.
        answers: index of the batch and number of images, for each cell's predictions of a batch.
        measured: there is a round or an evaluated batch.

    Raises:
        UnusableValue: such values are there.
    """
    if measured and not cells:
        raise UnusableValue("measurements of no cell")
    if not chunks:
        if any(True for _ in answers):
            raise UnusableValue("answers about no batch")
        return
    end = max(index * cells[0].batch_size + size for index, size in chunks.items())
    if images is None or end > len(images.labels):
        raise UnusableValue("answers about more images than there are")
    for chunk, count in answers:
        if chunks.get(chunk) != count:
            raise UnusableValue(f"answers about other images than those of batch {chunk}")


def _what(table: str, row: Sequence[Any]) -> str:
    parts = (table, row[0]) if table != "facts" else row[:2]
    return " ".join(text for part in parts if (text := printable(part)[:20]))


def _fact(kind: str, name: str, value: str) -> None:
    adapter = _NAMED_FACT.get(name, _ANY) if kind == "fact" else _FACT.get(kind, _ANY)
    if kind in _NUMBERED and not (name.isascii() and name.isdecimal()):
        raise ValueError("its name is no number")
    adapter.validate_json(_text(value))


def _session(number: int, testbed: str) -> None:
    _at_least(1, number)
    _TESTBED.validate_json(_text(testbed))


def _round(number: int, session: int, seed: int, bursts: str) -> None:
    _at_least(0, number, session, seed)
    for burst in _BURSTS.validate_json(_text(bursts)):
        if burst[1] < 1 or not 1e-7 <= burst[2] / burst[1] <= 1e6:
            raise ValueError("a pass that took no time, or weeks")


def _chunk(number: int, images: int, session: int | None, seconds: float | None, waited: float | None) -> None:
    _at_least(1, images)
    _at_least(0, number, *(each for each in (session,) if each is not None))
    if images > 65_536 or number > 10**9:
        raise ValueError("more images than a batch has")
    for each in (seconds, waited):
        if each is not None and not (isinstance(each, int | float) and 0 <= each <= 1e15):
            raise ValueError("a time that is none")


def _predictions(chunk: int, cell: str, top1: bytes, in_top5: bytes, ties: int, nonfinite: int) -> None:
    _at_least(0, chunk, ties, nonfinite)
    if not (isinstance(cell, str) and isinstance(top1, bytes) and isinstance(in_top5, bytes)):
        raise TypeError("not the bytes of predictions")
    if len(top1) % 2 or len(in_top5) != (len(top1) // 2 + 7) // 8:
        raise ValueError("its parts are of different numbers of images")


def _at_least(least: int, *numbers: object) -> None:
    for number in numbers:
        if not isinstance(number, int) or not least <= number < 2**63:
            raise ValueError("a number that cannot be")


def _text(value: object) -> str:
    """JSON in which a byte of a path that is no text is replaced by some character, for validation only."""
    if not isinstance(value, str):
        raise TypeError("not text")
    return _HALF.sub(r"\\u003f", value)


_LOOKS: Mapping[str, Callable[..., None]] = {
    "facts": _fact,
    "sessions": _session,
    "rounds": _round,
    "chunks": _chunk,
    "predictions": _predictions,
}
