"""Open a store: check the file and every database row before use, and migrate a store of an older version."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing, suppress
from pathlib import Path

from tomebench.errors import RunError, StorageError
from tomebench.runs.checksums import TABLES, kept_sum, number_of, whole_sum
from tomebench.runs.database import (
    APPLICATION_ID,
    FILE,
    SCHEMA_VERSION,
    TABLES_OF,
    check_values,
    closed_on_error,
    connect,
    damaged,
    reported,
    rows,
)
from tomebench.runs.migration import migrated_copy, migrated_file

_HEADER_BYTES = 100


def open_writer(path: Path) -> sqlite3.Connection:
    """Open a store to continue its run; damage is found before anything is written.

    An older store is migrated on a copy that then takes its place; the old one stays beside it as ``run.sqlite.v1``.

    Raises:
        RunError: not a store of ours, or of a newer version.
        StorageError: damaged, or it cannot be written.
    """
    _refuse_foreign(path)
    with reported(path), closed_on_error(connect(path, "rw")) as connection:
        version = _check_sound(path, connection)
        if version < SCHEMA_VERSION:
            connection = migrated_file(path, connection, version)
        # With NORMAL a kill loses nothing that was committed; FULL also survives a power cut, for one fsync (some ms)
        # after each round or batch, which takes a good part of a second, and never inside a burst.
        connection.execute("PRAGMA synchronous = FULL")
        return connection


def open_reader(path: Path) -> sqlite3.Connection:
    """Open a store to read it as it is now, even while another process writes; later commits are not seen.

    An older store is migrated on a copy in memory.

    Raises:
        RunError: not a store of ours, or of a newer version.
        StorageError: damaged, or it cannot be read.
    """
    # A connection that SQLite opens read-only has to create the -shm file and cannot remove it; so it is opened for
    # writing and set to refuse it. Where no file can be created, a write-ahead log cannot be read: there must be none.
    _refuse_foreign(path)
    frozen = not os.access(path.parent, os.W_OK)
    if frozen and (wal := path.with_name(f"{FILE}-wal")).exists() and wal.stat().st_size:
        state = "is being written or was not closed, and its folder is read-only"
        raise StorageError(f"{path} {state}; copy the folder and use the copy")
    with reported(path), closed_on_error(connect(path, "ro&immutable=1" if frozen else "rw")) as connection:
        connection.execute("PRAGMA query_only = ON")
        connection.execute("BEGIN")
        version = _check_sound(path, connection)
        if version == SCHEMA_VERSION:
            return connection
        copy = migrated_copy(path, connection, version)
        connection.close()
        return copy


def _check_sound(path: Path, connection: sqlite3.Connection) -> int:
    """Refuse a file that is no undamaged store of tomebench; returns its version."""
    size = path.stat().st_size
    # SQLite takes a file shorter than its header for a new database, and pads a truncated page with zeros.
    if size < _HEADER_BYTES or size % connection.execute("PRAGMA page_size").fetchone()[0]:
        raise damaged(path, "it is cut short")
    application, version = (
        connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")
    )
    if application != APPLICATION_ID:
        raise RunError(f"{path} is not a run of tomebench; use --out another folder")
    if version > SCHEMA_VERSION:
        raise RunError(
            f"{path} was written by a newer tomebench (store version {version}, this one knows {SCHEMA_VERSION}); "
            "update tomebench, or use --out another folder"
        )
    if version not in TABLES_OF:
        raise damaged(path, f"store version {version}")
    if (alone := _number_alone(path)) is not None and alone != number_of(connection):
        raise damaged(path, f"{FILE}-wal belongs to another run")
    tables = connection.execute("SELECT sql FROM sqlite_master ORDER BY rowid").fetchall()
    if tables != [(table,) for table in TABLES_OF[version]]:
        raise damaged(path, "its tables are not what they were")
    found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if found != "ok":
        raise damaged(path, " ".join(found.split()))
    # Every database row, now: one with a damaged key would not be found later, and no sweep may measure for hours into
    # a damaged store.
    for name in TABLES:
        for row in rows(path, connection, name):
            if version == SCHEMA_VERSION:
                check_values(path, name, row)
    if version == SCHEMA_VERSION and kept_sum(connection) != whole_sum(connection):
        raise damaged(path, f"it and {FILE}-wal are of two moments, or rows are missing")
    return int(version)


def _refuse_foreign(path: Path) -> None:
    """Refuse files that SQLite would follow: a link, and a rollback journal, which this store never has.

    Such a journal may name any file, which SQLite then removes on opening.
    """
    for name in (FILE, f"{FILE}-wal", f"{FILE}-shm"):
        beside = path.with_name(name)
        if beside.is_symlink() or (beside.exists() and not beside.is_file()):
            raise RunError(f"{beside} is a link or no file, which no sweep leaves there; copy the run itself")
    journal = path.with_name(f"{FILE}-journal")
    if journal.is_symlink() or journal.exists():
        raise RunError(f"{journal} is not of this run, whose log is {FILE}-wal; remove it")


def _number_alone(path: Path) -> str | None:
    """The store's own number in its file without the log; None if it cannot be read, or there is no log."""
    log = path.with_name(f"{FILE}-wal")
    if not log.exists() or not log.stat().st_size:
        return None
    with suppress(sqlite3.DatabaseError, UnicodeDecodeError), closing(connect(path, "ro&immutable=1")) as connection:
        return number_of(connection)  # during a checkpoint the file alone is not consistent
    return None
