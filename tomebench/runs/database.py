"""The SQLite file of a run: table definitions, creation, transactions, checksums, and errors in plain words.

SQLite detects damage to the structure of its file, not to the numbers in it. So the last column of every table is a
checksum over the others, and a flipped bit ends in an error, never in a wrong result. Nor does SQLite detect a
write-ahead log that belongs to another file, or to another state of this one. So every transaction stores the sum of
all checksums, and each store has a number of its own, which must be the same in the file with and without the log.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from tomebench.errors import RunError, StorageError
from tomebench.runs.checksums import NUMBER, Value, checksum, put
from tomebench.runs.stored import UnusableValue, check_row
from tomebench.schema import canonical_json

FILE = "run.sqlite"
"""Name of the store in a run folder."""
NEW_FILE = f"{FILE}.new"
"""Name of the store while it is being created."""
SCHEMA_VERSION = 2
"""Stored as ``user_version``; raise it when the tables change: see :mod:`tomebench.runs.migration`."""
_KEPT = frozenset(f"{FILE}.v{version}" for version in range(1, SCHEMA_VERSION))
OWN_FILES = frozenset(f"{name}{end}" for name in (FILE, NEW_FILE) for end in ("", "-wal", "-shm", "-journal")) | _KEPT
"""Every file that SQLite, :func:`create` and a migration may leave in a run folder."""

APPLICATION_ID = 0x746F6D65  # "tome"
_TABLES = (
    # Small JSON values: the configuration, the cells, the image list, statuses, ...
    "CREATE TABLE facts (kind TEXT, name TEXT, value TEXT, crc INTEGER, PRIMARY KEY (kind, name)) WITHOUT ROWID",
    "CREATE TABLE sessions (id INTEGER PRIMARY KEY, testbed TEXT, crc INTEGER)",
    # bursts is JSON: [[variant, steps, seconds], ...] in the order they ran, a fourth item if graphs were compiled, a
    # fifth with GPU clock, power and heat limits, and the times of single passes, where they were measured
    "CREATE TABLE rounds (id INTEGER PRIMARY KEY, session INTEGER, seed INTEGER, bursts TEXT, crc INTEGER)",
    # seconds: from the request for the images to the last cell's logits; waited: the part until the images arrived
    "CREATE TABLE chunks (id INTEGER PRIMARY KEY, images INTEGER, session INTEGER, seconds REAL, waited REAL,"
    " crc INTEGER)",
    # top1: uint16 little-endian; in_top5: one bit per image, the first image in the highest bit
    "CREATE TABLE predictions (chunk INTEGER, cell TEXT, top1 BLOB, in_top5 BLOB, ties INTEGER, nonfinite INTEGER,"
    " crc INTEGER, PRIMARY KEY (chunk, cell)) WITHOUT ROWID",
)


_CHUNKS_V1 = "CREATE TABLE chunks (id INTEGER PRIMARY KEY, images INTEGER, crc INTEGER)"
TABLES_OF = {1: tuple(_CHUNKS_V1 if "TABLE chunks" in table else table for table in _TABLES), 2: _TABLES}
"""Table definitions by version."""


def create(path: Path, config: str) -> None:
    """Create a store that holds a configuration and nothing else; a kill leaves a whole store or none.

    Args:
        path: file to create, in an existing folder.
        config: JSON.

    Raises:
        StorageError: it cannot be written.
    """
    new = path.with_name(NEW_FILE)
    with reported(path):
        try:
            for leftover in OWN_FILES - {FILE} - _KEPT:  # of a process that was killed at this point
                path.with_name(leftover).unlink(missing_ok=True)
            with closing(connect(new, "rwc")) as connection:
                # Set now: a reader could prevent it later.
                if connection.execute("PRAGMA journal_mode = WAL").fetchone()[0] != "wal":
                    raise StorageError(f"{path}: SQLite can keep no log on this file system; use --out on another one")
                with transaction(connection):
                    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
                    for table in _TABLES:
                        connection.execute(table)
                    put(connection, ("facts", *NUMBER, canonical_json(secrets.token_hex(16))))
                    put(connection, ("facts", "config", "", config))
                # Checkpoint the log into the file before it is renamed, and see errors: closing does the same, but on a
                # full disk leaves half of the data in the log without an error.
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            new.replace(path)
            sync_folder(path.parent)
        except OSError as error:
            raise StorageError(f"{path} cannot be written: {error.strerror}; use --out another folder") from error


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Commit all of the block, or nothing of it."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # after a full disk SQLite has already rolled back
            connection.execute("ROLLBACK")
        raise


@contextmanager
def reported(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into one line that names the file and says what to do."""
    try:
        yield
    except (sqlite3.ProgrammingError, sqlite3.IntegrityError):
        raise  # a bug in the calling code
    except sqlite3.DatabaseError as error:
        raise _storage_error(path, error) from error
    except UnicodeDecodeError as error:  # in a name of the schema, or in SQLite's own message about it
        raise damaged(path, "text that is not UTF-8") from error


def next_id(path: Path, connection: sqlite3.Connection, table: str) -> int:
    """Next number in a table whose database rows are numbered from 1."""
    with reported(path):
        return int(connection.execute(f"SELECT coalesce(max(id), 0) + 1 FROM {table}").fetchone()[0])


def select(
    path: Path, connection: sqlite3.Connection, table: str, where: str = "", *values: Value
) -> list[list[Value]]:
    """Database rows of a table in the order of its key, without the checksum.

    Raises:
        StorageError: the checksum of a database row is wrong.
    """
    return list(rows(path, connection, table, where, *values))


def rows(
    path: Path, connection: sqlite3.Connection, table: str, where: str = "", *values: Value
) -> Iterator[list[Value]]:
    """:func:`select`, one database row at a time."""
    with reported(path):
        for *row, crc in connection.execute(f"SELECT * FROM {table} {where}", values):
            if crc != checksum(row):
                raise damaged(path, f"a row of {table} is not what was written")
            yield row


def file_number(path: Path) -> tuple[int, int] | None:
    """Device and inode of a file, which change when another file takes its name; None if there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def damaged(path: Path, what: str) -> StorageError:
    """The error for a file whose contents are not what was written."""
    return StorageError(f"{path} is damaged ({what}); restore it from a copy, or use --out another folder")


def foreign(path: Path, why: UnusableValue) -> RunError:
    """The error for a file that is undamaged, but not written by a sweep."""
    return RunError(f"{path} holds what no sweep writes ({why}); use the folder of another run")


def connect(path: Path, mode: str) -> sqlite3.Connection:
    """Connect to a file in a mode of SQLite's URIs (``rw``, ``rwc``, ``ro&immutable=1``), contents unchecked."""
    # A URI, because sqlite3 takes no path that is not valid UTF-8. Forked data workers inherit the connection and must
    # not use it; they never see it.
    uri = f"{path.absolute().as_uri()}?mode={mode}"
    return sqlite3.connect(uri, uri=True, isolation_level=None, timeout=10)


def connect_memory() -> sqlite3.Connection:
    """An empty database in memory."""
    return sqlite3.connect(":memory:", isolation_level=None)


@contextmanager
def closed_on_error(connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """Close a connection if the block fails."""
    try:
        yield connection
    except BaseException:
        connection.close()
        raise


def check_values(path: Path, table: str, row: list[Value]) -> None:
    """Refuse a database row that is undamaged, but holds values that no sweep writes.

    Raises:
        RunError: it is such a row.
    """
    try:
        check_row(table, row)
    except UnusableValue as error:
        raise foreign(path, error) from error


def _storage_error(path: Path, error: sqlite3.DatabaseError) -> StorageError:
    if not hasattr(error, "sqlite_errorcode"):  # raised by Python's decoder, which quotes the text
        return damaged(path, "text that is not UTF-8")
    code = error.sqlite_errorcode & 0xFF  # without the extended code of the system call
    if code == sqlite3.SQLITE_FULL:
        advice = "free some space and run the same command again: what was committed is kept"
        return StorageError(f"{path} cannot grow, the disk is full; {advice}")
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
        return StorageError(f"{path}: {error}; check the permissions of the folder, or use --out another folder")
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL):
        return StorageError(f"{path} is locked by another program; close that and try again")
    if code == sqlite3.SQLITE_IOERR:
        return StorageError(f"{path}: {error}; check the disk and its free space, then run the same command again")
    return damaged(path, str(error) if str(error).isprintable() else error.sqlite_errorname)


def sync_folder(folder: Path) -> None:
    """Make a rename in the folder survive a power cut."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
