"""The registry of methods: every entry can be called, and a slip of the pen is answered with the right name."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from pathlib import Path
from typing import get_args, get_type_hints

import pytest
from reduction.contexts import make_context

import tomebench
from tomebench.errors import SpecError
from tomebench.reduction.choices import Bounds, Text
from tomebench.reduction.method import Method
from tomebench.reduction.registry import METHODS, get_method, method_class


def with_each_option(name: str) -> list[Method]:
    """The method at its defaults, and with each value of each option; of numbers both ends, of texts the examples."""
    kind = method_class(name)
    found = [kind()]
    for field in dataclasses.fields(kind):
        values = get_args(get_type_hints(kind, include_extras=True)[field.name])
        if isinstance(values[1], Bounds):
            values = (values[1].least, min(values[1].most, 3))
        elif isinstance(values[1], Text):
            values = values[1].examples
        found += [kind(**{field.name: value}) for value in values if value != field.default]
    return found


@pytest.mark.parametrize("method", [each for name in METHODS for each in with_each_option(name)], ids=str)
@pytest.mark.parametrize("prefix", [0, 1, 2, 5])
def test_every_method_keeps_the_contract_of_a_plan(method: Method, prefix: int) -> None:
    """N - r tokens, the prefix first and in order, every token at most once, on the boundary cases of r."""
    for n in (prefix + 2, prefix + 3, 20):
        most = min(method.cap(n, prefix), n - max(prefix, 1))
        assert most >= 1
        for r in {1, most}:
            plan = method.choose(make_context(n, prefix, r, learned=method.trained))
            assert plan.n_out == n - r
            assert plan.kept[:, :prefix].tolist() == [list(range(prefix))] * 2
            for image in range(2):
                used = plan.kept[image].tolist() + plan.moved[image].tolist()
                assert len(set(used)) == len(used)
                assert set(used) <= set(range(n))
                assert all(prefix <= slot < plan.n_out for slot in plan.into[image].tolist())


def test_names_and_documentation() -> None:
    assert "tome" in METHODS
    for name, info in METHODS.items():
        assert info.name == name
        assert info.doc


PACKAGE = Path(tomebench.__file__).parent
NAMES = "|".join(sorted({name.split("-")[0] for name in METHODS}))
NAMED = re.compile(rf"(?:method|matching|name)\b[\w.()]* (?:==|!=|in|not in) .*[\"'](?:{NAMES})[\w-]*[\"']")


def branches_on_names(source: str) -> list[str]:
    """Lines that decide by the name of a method."""
    return [line.strip() for line in source.splitlines() if NAMED.search(line)]


def test_no_code_but_that_of_the_methods_decides_by_their_names() -> None:
    own = PACKAGE / "reduction" / "methods"
    found = {
        str(path.relative_to(PACKAGE)): lines
        for path in PACKAGE.rglob("*.py")
        if own not in path.parents and (lines := branches_on_names(path.read_text()))
    }
    assert found == {}


def test_a_branch_on_a_name_is_found() -> None:
    assert branches_on_names('x = 1\nif config.method == "tome":\n')
    assert branches_on_names('    if options.matching in ("greedy", "kmeans-2"):')
    assert not branches_on_names('method: str = "tome"')


def test_options_are_read_without_torch() -> None:
    code = (
        "import sys; from tomebench.reduction.registry import methods, method_class, option_names;"
        "[option_names(method_class(name)) for name in methods()]; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("given", [{"iterations": 0}, {"iterations": 101}, {"iterations": "2"}, {"iterations": True}])
def test_numbers_are_bounded(given: dict[str, object]) -> None:
    with pytest.raises(SpecError, match=r"iterations is .*; use a whole number from 1 to 100"):
        get_method("kmeans", given)


@pytest.mark.parametrize(
    ("name", "says"), [("tme", "did you mean 'tome'"), ("ToMe", "tome"), ("", "choose from"), ("zzz", "choose from")]
)
def test_an_unknown_method_is_refused_with_a_hint(name: str, says: str) -> None:
    with pytest.raises(SpecError, match=says):
        get_method(name)
