"""Numbers agree with their nouns, in the helper and in every line of the package that counts something."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import tomebench
from tomebench.words import are, counted, noun

COUNTED = (
    "batches|blocks|cells|CPUs|devices|errors|files|images|machines|models|passes|processes|rounds|rows|runs|steps|"
    "threads|tokens|variants"
)


@pytest.mark.parametrize(
    ("number", "word", "said"),
    [
        (0, "image", "0 images"),
        (1, "image", "1 image"),
        (2, "batch", "2 batches"),
        (1, "batch", "1 batch"),
        (2, "pass", "2 passes"),
        (50_000, "image", "50000 images"),
        (1.0, "CPU", "1 CPU"),
        (1.5, "CPU", "1.5 CPUs"),
    ],
)
def test_a_number_and_its_noun(number: float, word: str, said: str) -> None:
    assert counted(number, word) == said
    assert said.endswith(noun(number, word))
    assert are(number) == ("is" if number == 1 else "are")


def careless(text: str) -> Iterator[str]:
    """Where a noun in the plural follows a number that may be one, or an ``s`` is put to a noun by hand."""
    for found in re.finditer(rf"(of the )?\{{[^{{}}\"]+\}} ({COUNTED})\b", text):
        if not found[1]:
            yield found[0]
    yield from (found[0] for found in re.finditer(r"\{[^{}]*['\"]s['\"] *(\*|if)[^{}]*\}|\+ \"s\" \*", text))


def test_careless_sees_what_is_careless() -> None:
    assert list(careless('f"{n} threads on it"')) == ["{n} threads"]
    assert list(careless("f\"{n} batch{'s' if n > 1 else ''}\"")) == ["{'s' if n > 1 else ''}"]
    assert list(careless("f\"{n} batch{'s' * (n != 1)}\"")) == ["{'s' * (n != 1)}"]
    assert list(careless("f\"{counted(n, 'thread')} of the {n} images\"")) == []


EXCUSED = {
    "paper/comparison.py": 1,  # a constant
    "rspec.py": 1,  # a verb
    "sweeps/accuracy.py": 1,  # images/s
    "report/figures.py": 1,  # several models, after a look
    "report/reproduction.py": 1,  # a verb
    "cli/report.py": 1,  # several runs
    "cli/launch.py": 1,  # several machines
    "sweeps/run.py": 2,  # several processes
    "paper/runs.py": 1,  # several runs
}
"""Lines that are only reached with a number over one, or that no user sees."""


def test_nothing_says_one_images() -> None:
    root = Path(tomebench.__file__).parent
    found = {
        str(path.relative_to(root)): hits
        for path in sorted(root.rglob("*.py"))
        if (
            hits := [
                hit for line in path.read_text().splitlines() if "ValueError(" not in line for hit in careless(line)
            ]
        )
    }
    assert {name: hits for name, hits in found.items() if len(hits) > EXCUSED.get(name, 0)} == {}
