"""Opening a store: integrity checks of the file and of every row before it is used; an older store is migrated."""

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
    """Open a store to go on with it. What is wrong with it is found before anything is written.

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
        # A kill loses nothing that was committed even with NORMAL; FULL also survives a power cut, at the price of one
        # fsync (some ms) after units of work that take a good part of a second, and never inside a burst.
        connection.execute("PRAGMA synchronous = FULL")
        return connection


def open_reader(path: Path) -> sqlite3.Connection:
    """Open a store as it is now, also while another process writes; what is committed later is not seen.

    An older store is migrated on a copy in memory.

    Raises:
        RunError: not a store of ours, or of a newer version.
        StorageError: damaged, or it cannot be read.
    """
    # A read-only connection in SQLite's sense needs to create the -shm file and then cannot remove it; so it is one
    # that refuses to write. Where nothing can be created, a write-ahead log could not be followed: there must be none.
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
    """Refuse what is not a whole store of ours; returns its version."""
    size = path.stat().st_size
    # SQLite takes less than a header for a new database, and fills a page that is cut short with zeros.
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
    # Every row, now: a row with a damaged key would not be found later, and hours must not go into a damaged store.
    for name in TABLES:
        for row in rows(path, connection, name):
            if version == SCHEMA_VERSION:
                check_values(path, name, row)
    if version == SCHEMA_VERSION and kept_sum(connection) != whole_sum(connection):
        raise damaged(path, f"it and {FILE}-wal are of two moments, or rows are missing")
    return int(version)


def _refuse_foreign(path: Path) -> None:
    """Refuse what SQLite would follow: a link, and a journal of the kind that this store never has.

    Such a journal may name any file, which SQLite removes when the store is opened.
    """
    for name in (FILE, f"{FILE}-wal", f"{FILE}-shm"):
        beside = path.with_name(name)
        if beside.is_symlink() or (beside.exists() and not beside.is_file()):
            raise RunError(f"{beside} is a link or no file, which no sweep leaves there; copy the run itself")
    journal = path.with_name(f"{FILE}-journal")
    if journal.is_symlink() or journal.exists():
        raise RunError(f"{journal} is not of this run, whose log is {FILE}-wal; remove it")


def _number_alone(path: Path) -> str | None:
    """The number of a store as its file has it without the log; None where it cannot be said, or there is no log."""
    log = path.with_name(f"{FILE}-wal")
    if not log.exists() or not log.stat().st_size:
        return None
    with suppress(sqlite3.DatabaseError, UnicodeDecodeError), closing(connect(path, "ro&immutable=1")) as connection:
        return number_of(connection)  # in the midst of a checkpoint the file alone is not sound
    return None
