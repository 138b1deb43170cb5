"""The SQLite file of a run: created whole, opened only when sound, every row with a checksum, errors to act on.

SQLite notices damage to the structure of its file, not to the numbers in it. So the last column of every table is a
checksum over the others, and a flipped bit ends in an error and never in a wrong result. Nor does it notice a log that
belongs to another file, or to another moment of this one. So every transaction keeps the sum of all checksums, and a
store has a number of its own, which its file says with the log and without.
"""

from __future__ import annotations

import os
import secrets
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from tomebench.errors import RunError, StorageError
from tomebench.runs.checksums import NUMBER, TABLES, Value, checksum, insert, kept_sum, number_of, put, whole_sum
from tomebench.runs.stored import UnusableValue, check_row
from tomebench.schema import canonical_json

FILE = "run.sqlite"
"""Name of the store in a run folder."""
_NEW = f"{FILE}.new"
SCHEMA_VERSION = 2
"""Stored as ``user_version``; to be raised with every change of ``_TABLES``, which :func:`_migrate` must know."""
_KEPT = frozenset(f"{FILE}.v{version}" for version in range(1, SCHEMA_VERSION))
OWN_FILES = frozenset(f"{name}{end}" for name in (FILE, _NEW) for end in ("", "-wal", "-shm", "-journal")) | _KEPT
"""Everything that SQLite, :func:`create` and :func:`open_writer` may leave in a run folder."""

_APPLICATION_ID = 0x746F6D65  # "tome"
_HEADER_BYTES = 100
_TABLES = (
    # Small JSON values: the configuration, the cells, the image list, statuses, ...
    "CREATE TABLE facts (kind TEXT, name TEXT, value TEXT, crc INTEGER, PRIMARY KEY (kind, name)) WITHOUT ROWID",
    "CREATE TABLE sessions (id INTEGER PRIMARY KEY, testbed TEXT, crc INTEGER)",
    # bursts is JSON: [[variant, steps, seconds], ...] in the order they ran, a fourth number if graphs were compiled,
    # a fifth item with GPU clock, energy and the times of single passes where there are any
    "CREATE TABLE rounds (id INTEGER PRIMARY KEY, session INTEGER, seed INTEGER, bursts TEXT, crc INTEGER)",
    # seconds: from asking for the images to the last cell's answer; waited: the part of it until the images were there
    "CREATE TABLE chunks (id INTEGER PRIMARY KEY, images INTEGER, session INTEGER, seconds REAL, waited REAL,"
    " crc INTEGER)",
    # top1: uint16 little-endian; in_top5: one bit per image, the first image in the highest bit
    "CREATE TABLE predictions (chunk INTEGER, cell TEXT, top1 BLOB, in_top5 BLOB, ties INTEGER, nonfinite INTEGER,"
    " crc INTEGER, PRIMARY KEY (chunk, cell)) WITHOUT ROWID",
)


_CHUNKS_V1 = "CREATE TABLE chunks (id INTEGER PRIMARY KEY, images INTEGER, crc INTEGER)"
_TABLES_OF = {1: tuple(_CHUNKS_V1 if "TABLE chunks" in table else table for table in _TABLES), 2: _TABLES}
"""What the tables of every version look like."""


def create(path: Path, config: str) -> None:
    """Make a store that holds a configuration and nothing else. A kill leaves a whole store or none.

    Args:
        path: does not exist; its folder does.
        config: JSON.

    Raises:
        StorageError: it cannot be written.
    """
    new = path.with_name(_NEW)
    with reported(path):
        try:
            for leftover in OWN_FILES - {FILE} - _KEPT:  # of a process that was killed right here
                path.with_name(leftover).unlink(missing_ok=True)
            with closing(_connect(new, "rwc")) as connection:
                # Now, since a reader would be in the way later.
                if connection.execute("PRAGMA journal_mode = WAL").fetchone()[0] != "wal":
                    raise StorageError(f"{path}: SQLite can keep no log on this file system; use --out on another one")
                with transaction(connection):
                    connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
                    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
                    for table in _TABLES:
                        connection.execute(table)
                    put(connection, ("facts", *NUMBER, canonical_json(secrets.token_hex(16))))
                    put(connection, ("facts", "config", "", config))
                # Into the file that is renamed, and with an error: closing does the same, but where the disk is full it
                # leaves half of it in the log without a word.
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            new.replace(path)
            _sync_folder(path.parent)
        except OSError as error:
            raise StorageError(f"{path} cannot be written: {error.strerror}; use --out another folder") from error


def open_writer(path: Path) -> sqlite3.Connection:
    """Open a store to go on with it. What is wrong with it is found before anything is written.

    An older store is migrated on a copy that then takes its place; the old one stays beside it as ``run.sqlite.v1``.

    Raises:
        RunError: not a store of ours, or of a newer version.
        StorageError: damaged, or it cannot be written.
    """
    _refuse_foreign(path)
    with reported(path), _closed_on_error(_connect(path, "rw")) as connection:
        version = _check(path, connection)
        if version < SCHEMA_VERSION:
            connection = _replaced(path, connection, version)
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
    with reported(path), _closed_on_error(_connect(path, "ro&immutable=1" if frozen else "rw")) as connection:
        connection.execute("PRAGMA query_only = ON")
        connection.execute("BEGIN")
        version = _check(path, connection)
        if version == SCHEMA_VERSION:
            return connection
        copy = sqlite3.connect(":memory:", isolation_level=None)
        _migrate(path, connection, copy, version)
        connection.close()
        return copy


def _replaced(path: Path, old: sqlite3.Connection, version: int) -> sqlite3.Connection:
    """Put a migrated copy in the place of an older store, which is kept under another name."""
    new = path.with_name(_NEW)
    try:
        for leftover in OWN_FILES:  # of a process that was killed right here
            if leftover.startswith(_NEW):
                path.with_name(leftover).unlink(missing_ok=True)
        with closing(_connect(new, "rwc")) as copy:
            _migrate(path, old, copy, version)
            copy.execute("PRAGMA journal_mode = WAL")
            copy.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # as in create()
        old.close()
        if path.with_name(f"{FILE}-wal").exists():  # it belongs to the old file and would be taken for the new one's
            raise StorageError(f"{path} is being read by another program; close that and try again")
        kept = path.with_name(f"{FILE}.v{version}")
        kept.unlink(missing_ok=True)
        try:
            kept.hardlink_to(path)  # so that there is a store at its place at every moment
        except OSError:  # not every file system has hard links
            shutil.copy2(path, kept)
        new.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise StorageError(
            f"{path} cannot be brought up to date: {error.strerror}; use a copy of the folder"
        ) from error
    return _connect(path, "rw")


def _migrate(path: Path, old: sqlite3.Connection, new: sqlite3.Connection, version: int) -> None:
    """Fill an empty database with what an older store holds, in the tables of today."""
    with transaction(new):
        new.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
        new.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        for statement in _TABLES:
            new.execute(statement)
        for table in TABLES:
            for row in select(path, old, table):
                if table == "chunks" and version == 1:
                    row = [*row, None, None, None]  # it said neither when a chunk was evaluated nor how fast
                _look(path, table, row)
                insert(new, table, *row)


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All of the block is committed, or nothing of it."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # a full disk has already rolled it back
            connection.execute("ROLLBACK")
        raise


@contextmanager
def reported(path: Path) -> Iterator[None]:
    """Errors of SQLite as one line that names the file and says what to do."""
    try:
        yield
    except (sqlite3.ProgrammingError, sqlite3.IntegrityError):
        raise  # wrong use of SQLite by the code above
    except sqlite3.DatabaseError as error:
        raise _storage_error(path, error) from error
    except UnicodeDecodeError as error:  # in a name of the schema, or in SQLite's own message about it
        raise damaged(path, "text that is not UTF-8") from error


def next_id(path: Path, connection: sqlite3.Connection, table: str) -> int:
    """The number after the last row's, in a table whose rows are numbered from 1."""
    with reported(path):
        return int(connection.execute(f"SELECT coalesce(max(id), 0) + 1 FROM {table}").fetchone()[0])


def select(
    path: Path, connection: sqlite3.Connection, table: str, where: str = "", *values: Value
) -> list[list[Value]]:
    """Rows of a table in the order of its key, without the checksum.

    Raises:
        StorageError: a row is not what was written.
    """
    return list(rows(path, connection, table, where, *values))


def rows(
    path: Path, connection: sqlite3.Connection, table: str, where: str = "", *values: Value
) -> Iterator[list[Value]]:
    """:func:`select`, one row after the other."""
    with reported(path):
        for *row, crc in connection.execute(f"SELECT * FROM {table} {where}", values):
            if crc != checksum(row):
                raise damaged(path, f"a row of {table} is not what was written")
            yield row


def file_number(path: Path) -> tuple[int, int] | None:
    """What tells the file of that name from another that takes its place; None if there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def damaged(path: Path, what: str) -> StorageError:
    """The error for a file that is not what was written."""
    return StorageError(f"{path} is damaged ({what}); restore it from a copy, or use --out another folder")


def foreign(path: Path, why: UnusableValue) -> RunError:
    """The error for a file that is whole, and not the work of a sweep."""
    return RunError(f"{path} holds what no sweep writes ({why}); use the folder of another run")


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    # A URI, because sqlite3 takes no path that is not valid UTF-8. Forked data workers inherit the connection and must
    # not use it; they never see it.
    uri = f"{path.absolute().as_uri()}?mode={mode}"
    return sqlite3.connect(uri, uri=True, isolation_level=None, timeout=10)


@contextmanager
def _closed_on_error(connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    try:
        yield connection
    except BaseException:
        connection.close()
        raise


def _check(path: Path, connection: sqlite3.Connection) -> int:
    """Refuse what is not a whole store of ours; returns its version."""
    size = path.stat().st_size
    # SQLite takes less than a header for a new database, and fills a page that is cut short with zeros.
    if size < _HEADER_BYTES or size % connection.execute("PRAGMA page_size").fetchone()[0]:
        raise damaged(path, "it is cut short")
    application, version = (
        connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")
    )
    if application != _APPLICATION_ID:
        raise RunError(f"{path} is not a run of tomebench; use --out another folder")
    if version > SCHEMA_VERSION:
        raise RunError(
            f"{path} was written by a newer tomebench (store version {version}, this one knows {SCHEMA_VERSION}); "
            "update tomebench, or use --out another folder"
        )
    if version not in _TABLES_OF:
        raise damaged(path, f"store version {version}")
    if (alone := _number_alone(path)) is not None and alone != number_of(connection):
        raise damaged(path, f"{FILE}-wal belongs to another run")
    tables = connection.execute("SELECT sql FROM sqlite_master ORDER BY rowid").fetchall()
    if tables != [(table,) for table in _TABLES_OF[version]]:
        raise damaged(path, "its tables are not what they were")
    found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if found != "ok":
        raise damaged(path, " ".join(found.split()))
    # Every row, now: a row with a damaged key would not be found later, and hours must not go into a damaged store.
    for name in TABLES:
        for row in rows(path, connection, name):
            if version == SCHEMA_VERSION:
                _look(path, name, row)
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
    with suppress(sqlite3.DatabaseError, UnicodeDecodeError), closing(_connect(path, "ro&immutable=1")) as connection:
        return number_of(connection)  # in the midst of a checkpoint the file alone is not sound
    return None


def _look(path: Path, table: str, row: list[Value]) -> None:
    try:
        check_row(table, row)
    except UnusableValue as error:
        raise foreign(path, error) from error


def _storage_error(path: Path, error: sqlite3.DatabaseError) -> StorageError:
    if not hasattr(error, "sqlite_errorcode"):  # Python's own complaint about a text, which it quotes
        return damaged(path, "text that is not UTF-8")
    code = error.sqlite_errorcode & 0xFF  # without the extension that tells the system call
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


def _sync_folder(folder: Path) -> None:
    """Make a rename in the folder survive a power cut."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
