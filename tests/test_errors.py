"""The exception tree: its exit codes, and that the drawing in its docstring is the tree that exists."""

from __future__ import annotations

import inspect
import re

import pytest

from tomebench import errors
from tomebench.errors import TomebenchError

CLASSES = {
    name: cls
    for name, cls in inspect.getmembers(errors, inspect.isclass)
    if cls.__module__ == errors.__name__ and issubclass(cls, Exception)
}
EXIT_CODES = {
    "InputError": 2,
    "SpecError": 2,
    "ConfigError": 2,
    "ModelError": 2,
    "UnsupportedModelError": 2,
    "DataError": 2,
    "DeviceError": 2,
    "RunError": 2,
    "BaselineError": 4,
    "StorageError": 5,
    "DeviceLostError": 5,
    "RankError": 5,
    "Interrupted": 130,
}


@pytest.mark.parametrize("name", EXIT_CODES)
def test_exit_code(name: str) -> None:
    assert CLASSES[name].exit_code == EXIT_CODES[name]


def test_every_class_has_one_root_and_only_the_root_exits_with_1() -> None:
    assert all(issubclass(cls, TomebenchError) for cls in CLASSES.values())
    assert [name for name, cls in CLASSES.items() if cls.exit_code == 1] == ["TomebenchError"]
    assert set(CLASSES) == {"TomebenchError", *EXIT_CODES}


def drawn_parents(drawing: str) -> dict[str, str]:
    """Name of the parent of every class in a tree drawn with box characters, four columns a level."""
    parents: dict[str, str] = {}
    path: list[str] = []
    for line in drawing.splitlines():
        if match := re.match(r"([ │├└─]*)(\w+)\s{2,}", line):
            level = (len(match[1]) - 4) // 4
            if level < 0:
                continue
            path = [*path[:level], match[2]]
            if level > 0:
                parents[match[2]] = path[level - 1]
    return parents


def test_the_drawing_reader_reads_a_small_tree() -> None:
    tree = "\n    Root     1\n    ├── A    2   text\n    │   └── B    more\n    └── C    5\n"
    assert drawn_parents(tree) == {"A": "Root", "B": "A", "C": "Root"}
    assert drawn_parents("no tree here") == {}


def test_the_docstring_draws_the_tree_that_exists() -> None:
    assert errors.__doc__ is not None
    actual = {name: cls.__bases__[0].__name__ for name, cls in CLASSES.items() if cls is not TomebenchError}
    assert drawn_parents(errors.__doc__) == actual
