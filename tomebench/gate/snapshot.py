"""Snapshot of a stored run for the gate: pure function of the store, without the static tier."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tomebench.errors import ModelError, RunError
from tomebench.gate.compare import differing
from tomebench.gate.records import Accuracy, Asked, CellRecord, Snapshot, Speed, cut, packed_bits
from tomebench.reduction.schedule import split_schedules
from tomebench.runs import testbed
from tomebench.runs.codes import INVALID
from tomebench.runs.origin import MADE
from tomebench.runs.rounds import pairs
from tomebench.runs.row import Row
from tomebench.runs.rows import build_rows, options_text
from tomebench.runs.settings import default
from tomebench.runs.store import Store
from tomebench.runs.targets import timed_rounds
from tomebench.runs.top1 import is_right
from tomebench.schema import UNWRAPPED, Cell, CellPredictions, ImageList, ImageState, Round, Status, fingerprint


def run_snapshot(store: Store) -> Snapshot:
    """Accuracy and speed tiers of a stored run; the static tier is computed, not measured, and not included.

    Raises:
        StorageError: the store is damaged.
        RunError: nothing has been measured yet, or it is an ablation.
    """
    # Cells of an ablation may differ in proportional attention only, which no name shows.
    if store.config.get("ablate"):
        raise RunError("the run is an ablation, whose cells the gate cannot tell apart; check that of a plain sweep")
    rows = build_rows(store)
    if not rows:
        raise RunError(f"the run of {store.config.get('model')} holds nothing yet; let the sweep run")
    sessions = {round_.session for round_ in store.rounds()}
    testbeds = {testbed.fingerprint(found) for session, found in store.sessions() if session in sessions}
    stored = _Stored(
        rounds=timed_rounds(store),
        images=store.images(),
        seen=store.seen(),
        # In a random order cells may have images of their own, and gaps.
        predictions=_first(store) if "until" in store.config else store.predictions(),
        statuses=store.statuses(),
        baseline=next((cell.key for cell, _ in store.cells() if cell.is_baseline), None),
        testbed=cut(" ".join(sorted(testbeds))),
        content=_content(store.read_states()),
    )
    cells = []
    for (cell, _), row in zip(sorted(store.cells(), key=lambda pair: pair[0].r), rows, strict=True):
        status, error = stored.statuses.get(cell.key, ("ok", None))
        cells.append(
            CellRecord(
                asked=asked(cell, store.config),
                apart=apart(cell, store.config),
                problem=cut(error or status) if status in ("failed", "oom") else None,
                nonfinite=row.status == "nonfinite",
                accuracy=_accuracy(stored, cell.key, row),
                speed=_speed(stored, cell.key, row),
            )
        )
    made = {cut(name): cut(value) for name, value in (store.get(MADE) or {}).items()}
    return Snapshot(testbed=cut(rows[0].testbed), settings=store.config, made=made, cells=tuple(cells))


@dataclass(frozen=True)
class _Stored:
    """Data of a store, read once for all its cells. Mappings are by cell key."""

    rounds: Sequence[Round]
    images: ImageList | None
    seen: npt.NDArray[np.int64]
    predictions: Mapping[str, CellPredictions]
    statuses: Mapping[str, tuple[Status, str | None]]
    baseline: str | None
    testbed: str  # fingerprint of the testbed of the rounds
    content: str | None  # digest of the bytes of the images evaluated


def _first(store: Store) -> dict[str, CellPredictions]:
    """Predictions of the first images of the list that each cell of a race has been run on, up to the first gap."""
    found = {}
    batch_size = store.cells()[0][0].batch_size
    for key, (chunks, all_) in store.predictions_of_each().items():
        n = batch_size * next(index for index in range(len(chunks) + 1) if index not in chunks)
        found[key] = CellPredictions(all_.top1[:n], all_.in_top5[:n], all_.ties, all_.nonfinite)
    return found


def with_static(snapshot: Snapshot, static: Snapshot) -> Snapshot:
    """Add to a run's snapshot the static tier that its configuration gives with the code at hand.

    Raises:
        ModelError: the static tier has other weights, another model or another r.
    """
    facts = {cell.name: cell for cell in static.cells}
    cells = []
    for cell in snapshot.cells:
        if (now := facts.get(cell.name)) is None:
            raise ModelError(f"{cell.name} is not among what the stored settings give now; run the sweep again")
        if changed := differing(cell.asked, now.asked, "static"):
            raise ModelError(
                f"the model at hand is not the one that was measured ({cut(', '.join(changed))}); name the right "
                "weights with --checkpoint, or run the sweep again"
            )
        cells.append(cell.model_copy(update={"static": now.static, "static_problem": now.static_problem}))
    return snapshot.model_copy(update={"cells": tuple(cells)})


def asked(cell: Cell, settings: Mapping[str, Any]) -> Asked:
    """Settings of a cell, as the gate records them."""
    fields = {name: getattr(cell, name) for name in Asked.model_fields if name not in ("device", "threads", "options")}
    return Asked(
        **fields,
        options=options_text(cell.written_options),
        device="cuda" if cell.device.startswith("cuda") else "cpu",
        threads=settings.get("threads"),
    )


def apart(cell: Cell, settings: Mapping[str, Any]) -> str:
    """Method and schedule of a cell, each where it is not the first that the settings of its run name."""
    if cell.is_baseline:
        return ""
    method, schedule = (str(settings.get(name, default(name))) for name in ("method", "schedule"))
    first = (method.partition(",")[0], split_schedules(schedule)[0])
    return " ".join(own for own, usual in zip((cell.method, cell.schedule), first, strict=True) if own != usual)


def _accuracy(stored: _Stored, key: str, row: Row) -> Accuracy | None:
    images, found = stored.images, stored.predictions.get(key)
    if images is None or not images.labelled or found is None or found.nonfinite or not len(found.top1):
        return None
    complete = len(found.top1) == len(images.labels)
    # The first images of a stopped cell are the first of the list; otherwise all cells have seen the same.
    seen = stored.seen if len(found.top1) == len(stored.seen) else np.arange(len(found.top1))
    return Accuracy(
        dataset=cut(row.dataset or images.name),
        digest=images.digest,
        content=stored.content if len(seen) == len(stored.seen) else None,
        n_seen=len(seen),
        complete=complete,
        right=packed_bits(is_right(found, images.labels[seen])),
    )


def _content(states: Mapping[int, Sequence[ImageState]]) -> str | None:
    """Digest of the bytes of images, in the order of the list; None where a store does not have them."""
    return fingerprint([state.digest for _, each in sorted(states.items()) for state in each]) if states else None


def _speed(stored: _Stored, key: str, row: Row) -> Speed | None:
    reference = UNWRAPPED if key == stored.baseline else stored.baseline
    if reference is None:
        return None
    timed = pairs(stored.rounds, reference, key)
    if not timed.other:
        return None
    return Speed(
        seconds=tuple(seconds / row.batch_size for seconds in timed.other),
        reference=tuple(seconds / row.batch_size for seconds in timed.base),
        processes=tuple(timed.sessions) if (row.processes or 1) > 1 else None,
        invalid=tuple(code for code in row.warnings if code in INVALID),
        testbed=stored.testbed,
    )
