"""A store from a stranger: whole, with checksums that fit, and values that no sweep writes."""

from __future__ import annotations

import copy
import json
import random
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from store_samples import BATCH, CELLS, CONFIG, KEYS, fill, message

from tomebench.errors import RunError, TomebenchError
from tomebench.gate.records import Snapshot
from tomebench.gate.snapshot import run_snapshot
from tomebench.runs import checksums
from tomebench.runs.origin import MADE
from tomebench.runs.rows import build_rows
from tomebench.runs.store import Store

HUGE = 10**30
FACTS: tuple[tuple[str, str, str], ...] = (
    ("config", "", "[]"),
    ("config", "", '{"threads": 1000000000}'),
    ("config", "", '{"r": {"a": [1]}}'),
    ("cells", "", "{}"),
    ("cells", "", "[[1]]"),
    ("cells", "", '[{"cell": {}, "resolved": {}}]'),
    ("images", "", '{"name": "x", "digest": "d", "num_classes": 3, "labels": [[1], [1, 2]]}'),
    ("images", "", f'{{"name": "x", "digest": "d", "num_classes": 3, "labels": [{HUGE}]}}'),
    ("images", "", "null"),
    ("status", KEYS[0], '["perfect", null]'),
    ("status", KEYS[0], "{}"),
    ("peak", KEYS[0], "-1"),
    ("peak", KEYS[0], str(HUGE)),
    ("late", KEYS[0], "{}"),
    ("round", "x", "{}"),
    ("round", "1", '{"other_cpus": "many"}'),
    ("read", "0", '[["a"]]'),
    ("fact", "batch_size", "0"),
    ("fact", "batch_size", "true"),
    ("fact", "threads", "1000000000"),
    ("fact", "max_drop", "NaN"),
    ("fact", "budgets", '{"a": "enormous"}'),
    ("fact", "processes", '{"a": 0}'),
    ("fact", "end_to_end", '{"a": []}'),
    ("fact", "end_to_end", '{"a": [[1, 0.0]]}'),
    ("fact", "energy", "[]"),
    ("fact", "selector", '{"a": []}'),
    ("fact", "selector", '{"a": [[1.0, 0.0]]}'),
    ("fact", MADE, '{"code": 1}'),
    ("fact", "of a later version", "[" * 100_000 + "]" * 100_000),
    ("of a later version", "", "{"),
)
ROWS: tuple[tuple[str, tuple[Any, ...]], ...] = (
    ("sessions", (1, "{}")),
    ("sessions", (1, "[]")),
    ("rounds", (1, 1, 0, "{}")),
    ("rounds", (1, 1, 0, '[["x", 0, 1.0]]')),
    ("rounds", (1, 1, 0, '[["x", 1, -1.0]]')),
    ("rounds", (1, 1, 0, '[["x", 1, 1.0, 0, {"passes": [0.0]}]]')),
    ("rounds", (1, "a", 0, "[]")),
    ("chunks", (0, 0, 1, 1.0, 0.0)),
    ("chunks", (0, BATCH - 1, 1, 1.0, 0.0)),
    ("chunks", (10**12, BATCH, 1, 1.0, 0.0)),
    ("chunks", (0, BATCH, 1, "soon", 0.0)),
    ("chunks", (7, BATCH, 1, 1.0, 0.0)),
    ("predictions", (0, KEYS[0], b"\0", b"\0", 0, 0)),
    ("predictions", (0, KEYS[0], b"\0" * 20, b"\0" * 2, 0, 0)),
    ("predictions", (0, KEYS[0], "text", "text", 0, 0)),
    ("predictions", (9, KEYS[0], b"\0" * 2 * BATCH, b"\0", 0, 0)),
)


def put(folder: Path, table: str, *values: Any) -> None:
    """Write a row with the checksum that fits it."""
    with closing(sqlite3.connect(folder / "run.sqlite", isolation_level=None)) as connection:
        checksums.put(connection, (table, *values))


def test_put_leaves_a_store_that_is_whole(folder: Path) -> None:
    put(folder, "facts", "peak", KEYS[0], "77")
    with Store.read(folder) as store:
        assert store.peak_memory() == {KEYS[0]: 77}


@pytest.mark.parametrize(("table", "values"), [*(("facts", fact) for fact in FACTS), *ROWS])
def test_a_value_that_no_sweep_writes_is_one_line(folder: Path, table: str, values: tuple[Any, ...]) -> None:
    put(folder, table, *values)
    for use in (lambda: Store.read(folder), lambda: Store.open(folder, CONFIG)):
        with pytest.raises(RunError) as error:
            use()
        assert "run.sqlite holds what no sweep writes (" in message(error)
        assert len(message(error)) < 400


def mutated(value: Any, chance: random.Random) -> Any:
    """The same with one thing in it changed."""
    value = copy.deepcopy(value)
    if isinstance(value, dict) and value:
        name = chance.choice([*value])
        if chance.random() < 0.15:
            del value[name]
        elif chance.random() < 0.1:
            value[f"{name}x"] = value.pop(name)
        else:
            value[name] = mutated(value[name], chance)
        return value
    if isinstance(value, list) and value:
        place = chance.randrange(len(value))
        if chance.random() < 0.15:
            del value[place]
        else:
            value[place] = mutated(value[place], chance)
        return value
    return chance.choice(
        [None, True, 0, -1, 1, 2**31, HUGE, 0.0, -0.5, 1e300, "", "x" * 20_000, [], {}, [[]], "\u0000"]
    )


def test_mutated_can_change_anything() -> None:
    seen = {json.dumps(mutated({"a": [1, {"b": 2}]}, random.Random(seed))) for seed in range(200)}
    assert len(seen) > 30


@pytest.mark.parametrize("seed", range(2))
def test_any_change_of_a_value_is_refused_or_harmless(tmp_path: Path, seed: int) -> None:
    with Store.open(tmp_path / "run", CONFIG) as store:
        fill(store)
        store.put("max_drop", 1.0)
        store.put("budgets", dict.fromkeys(KEYS, "quick"))
        store.put("end_to_end", {KEYS[0]: [[8, 1.0, 1]]})
        store.put(MADE, {"code": "a"})
    path, said = tmp_path / "run" / "run.sqlite", []
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        rows = [("facts", *row[:3]) for row in connection.execute("SELECT * FROM facts")]
        rows += [("sessions", *row[:2]) for row in connection.execute("SELECT * FROM sessions")]
        rows += [("rounds", *row[:4]) for row in connection.execute("SELECT * FROM rounds")]
    chance, whole = random.Random(seed), path.read_bytes()
    for _ in range(60):
        table, *values = chance.choice(rows)
        put(tmp_path / "run", table, *values[:-1], json.dumps(mutated(json.loads(values[-1]), chance)))
        try:
            with Store.read(tmp_path / "run") as store:
                assert len(build_rows(store)) <= len(CELLS)
                assert isinstance(run_snapshot(store), Snapshot)
        except TomebenchError as error:
            said.append((error.exit_code, str(error)))
        for leftover in path.parent.iterdir():
            leftover.unlink()
        path.write_bytes(whole)
    assert 20 < len(said) < 60
    assert {code for code, _ in said} <= {2, 5}
    assert not any("\n" in text for _, text in said)
