"""The registry of methods: every entry can be called, and a slip of the pen is answered with the right name."""

from __future__ import annotations

import pytest
from reduction.contexts import make_context

from tomebench.errors import SpecError
from tomebench.reduction.registry import METHODS, get_method


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("prefix", [0, 1, 2, 5])
def test_every_method_keeps_the_contract_of_a_plan(name: str, prefix: int) -> None:
    """N - r tokens, the prefix first and in order, every token at most once, on the boundary cases of r."""
    method = get_method(name)
    for n in (prefix + 2, prefix + 3, 20):
        for r in {1, (n - prefix) // 2}:
            plan = method.choose(make_context(n, prefix, r))
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


@pytest.mark.parametrize(
    ("name", "says"), [("tme", "did you mean 'tome'"), ("ToMe", "tome"), ("", "choose from"), ("zzz", "choose from")]
)
def test_an_unknown_method_is_refused_with_a_hint(name: str, says: str) -> None:
    with pytest.raises(SpecError, match=says):
        get_method(name)
