"""Every case of what can go wrong, and every promise about it, has its tests, and they exist."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import pytest
from reliability_cases import CASES, Case
from reliability_inputs import DOORS, IDENTITY, SURROUNDINGS
from reliability_promises import ERRORS, FIGURES, SECURITY, STORAGE

TESTS = Path(__file__).parent
PAGE = {
    "Storage": STORAGE,
    "Errors": ERRORS,
    "Cases": CASES,
    "Security": SECURITY,
    "Figures": FIGURES,
    "Identity": IDENTITY,
    "Doors": DOORS,
    "Surroundings": SURROUNDINGS,
}


@cache
def known_tests(path: Path) -> frozenset[str]:
    """Names of the tests of a file: functions, and methods as ``Class::function``."""
    if not path.is_file():
        return frozenset()
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            found.add(node.name)
        if isinstance(node, ast.ClassDef) and node.name.startswith("Test"):
            methods = [inner for inner in node.body if isinstance(inner, ast.FunctionDef)]
            found |= {f"{node.name}::{method.name}" for method in methods if method.name.startswith("test_")}
    return frozenset(found)


def faults(cases: Sequence[Case]) -> Iterator[str]:
    """What is wrong with a list of cases."""
    for case in cases:
        if not case.outcome:
            yield f"{case.text}: no outcome"
        if not case.tests:
            yield f"{case.text}: no test"
        for reference in case.tests:
            file, _, name = reference.partition("::")
            if name not in known_tests(TESTS / file):
                yield f"{case.text}: there is no {reference}"
        if len(set(case.tests)) < len(case.tests):
            yield f"{case.text}: a test is named twice"
    texts = Counter(case.text for case in cases)
    yield from (f"{text}: stands there twice" for text, times in texts.items() if times > 1)


@pytest.mark.parametrize("section", PAGE)
def test_every_case_has_tests_that_exist(section):
    assert list(faults(PAGE[section])) == []


HERE = "test_reliability.py::test_the_check_can_fail"


@pytest.mark.parametrize(
    ("cases", "found"),
    [
        ([Case("a", "x", ())], "a: no test"),
        ([Case("a", "", (HERE,))], "a: no outcome"),
        ([Case("a", "x", (HERE, HERE))], "a: a test is named twice"),
        ([Case("a", "x", (HERE,)), Case("a", "x", (HERE,))], "a: stands there twice"),
        ([Case("a", "x", ("test_reliability.py::test_gone",))], "a: there is no test_reliability.py::test_gone"),
        ([Case("a", "x", ("test_gone.py::test_x",))], "a: there is no test_gone.py::test_x"),
        ([Case("a", "x", ("test_reliability.py::faults",))], "a: there is no test_reliability.py::faults"),
    ],
)
def test_the_check_can_fail(cases, found):
    assert list(faults(cases)) == [found]
    assert list(faults([Case("a", "x", (HERE,))])) == []


def test_classes_are_looked_into(tmp_path):
    path = tmp_path / "test_x.py"
    path.write_text("class TestIt:\n    def test_a(self): ...\n    def helper(self): ...\ndef test_b(): ...\n")
    assert known_tests(path) == {"TestIt::test_a", "test_b"}
