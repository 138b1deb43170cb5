"""A store of the first version: read as it is, migrated on a copy when a sweep goes on with it, never lost."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from store_samples import CONFIG, make_round, message, names, read_contents

from tomebench.errors import StorageError
from tomebench.runs import checksums, database, migration
from tomebench.runs.rows import ACCURACY_SESSIONS, build_rows
from tomebench.runs.store import Store
from tomebench.schema import SENTINEL


def make_first_version(path: Path) -> None:
    """Turn a store of today into what the first version would have written."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        chunks = connection.execute("SELECT id, images FROM chunks").fetchall()
        connection.execute("DELETE FROM facts WHERE kind = 'fact' AND name = ?", (ACCURACY_SESSIONS,))
        connection.execute("DELETE FROM facts WHERE kind IN ('sum', 'number')")
        checksums.insert(connection, "facts", "fact", ACCURACY_SESSIONS, "[1]")
        everything = {
            table: connection.execute(f"SELECT * FROM {table}").fetchall()
            for table in ("facts", "sessions", "rounds", "predictions")
        }
        connection.execute("PRAGMA journal_mode = DELETE")
    path.unlink()
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA application_id = {0x746F6D65}")
        connection.execute("PRAGMA user_version = 1")
        for statement in database.TABLES_OF[1]:
            connection.execute(statement)
        for table, rows in everything.items():
            for *row, _crc in rows:
                checksums.insert(connection, table, *row)
        for row in chunks:
            checksums.insert(connection, "chunks", *row)


@pytest.fixture
def old(folder: Path) -> Path:
    make_first_version(folder / "run.sqlite")
    return folder


def version(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        return int(connection.execute("PRAGMA user_version").fetchone()[0])


def test_version_tells_the_two_apart(folder: Path) -> None:
    assert version(folder / "run.sqlite") == 2
    make_first_version(folder / "run.sqlite")
    assert version(folder / "run.sqlite") == 1


def test_reading_an_older_store_leaves_it_as_it_is(folder: Path) -> None:
    expected = read_contents(folder)
    make_first_version(folder / "run.sqlite")
    before = (folder / "run.sqlite").read_bytes()
    assert read_contents(folder) == expected
    with Store.read(folder) as store:
        assert store.paces() == []
        assert [row.top1 for row in build_rows(store)] == [90.0, 80.0, 90.0]
        assert {row.img_per_s_accuracy for row in build_rows(store)} == {None}
    assert (folder / "run.sqlite").read_bytes() == before
    assert names(folder) == ["run.sqlite"]


def test_going_on_migrates_a_copy_and_keeps_the_old_store(old: Path) -> None:
    expected, before = read_contents(old), (old / "run.sqlite").read_bytes()
    with Store.open(old, CONFIG) as store:
        store.add_round(make_round({SENTINEL: 1.0}, 9))
    assert names(old) == ["run.sqlite", "run.sqlite.v1"]
    assert (old / "run.sqlite.v1").read_bytes() == before
    assert (version(old / "run.sqlite"), version(old / "run.sqlite.v1")) == (2, 1)
    after = read_contents(old)
    assert {**after, "rounds": after["rounds"][:-1]} == expected
    Store.open(old, CONFIG).close()
    assert (old / "run.sqlite.v1").read_bytes() == before


@pytest.mark.parametrize("leftover", ["run.sqlite.new", "run.sqlite.new-wal", "run.sqlite.v1"])
def test_a_kill_while_migrating_is_no_obstacle(old: Path, leftover: str) -> None:
    expected = read_contents(old)
    (old / leftover).write_bytes(b"half")
    Store.open(old, CONFIG).close()
    assert read_contents(old) == expected
    assert names(old) == ["run.sqlite", "run.sqlite.v1"]


def test_a_full_disk_while_migrating_leaves_the_old_store(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, insert = (old / "run.sqlite").read_bytes(), checksums.insert

    def full(connection: sqlite3.Connection, table: str, *values: checksums.Value) -> None:
        if table == "chunks":
            error = sqlite3.OperationalError("database or disk is full")
            error.sqlite_errorcode = sqlite3.SQLITE_FULL
            raise error
        insert(connection, table, *values)

    with monkeypatch.context() as patch:
        patch.setattr(migration, "insert", full)
        with pytest.raises(StorageError) as caught:
            Store.open(old, CONFIG)
    assert "the disk is full" in message(caught)
    assert (old / "run.sqlite").read_bytes() == before
    Store.open(old, CONFIG).close()


def test_a_damaged_older_store_is_refused(old: Path, tmp_path: Path) -> None:
    whole = (old / "run.sqlite").read_bytes()
    copy = Path(shutil.copytree(old, tmp_path / "copy"))
    (copy / "run.sqlite").write_bytes(whole.replace(b'"it broke"', b'"it brake"'))
    for call in (lambda: Store.read(copy), lambda: Store.open(copy, CONFIG)):
        with pytest.raises(StorageError, match="a row of facts is not what was written"):
            call()


def test_a_reader_in_the_way_is_said(old: Path) -> None:
    with closing(sqlite3.connect(old / "run.sqlite")) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM chunks").fetchall()
        with pytest.raises(StorageError) as caught:
            Store.open(old, CONFIG)
    assert "is being read by another program; close that and try again" in message(caught)
    assert version(old / "run.sqlite") == 1
    Store.open(old, CONFIG).close()


def test_a_file_system_without_hard_links_keeps_a_copy(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (old / "run.sqlite").read_bytes()

    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    with Store.open(old, CONFIG):
        assert version(old / "run.sqlite") == 2
    assert (old / "run.sqlite.v1").read_bytes() == before
