"""Checksum of every database row of a store, and the sum over all of them; each function runs in a transaction."""

from __future__ import annotations

import json
import sqlite3
import zlib
from collections.abc import Sequence
from typing import Any

from tomebench.schema import canonical_json

Value = str | int | float | bytes | None
TABLES = ("facts", "sessions", "rounds", "chunks", "predictions")
_KEYS = {"facts": ("kind", "name"), "predictions": ("chunk", "cell"), **dict.fromkeys(TABLES[1:4], ("id",))}
_SUM, NUMBER = ("sum", ""), ("number", "")
"""Kind and name of two facts: the sum of all checksums except its own, and the random number of this store."""


def insert(connection: sqlite3.Connection, table: str, *values: Value) -> int:
    """Insert or replace a database row; returns its checksum."""
    marks = "?, " * len(values) + "?"
    crc = checksum(values)
    connection.execute(f"INSERT OR REPLACE INTO {table} VALUES ({marks})", (*values, crc))
    return crc


def put(connection: sqlite3.Connection, *rows: tuple[Any, ...]) -> None:
    """Insert or replace database rows, each a table and its values, and update the sum of all checksums.

    Call it within a transaction.
    """
    total = kept_sum(connection)
    for table, *values in rows:
        total -= _there(connection, table, values)
        total += insert(connection, table, *values)
    insert(connection, "facts", *_SUM, canonical_json(total))


def remove_all(connection: sqlite3.Connection, *tables: str) -> None:
    """Empty tables, except for the store's own number, and update the sum of all checksums, within a transaction."""
    total = kept_sum(connection)
    for table in tables:
        keep = "WHERE kind NOT IN (?, ?)" if table == "facts" else ""
        kinds = (_SUM[0], NUMBER[0]) if keep else ()
        total -= int(connection.execute(f"SELECT coalesce(sum(crc), 0) FROM {table} {keep}", kinds).fetchone()[0])
        connection.execute(f"DELETE FROM {table} {keep}", kinds)
    insert(connection, "facts", *_SUM, canonical_json(total))


def _there(connection: sqlite3.Connection, table: str, values: Sequence[Value]) -> int:
    """Checksum of the database row that another one replaces; 0 if there is none."""
    keys = _KEYS[table]
    where = " AND ".join(f"{key} IS ?" for key in keys)
    found = connection.execute(f"SELECT crc FROM {table} WHERE {where}", values[: len(keys)]).fetchone()
    return int(found[0]) if found else 0


def kept_sum(connection: sqlite3.Connection) -> int:
    """The sum of all checksums as the last transaction stored it; in older stores, which lack it, the actual sum."""
    found = connection.execute("SELECT value FROM facts WHERE kind = ? AND name = ?", _SUM).fetchone()
    return int(json.loads(found[0])) if found else whole_sum(connection)


def whole_sum(connection: sqlite3.Connection) -> int:
    """The actual sum of all checksums, without that of the fact that stores it."""
    found = [
        connection.execute(f"SELECT coalesce(sum(crc), 0) FROM {table} {where}", values).fetchone()[0]
        for table, where, values in [
            *((name, "", ()) for name in TABLES if name != "facts"),
            ("facts", "WHERE kind IS NOT ?", (_SUM[0],)),
        ]
    ]
    return sum(map(int, found))


def number_of(connection: sqlite3.Connection) -> str | None:
    """The store's own random number, as JSON; None in an older store."""
    found = connection.execute("SELECT value FROM facts WHERE kind = ? AND name = ?", NUMBER).fetchone()
    return None if found is None else str(found[0])


def checksum(values: tuple[Value, ...] | list[Value]) -> int:
    """Checksum of the values of a database row."""
    crc = 0
    for value in values:
        data = value if isinstance(value, bytes) else repr(value).encode()
        crc = zlib.crc32(data, zlib.crc32(b"%d:" % len(data), crc))
    return crc
