"""Runs that the tests of the store and of its file start from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from runs.store_samples import CELLS, CONFIG, TESTBED, fill

from tomebench.runs.store import Store


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A closed run with some of everything in it."""
    with Store.open(tmp_path / "run", CONFIG) as store:
        fill(store)
    return tmp_path / "run"


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "run", CONFIG) as store:
        yield store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """An open run with three cells, nothing measured yet."""
    with Store.open(tmp_path / "run", CONFIG) as opened:
        opened.put_cells(CELLS)
        opened.begin_session(TESTBED)
        yield opened
