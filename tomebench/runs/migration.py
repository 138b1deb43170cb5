"""Migrate stores of older versions to the current tables, as a copy; the older file is never written to."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

from tomebench.errors import StorageError
from tomebench.runs.checksums import TABLES, insert
from tomebench.runs.database import (
    APPLICATION_ID,
    FILE,
    NEW_FILE,
    OWN_FILES,
    SCHEMA_VERSION,
    TABLES_OF,
    check_values,
    connect,
    connect_memory,
    select,
    sync_folder,
    transaction,
)


def migrated_file(path: Path, old: sqlite3.Connection, version: int) -> sqlite3.Connection:
    """Replace an older store by a migrated copy; the older file is kept under another name."""
    new = path.with_name(NEW_FILE)
    try:
        for leftover in OWN_FILES:  # of a process that was killed at this point
            if leftover.startswith(NEW_FILE):
                path.with_name(leftover).unlink(missing_ok=True)
        with closing(connect(new, "rwc")) as copy:
            _migrate(path, old, copy, version)
            copy.execute("PRAGMA journal_mode = WAL")
            copy.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # as in create()
        old.close()
        if path.with_name(f"{FILE}-wal").exists():  # the log belongs to the old file and would be read as the new one's
            raise StorageError(f"{path} is being read by another program; close that and try again")
        kept = path.with_name(f"{FILE}.v{version}")
        kept.unlink(missing_ok=True)
        try:
            kept.hardlink_to(path)  # so that there is a store under its name at every moment
        except OSError:  # not every file system has hard links
            shutil.copy2(path, kept)
        new.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise StorageError(
            f"{path} cannot be brought up to date: {error.strerror}; use a copy of the folder"
        ) from error
    return connect(path, "rw")


def migrated_copy(path: Path, old: sqlite3.Connection, version: int) -> sqlite3.Connection:
    """Migrated copy of an older store, in memory."""
    copy = connect_memory()
    _migrate(path, old, copy, version)
    return copy


def _migrate(path: Path, old: sqlite3.Connection, new: sqlite3.Connection, version: int) -> None:
    """Fill an empty database with the contents of an older store, in the current tables."""
    with transaction(new):
        new.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        new.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        for statement in TABLES_OF[SCHEMA_VERSION]:
            new.execute(statement)
        for table in TABLES:
            for row in select(path, old, table):
                if table == "chunks" and version == 1:
                    row = [*row, None, None, None]  # version 1 stored neither session nor seconds of a chunk
                check_values(path, table, row)
                insert(new, table, *row)
