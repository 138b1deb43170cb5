"""Tables of entries: none of them replaces another in silence."""

from __future__ import annotations

import pytest

from tomebench.entries import by_name
from tomebench.runs import codes, settings


def test_entries_stand_by_their_names_in_their_order() -> None:
    assert by_name(["bb", "a"], len) == {2: "bb", 1: "a"}  # type: ignore[arg-type, comparison-overlap]


def test_two_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="two entries are called a"):
        by_name(["a", "b", "a"], str)


@pytest.mark.parametrize("name", ["NOISY", "SAME_AS_R8"])
def test_a_code_that_is_there_is_not_replaced(name: str) -> None:
    before = dict(codes.CODES)
    with pytest.raises(ValueError, match=f"there is a code {name} already"):
        codes.code(name, note="", mark="", brief="", text="")
    assert before == codes.CODES


def test_a_setting_without_its_facets_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "_annotated", lambda: {"bare": str})
    settings.settings.cache_clear()
    with pytest.raises(TypeError, match="setting bare is not Annotated with one Setting"):
        settings.settings()
    monkeypatch.undo()
    settings.settings.cache_clear()
    assert "model" in settings.settings()
