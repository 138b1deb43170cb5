"""Cells and rows: identity, reading and writing, and that the column table covers every field."""

from __future__ import annotations

import dataclasses
import json
import math
import subprocess
import sys
import types
import typing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tomebench.runs.row import COLUMNS, Row
from tomebench.schema import Burst, Cell, Resolved, canonical_json, fingerprint

names = st.text(max_size=12)
finite = st.floats(allow_nan=False, allow_infinity=False)
ints = st.integers(-(2**53), 2**53)
CELLS = st.builds(
    Cell,
    model=names,
    weights=names,
    img_size=ints,
    method=names,
    options=st.dictionaries(names, st.booleans() | ints | finite | names, max_size=3).map(
        lambda options: tuple(sorted(options.items()))
    ),
    schedule=st.sampled_from(["constant", "decreasing", "list:0,0", "inflect:-0.5"]),
    r=ints,
    batch_size=ints,
    dtype=names,
    device=names,
    attention=names,
    compile=st.booleans(),
    mode=names,
)
int_tuples = st.lists(ints, max_size=4).map(tuple)
float_tuples = st.lists(finite, max_size=3).map(tuple)
RESOLVED = st.builds(
    Resolved,
    timm_id=names,
    r_layers=int_tuples,
    tokens=int_tuples,
    tokens_in=ints,
    clamped=st.booleans(),
    gmacs=finite,
    gmacs_unwrapped=finite,
    gmacs_matching=finite,
    params_m=finite,
    attn_kernel=names,
    crop_pct=finite,
    interpolation=names,
    mean=float_tuples,
    std=float_tuples,
)
CELL = Cell("m", "random:0", 224, "tome", (), "constant", 8, 2, "fp32", "cpu")


@given(CELLS)
def test_a_cell_survives_json(cell: Cell) -> None:
    again = Cell.from_json(json.loads(json.dumps(cell.to_json())))
    assert again == cell
    assert hash(again) == hash(cell)
    assert again.key == cell.key
    assert len(cell.key) == 16


@given(RESOLVED)
def test_resolved_survives_json(resolved: Resolved) -> None:
    again = Resolved.from_json(json.loads(json.dumps(resolved.to_json())))
    assert again == resolved
    assert hash(again) == hash(resolved)


def changed(cell: Cell, name: str) -> Cell:
    """The cell with one field set to something else."""
    value = getattr(cell, name)
    other = {bool: not value, int: value + 1 if isinstance(value, int) else 0, str: f"{value}'"}
    return dataclasses.replace(cell, **{name: other.get(type(value), (("metric", "q"),))})


@pytest.mark.parametrize("name", [f.name for f in dataclasses.fields(Cell)])
def test_every_field_of_a_cell_is_part_of_its_key(name: str) -> None:
    other = changed(CELL, name)
    assert other != CELL
    assert other.key != CELL.key


def test_the_key_is_the_same_in_another_process() -> None:
    code = "from tomebench.schema import Cell;print(Cell('m','random:0',224,'tome',(),'constant',8,2,'fp32','cpu').key)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == CELL.key


@pytest.mark.parametrize(
    ("r", "schedule", "is_baseline"),
    [(0, "constant", True), (0, "decreasing", True), (8, "constant", False), (0, "list:1,0,0", False)],
)
def test_the_baseline_is_r_0_without_a_list(r: int, schedule: str, is_baseline: bool) -> None:
    assert dataclasses.replace(CELL, r=r, schedule=schedule).is_baseline is is_baseline


def test_equal_values_have_one_fingerprint_and_others_another() -> None:
    assert fingerprint({"a": 1, "b": [2.5, None]}) == fingerprint({"b": [2.5, None], "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": 2})
    assert canonical_json({"b": 1, "a": "ä"}) == '{"a":"\\u00e4","b":1}'


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_a_number_has_no_json(value: float) -> None:
    with pytest.raises(ValueError, match="JSON"):
        canonical_json({"x": [value]})


def test_seconds_of_one_step() -> None:
    assert Burst("k", steps=4, seconds=2.0).step_seconds == 0.5


# --- the column table ---------------------------------------------------------------------------------------------

PYTHON_TYPE = {
    "str": str,
    "int": int,
    "float": float,
    "bool": bool,
    "ints": tuple[int, ...],
    "floats": tuple[float, ...],
    "strs": tuple[str, ...],
}


def plain(hint: object) -> object:
    """A type hint without its ``| None``; a Literal of strings is a str."""
    if isinstance(hint, types.UnionType):
        (hint,) = (part for part in typing.get_args(hint) if part is not types.NoneType)
    return str if typing.get_origin(hint) is typing.Literal else hint


def test_plain_takes_none_away_and_nothing_else() -> None:
    assert plain(float | None) is float
    assert plain(tuple[int, ...]) == tuple[int, ...]
    assert plain(typing.Literal["a", "b"]) is str
    assert plain(int) is not float


def test_every_field_of_a_row_is_a_column_once_and_nothing_else_is() -> None:
    columns = [column.name for column in COLUMNS]
    assert sorted(columns) == sorted(field.name for field in dataclasses.fields(Row))
    assert len(set(columns)) == len(columns)


@pytest.mark.parametrize("column", COLUMNS, ids=lambda column: column.name)
def test_a_column_says_what_its_field_is(column: typing.Any) -> None:
    assert plain(typing.get_type_hints(Row)[column.name]) == PYTHON_TYPE[column.dtype]
    assert column.doc
    assert "\n" not in column.doc
    if column.format:
        sample = {"int": 7, "float": 1.25}[column.dtype]
        assert format(sample, column.format)
    if column.better is not None:
        assert column.dtype in ("int", "float")


def test_the_columns_a_reader_counts_on_are_there() -> None:
    promised = {
        *("model", "method", "r", "schedule", "tokens_out", "gmacs", "img_per_s", "efficiency", "peak_mem_mib"),
        *("speedup_vs_r0", "speedup_vs_r0_lo", "speedup_vs_r0_hi", "speedup_vs_unwrapped", "status", "warnings"),
        *("top1", "top1_correct", "top5_correct", "n_seen", "delta_top1", "delta_top1_lo", "delta_top1_hi"),
    }
    assert promised <= {column.name for column in COLUMNS}


def test_what_is_not_measured_is_none_and_never_zero() -> None:
    defaults = {f.name: f.default for f in dataclasses.fields(Row) if f.default is not dataclasses.MISSING}
    numbers = {column.name for column in COLUMNS if column.dtype in ("int", "float")} - {"rounds"}
    assert {name: value for name, value in defaults.items() if name in numbers and value is not None} == {}


@pytest.mark.parametrize(
    ("changes", "written"),
    [
        ({}, [["prop_attn", True]]),
        ({"prop_attn": False, "options": (("metric", "q"),)}, [["metric", "q"], ["prop_attn", False]]),
        (
            {"prefix_only": True, "preprocessing": "tome"},
            [["prefix_only", True], ["preprocessing", "tome"], ["prop_attn", True]],
        ),
    ],
)
def test_stores_have_what_is_no_option_of_the_method_among_the_options(changes: dict, written: list) -> None:
    cell = dataclasses.replace(CELL, **changes)
    stored = json.loads(json.dumps(cell.to_json()))
    assert stored["options"] == written
    assert not {*changes} - {"options"} & {*stored}
    assert Cell.from_json(stored) == cell


def test_the_key_is_that_of_the_first_stores() -> None:
    assert CELL.key == "231140b6db7d15c2"
