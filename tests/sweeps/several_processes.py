"""Small sweeps in several processes, and what their folders hold."""

from __future__ import annotations

import uuid
from collections import Counter
from pathlib import Path
from unittest import mock

from tomebench.runs.rounds import sessions
from tomebench.runs.row import Row
from tomebench.runs.rows import build_rows
from tomebench.runs.store import Store
from tomebench.schema import CEILING
from tomebench.sweeps import run
from tomebench.sweeps.config import SweepConfig
from tomebench.sweeps.config_files import load_config
from tomebench.sweeps.events import Finished


def config(**settings: object) -> SweepConfig:
    defaults = {"model": "test_vit", "r": "0,4", "device": "cpu", "batch_size": 4, "workers": 0, "img_size": 64}
    return load_config([], {**defaults, "budget": "quick", "threads": 1, "processes": 3, **settings})


def fresh(directory: Path, *, first: bool = True, **settings: object) -> Finished:
    """One process of a sweep, as far as the store can tell."""
    with mock.patch.object(run, "THIS_PROCESS", uuid.uuid4().hex):
        *_, last = run.run_sweep(config(**settings), directory, lambda: False, fresh=True, first=first)
    assert isinstance(last, Finished)
    return last


def rows_of(directory: Path) -> list[Row]:
    with Store.read(directory) as store:
        return build_rows(store)


def timed_in(directory: Path) -> dict[str, list[int]]:
    """Rounds of each session, by r or name of the variant."""
    with Store.read(directory) as store:
        names = {cell.key: f"r={cell.r}" for cell, _ in store.cells()}
        names |= {CEILING + key: f"ceiling of {name}" for key, name in names.items()}
        rounds = store.rounds()
    return {name: list(Counter(sessions(rounds, key)).values()) for key, name in names.items() if sessions(rounds, key)}
