"""The store of a run: configuration, testbeds, every timed round and every evaluated batch, in one SQLite file.

Each round and each chunk is one transaction, so a kill loses at most the one in progress. Everything else in a run
folder is derived from this file (:mod:`tomebench.runs.rows`) and can be rebuilt.
"""

from __future__ import annotations

import functools
import json
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tomebench.errors import RunError
from tomebench.runs import checksums, database, lock, members, opening, run_folder
from tomebench.runs.database import foreign
from tomebench.runs.records import cell_differences, concatenated, differences, packed, unpacked
from tomebench.runs.store_file import StoreFile
from tomebench.runs.stored import UnusableValue, check_together
from tomebench.schema import (
    Cell,
    CellPredictions,
    Chunk,
    ImageList,
    ImageState,
    Pace,
    Resolved,
    Round,
    Status,
    canonical_json,
)

_ABOUT_ROUND = ("other_cpus", "gpu_processes")
TURNS = "end_to_end"
"""Name of the stored fact: images, seconds and session of each end-to-end turn, by cell key."""
_READ = "read"
"""Kind of the facts that record what the images of a chunk were decoded from."""


@functools.lru_cache(maxsize=4)
def _cells(text: str) -> tuple[tuple[Cell, Resolved], ...]:
    """Cells from their JSON, read once however often they are asked for: rows ask for them many times."""
    return tuple((Cell.from_json(item["cell"]), Resolved.from_json(item["resolved"])) for item in json.loads(text))


class Store(StoreFile):
    """An open run folder; see :meth:`open` and :meth:`read`. Use it in the process and thread that opened it.

    Every method raises StorageError when the file cannot be written or is damaged.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection, resources: ExitStack, *, writable: bool) -> None:
        super().__init__(path, connection, resources, writable=writable)
        self.schema_version = database.SCHEMA_VERSION
        self.config: dict[str, Any] = self._fact("config")

    @classmethod
    def open(
        cls,
        directory: Path,
        config: Mapping[str, Any],
        unlike: Callable[[Store, Mapping[str, Any]], list[str]] | None = None,
    ) -> Store:
        """Begin a run, or continue the one that is there if its configuration allows it.

        A run that was stopped before anything was measured is replaced.

        Args:
            directory: run folder; made if it is not there.
            config: JSON object of everything that can change a result, and nothing else.
            unlike: from the run that is there and ``config`` to the settings that keep it from being continued, each as
                ``setting: stored -> asked``; by default every setting that differs.

        Raises:
            RunError: the folder holds a run with such settings, files of another kind, or the run of a newer version;
                or another process is using it. Nothing in it was changed.
            StorageError: the store is damaged, the disk is full or the folder cannot be written.
        """
        asked = canonical_json(config)
        run_folder.prepare(directory)
        path = directory / database.FILE
        with ExitStack() as resources:
            resources.enter_context(lock.RunLock.acquire(directory))
            if not path.exists():
                database.create(path, asked)
            connection = resources.enter_context(closing(opening.open_writer(path)))
            store = cls(path, connection, resources, writable=True)
            store._check_together()
            wanted = json.loads(asked)
            if store.config != wanted and not store.has_results:
                store._begin_anew(asked)
            if differing := unlike(store, wanted) if unlike else differences(store.config, wanted):
                raise RunError(
                    f"{directory} holds a run with other settings ({', '.join(differing)}); "
                    "use --out another folder, or the same settings to go on with it"
                )
            store._resources = resources.pop_all()
            return store

    @classmethod
    def read(cls, directory: Path) -> Store:
        """Open a run as it is now, without changing it; another process may be writing to it.

        Raises:
            RunError: there is no run in the folder, or it is the run of a newer version.
            StorageError: the store is damaged or cannot be read.
        """
        path = directory / database.FILE
        if not path.is_file():
            raise members.no_run(directory)
        with ExitStack() as resources:
            connection = resources.enter_context(closing(opening.open_reader(path)))
            store = cls(path, connection, resources, writable=False)
            store._check_together()
            store._resources = resources.pop_all()
            return store

    @property
    def has_results(self) -> bool:
        """Something was measured: a round, a batch of images, or a turn of the data loader."""
        return any(self._select(table, "LIMIT 1") for table in ("rounds", "chunks")) or bool(self.get(TURNS))

    def begin_session(self, testbed: Mapping[str, Any]) -> int:
        """Record that a session begins, and its testbed; returns the session's number, from 1."""
        session = database.next_id(self._path, self._connection, "sessions")
        self._insert(("sessions", session, canonical_json(testbed)))
        return session

    def sessions(self) -> list[tuple[int, dict[str, Any]]]:
        """Number and testbed of every session, in order."""
        return [(session, json.loads(testbed)) for session, testbed in self._select("sessions")]

    def put_cells(self, cells: Sequence[tuple[Cell, Resolved]], config: Mapping[str, Any] | None = None) -> None:
        """Add cells to those of the run; cells that are already there must be unchanged.

        Args:
            cells: in the order of the table.
            config: the new configuration of the run, if it asks for other cells than before.

        Raises:
            RunError: a setting is resolved to another value than before, as by another device, checkpoint file or
                library version.
        """
        asked = self.checked_cells(cells)
        stored = self._fact("cells") or []
        known = {Cell.from_json(item["cell"]).key for item in stored}
        more = [item for (cell, _), item in zip(cells, asked, strict=True) if cell.key not in known]
        together = sorted([*stored, *more], key=lambda item: int(item["cell"]["r"])) if stored else more
        facts = [("facts", "cells", "", canonical_json(together))] if more else []
        if config is not None and canonical_json(config) != canonical_json(self.config):
            facts.append(("facts", "config", "", canonical_json(config)))
            self.config = json.loads(canonical_json(config))
        if facts:
            self._insert(*facts)

    def checked_cells(self, cells: Sequence[tuple[Cell, Resolved]]) -> list[dict[str, Any]]:
        """Cells as JSON, checked against those that are stored; nothing is written.

        Raises:
            RunError: as :meth:`put_cells`.
        """
        asked: list[dict[str, Any]] = json.loads(
            canonical_json([{"cell": cell.to_json(), "resolved": each.to_json()} for cell, each in cells])
        )
        stored = self._fact("cells") or []
        if stored and (differing := cell_differences(stored, asked)):
            raise RunError(
                f"{self._path.parent} was measured with something else under the same settings "
                f"({', '.join(differing[:5])}); use --out another folder"
            )
        return asked

    def cells(self) -> list[tuple[Cell, Resolved]]:
        """Cells of the run with their resolved forms, in table order; empty before :meth:`put_cells`."""
        stored = self._select("facts", "WHERE kind = ? AND name = ?", "cells", "")
        return list(_cells(stored[0][2])) if stored else []

    def add_round(self, round_: Round) -> None:
        """Commit one timed round."""
        bursts = canonical_json([packed(burst) for burst in round_.bursts])
        number = database.next_id(self._path, self._connection, "rounds")
        about = {name: value for name in _ABOUT_ROUND if (value := getattr(round_, name)) is not None}
        self._insert(
            ("rounds", number, round_.session, round_.seed, bursts),
            *([("facts", "round", str(number), canonical_json(about))] if about else []),
        )

    def rounds(self) -> list[Round]:
        """All rounds of all sessions, in the order they were added."""
        about = self._facts("round")
        return [
            Round(session, seed, tuple(map(unpacked, json.loads(bursts))), **about.get(str(number), {}))
            for number, session, seed, bursts in self._select("rounds")
        ]

    def put_images(self, images: ImageList) -> None:
        """Store the list of images to evaluate. A resumed run must have the same list.

        Raises:
            RunError: the folder holds predictions for another list of images.
        """
        stored = self.images()
        if stored is None or not self.has_results:
            meta = {"name": images.name, "digest": images.digest, "num_classes": images.num_classes}
            self._put_fact("images", "", {**meta, "note": images.note, "labels": images.labels.tolist()})
        elif stored.digest != images.digest:
            raise RunError(
                f"{self._path.parent} was evaluated on other images than these "
                f"({len(stored.labels)} with digest {stored.digest[:12]} -> {len(images.labels)} with "
                f"{images.digest[:12]}); restore the data, or use --out another folder"
            )

    def images(self) -> ImageList | None:
        """The list of images to evaluate; None before :meth:`put_images`, and in a run without data."""
        stored = self._fact("images")
        return stored and ImageList(**{**stored, "labels": np.array(stored["labels"], dtype=np.int64)})

    def add_chunk(self, chunk: Chunk) -> None:
        """Commit one evaluated batch, or the predictions of further cells for a batch that is stored.

        Raises:
            ValueError: a cell already has this chunk, the chunk is empty, or its cells differ in their number of
                images, among themselves or from the stored ones.
        """
        sizes = {len(array) for p in chunk.predictions.values() for array in (p.top1, p.in_top5)}
        if len(sizes) != 1 or sizes == {0}:
            raise ValueError(f"chunk {chunk.index} needs the same images for every cell; got {sorted(sizes)} of them")
        rows: list[tuple[Any, ...]] = [("chunks", chunk.index, *sizes, chunk.session, chunk.seconds, chunk.waited)]
        if chunk.read:
            rows.append(("facts", _READ, str(chunk.index), canonical_json(list(map(list, chunk.read)))))
        if there := self._select("chunks", "WHERE id = ?", chunk.index):
            if {row[1] for row in self._select("predictions", "WHERE chunk = ?", chunk.index)} & {*chunk.predictions}:
                raise ValueError(f"chunk {chunk.index} is already stored: its images would count twice")
            if sizes != {there[0][1]}:
                raise ValueError(f"chunk {chunk.index} has {there[0][1]} images, not {min(sizes)}")
            # The chunk keeps the pace of its first evaluation; the sessions of later cells are stored beside it.
            before = self.late()
            late = {key: sorted({*before.get(key, ()), chunk.session or 0}) for key in chunk.predictions}
            rows = [("facts", "late", key, canonical_json(sessions)) for key, sessions in late.items()]
        for cell, p in chunk.predictions.items():
            top1, in_top5 = p.top1.astype("<u2").tobytes(), np.packbits(p.in_top5).tobytes()
            rows.append(("predictions", chunk.index, cell, top1, in_top5, p.ties, p.nonfinite))
        self._insert(*rows)

    def read_states(self) -> dict[int, tuple[ImageState, ...]]:
        """What the images of every committed chunk were decoded from, by index of the chunk."""
        return {int(name): tuple(ImageState(*each) for each in value) for name, value in self._facts(_READ).items()}

    def late(self) -> dict[str, list[int]]:
        """Sessions in which a cell was evaluated on images on which others had been evaluated before, by cell key."""
        return self._facts("late")

    def evaluated(self) -> dict[int, set[str]]:
        """Keys of the cells that were evaluated, by index of the chunk."""
        found: dict[int, set[str]] = {}
        for chunk, cell, *_ in self._select("predictions"):
            found.setdefault(chunk, set()).add(cell)
        return found

    def top1(self) -> dict[str, dict[int, npt.NDArray[np.uint16]]]:
        """Predicted classes by cell key and index of the chunk."""
        found: dict[str, dict[int, npt.NDArray[np.uint16]]] = {}
        for chunk, cell, top1, *_ in self._select("predictions"):
            found.setdefault(cell, {})[chunk] = np.frombuffer(top1, dtype="<u2").astype(np.uint16)
        return found

    def done_chunks(self) -> set[int]:
        """Indices of the committed chunks."""
        return {index for index, *_ in self._select("chunks")}

    def paces(self) -> list[Pace]:
        """Evaluation pace of each session; sessions of an older version, which stored none, are left out."""
        by_session: dict[int, list[tuple[int, float, float]]] = {}
        for _, images, session, seconds, waited in self._select("chunks"):
            if session is not None:
                by_session.setdefault(session, []).append((images, seconds, waited))
        return [
            Pace(session, len(chunks), *map(sum, zip(*chunks, strict=True)))
            for session, chunks in sorted(by_session.items())
        ]

    def predictions(self) -> dict[str, CellPredictions]:
        """Predictions by cell key for the images of :meth:`seen`, in that order.

        A cell that lacks a committed chunk, because it failed on the way or a later sweep added it, is left out.
        """
        chunks = self.done_chunks()
        return {cell: found for cell, (own, found) in self.predictions_of_each().items() if own == chunks}

    def predictions_of_each(self) -> dict[str, tuple[set[int], CellPredictions]]:
        """By cell key the chunks that it was evaluated on, and its predictions for their images, in order."""
        size = {index: images for index, images, *_ in self._select("chunks")}
        parts: dict[str, dict[int, CellPredictions]] = {}
        for chunk, cell, top1, in_top5, ties, nonfinite in self._select("predictions"):
            labels = np.frombuffer(top1, dtype="<u2").astype(np.uint16)
            bits = np.unpackbits(np.frombuffer(in_top5, dtype=np.uint8), count=size[chunk]).astype(np.bool_)
            parts.setdefault(cell, {})[chunk] = CellPredictions(labels, bits, ties, nonfinite)
        return {
            cell: ({*found}, concatenated([found[index] for index in sorted(found)])) for cell, found in parts.items()
        }

    def seen(self) -> npt.NDArray[np.int64]:
        """Indices into the image list of the images of all committed chunks, ascending; shape [n_seen].

        Chunk i holds the images from i * batch_size on, with the batch size of the cells.
        """
        chunks = self._select("chunks")
        if not chunks:
            return np.empty(0, dtype=np.int64)
        batch_size = self.cells()[0][0].batch_size
        return np.concatenate([np.arange(size, dtype=np.int64) + index * batch_size for index, size, *_ in chunks])

    def set_status(self, cell_key: str, status: Status, error: str | None = None) -> None:
        """Record that a cell cannot be measured, and why."""
        self._put_fact("status", cell_key, [status, error])

    def statuses(self) -> dict[str, tuple[Status, str | None]]:
        """Status and error text by cell key, of the cells that have one."""
        return {key: (status, error) for key, (status, error) in self._facts("status").items()}

    def set_peak_memory(self, cell_key: str, peak: int) -> None:
        """Store the peak memory of a cell's forward pass, in bytes."""
        self._put_fact("peak", cell_key, peak)

    def peak_memory(self) -> dict[str, int]:
        """Peak memory in bytes by cell key, of the cells that have one."""
        return self._facts("peak")

    def _check_together(self) -> None:
        answers = [(chunk, len(top1) // 2) for chunk, _, top1, *_ in self._select("predictions")]
        sizes = {index: images for index, images, *_ in self._select("chunks")}
        try:
            check_together([cell for cell, _ in self.cells()], self.images(), sizes, answers, self.has_results)
        except UnusableValue as error:
            raise foreign(self._path, error) from error

    def _begin_anew(self, config: str) -> None:
        with database.reported(self._path), database.transaction(self._connection):
            checksums.remove_all(self._connection, "facts", "sessions")
            checksums.put(self._connection, ("facts", "config", "", config))
        self.config = json.loads(config)
