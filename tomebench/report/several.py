"""Several runs in one table: read them, compare what they were made of, name them, and join their rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tomebench.errors import RunError
from tomebench.identity import MODEL
from tomebench.report.parts import are_parts, joined
from tomebench.report.text import ReportContext, context_for
from tomebench.report.write import write_reports
from tomebench.runs.members import member_runs
from tomebench.runs.origin import Origin
from tomebench.runs.row import Row
from tomebench.runs.rows import build_rows, limit_of
from tomebench.runs.store import Store
from tomebench.schema import MAX_DROP
from tomebench.words import counted


class StoredRun(NamedTuple):
    """Rows and settings of a stored run, and its origin, by which runs are compared."""

    rows: list[Row]
    config: dict[str, Any]
    max_drop: float  # largest tolerable loss in points, as given when it was measured
    origin: Origin
    measured: bool = True  # False for a run that was stopped, or failed, before anything was measured


def read_run(directory: Path) -> StoredRun:
    """Read a stored run.

    Raises:
        RunError: there is no run in the folder, or it holds no results yet.
        StorageError: the store is damaged.
    """
    with Store.read(directory) as store:
        return StoredRun(list(build_rows(store)), store.config, limit_of(store), Origin.of(store), store.has_results)


def in_one_table(
    runs: Sequence[Path],
    stored: Sequence[StoredRun],
    *,
    title: str = "",
    paths: Sequence[object] = (),
    max_drop: float | None = None,
) -> tuple[list[Row], ReportContext]:
    """Rows of several runs with the context of their table; parts of one sweep become the table that they are.

    Args:
        runs: their folders.
        stored: what is in each.
        title: of the table; by default their number.
        paths: files written.
        max_drop: largest tolerable loss in points; by default that of the runs, or 1 point where theirs differ.

    Raises:
        RunError: they are parts of one sweep, but one has other images or another model than the first.
    """
    limits = {each.max_drop for each in stored}
    limit = max_drop if max_drop is not None else limits.pop() if len(limits) == 1 else MAX_DROP
    configs, parts = [each.config for each in stored], are_parts([each.config for each in stored])
    said = _compared(runs, [each.origin for each in stored], parts)
    if parts:
        rows, notes = joined([each.rows for each in stored], configs)
        said = [*notes, *said]
    else:
        named = _names(runs)
        every = [*zip(runs, stored, strict=True)]
        shown = [(run, each) for run, each in every if each.measured] or every
        rows = [dataclasses.replace(row, run=named[run]) for run, each in shown for row in each.rows]
        said += [f"{run} holds no results yet" for run in runs if run not in dict(shown)]
        said += _rounds_shared(rows)
    count = f"{len(runs)} parts" if parts else counted(len(runs), "run")
    context = context_for(rows, title or count, paths=paths, max_drop=limit)
    return rows, dataclasses.replace(context, warnings=(*context.warnings, *said))


def write_together(parent: Path) -> tuple[list[Row], ReportContext]:
    """Write the table of all runs below a folder into it; rows, and their context with the files written.

    Raises:
        RunError: there is none.
        StorageError: a store is damaged, or the files cannot be written.
    """
    runs = member_runs(parent)
    rows, context = in_one_table(runs, [read_run(run) for run in runs], title=f"tomebench {parent.resolve().name}")
    paths = write_reports(parent, rows, context)
    return rows, dataclasses.replace(context, paths=tuple(map(str, paths)))


def _rounds_shared(rows: Sequence[Row]) -> list[str]:
    """Remark on which cells share rounds, where runs have a common reference."""
    named = {row.reference for row in rows} - {None}
    if not named or len({row.run for row in rows}) == 1:
        return []
    return [
        "cells of one run share rounds and r=0; runs share none, and compare by vs reference, each timed beside "
        f"{' or '.join(sorted(filter(None, named)))} in its own rounds"
    ]


def _compared(runs: Sequence[Path], origins: Sequence[Origin], parts: bool) -> list[str]:
    """Remarks on runs in one table that were measured with different code, libraries, models or images.

    Raises:
        RunError: they are parts of one sweep, but one has other images or another model than the first.
    """
    found: list[str] = []
    first, there = runs[0], origins[0]
    for run, here in zip(runs[1:], origins[1:], strict=True):
        image, facts = there.other_image(here), there.other_facts(here) if parts else []
        if parts and (image or (facts and facts[0].name in MODEL)):
            what = f"{image} is another one" if image else str(facts[0])
            raise RunError(f"{run} is no part of the sweep of {first} ({what}); measure it anew, or report it alone")
        if image:
            found.append(f"{image} of {run} is not that of {first}, under the same name: they are other images")
        found += [f"{run} was measured with another {each.name} than {first} ({each})" for each in facts]
    return found


def _names(runs: Sequence[Path]) -> dict[Path, str]:
    """Name of each run: the shortest end of its path that no other run has; empty for a single run."""
    parts = {run: run.resolve().parts for run in runs}
    most = max(map(len, parts.values()))
    for length in range(1, most + 1):
        names = {run: "/".join(path[-length:]) for run, path in parts.items()}
        if len({*names.values()}) == len(runs):
            break
    return names if len(runs) > 1 else dict.fromkeys(runs, "")
