"""Base of a store: an open SQLite file read and written as database rows and named JSON facts."""

from __future__ import annotations

import json
import sqlite3
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tomebench.errors import StorageError
from tomebench.runs import checksums, database
from tomebench.schema import canonical_json


class StoreFile:
    """Reads and commits database rows of an open store; a fact is a small JSON value under a name.

    Args:
        path: path of the file.
        connection: to it, as :mod:`tomebench.runs.opening` gives one.
        resources: closed with the store: the connection, and the lock of a writer.
        writable: whether it may be written to.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection, resources: ExitStack, *, writable: bool) -> None:
        self._path = path
        self._connection = connection
        self._resources = resources
        self._writable = writable
        self._file = database.file_number(path)

    def close(self) -> None:
        """Close the file and release the lock. Safe to call twice."""
        self._resources.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def directory(self) -> Path:
        """The run folder."""
        return self._path.parent

    def check_there(self) -> None:
        """Raise StorageError if the file was removed or replaced since it was opened, as writes would be lost."""
        if database.file_number(self._path) != self._file:
            raise StorageError(
                f"{self._path} was removed or replaced while it was written to; run the same command again, with the "
                "folder as it was to lose nothing"
            )

    def get(self, key: str) -> Any | None:
        """A fact that :meth:`put` stored, such as the batch size that "auto" was resolved to; None if there is none."""
        return self._fact("fact", key)

    def put(self, key: str, value: Any) -> None:
        """Store a JSON value under a name; it replaces an earlier value."""
        self._put_fact("fact", key, value)

    def _fact(self, kind: str, name: str = "") -> Any:
        found = self._select("facts", "WHERE kind = ? AND name = ?", kind, name)
        return json.loads(found[0][2]) if found else None

    def _facts(self, kind: str) -> dict[str, Any]:
        return {name: json.loads(value) for _, name, value in self._select("facts", "WHERE kind = ?", kind)}

    def _put_fact(self, kind: str, name: str, value: Any) -> None:
        self._insert(("facts", kind, name, canonical_json(value)))

    def _select(self, table: str, where: str = "", *values: checksums.Value) -> list[list[Any]]:
        return database.select(self._path, self._connection, table, where, *values)

    def _insert(self, *rows: tuple[Any, ...]) -> None:
        """Commit database rows, each a table and its values, in one transaction."""
        if not self._writable:
            raise ValueError("a store opened by read() cannot be written")
        self.check_there()
        with database.reported(self._path), database.transaction(self._connection):
            checksums.put(self._connection, *rows)
