"""``tomebench report``: rebuild tables and figure of stored runs; show several runs in one table."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tomebench.cli.options import Details, Json, Traceback, setting
from tomebench.errors import InputError, RunError
from tomebench.identity import MODEL

if TYPE_CHECKING:
    from tomebench.runs.origin import Origin


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders, as written by sweep or demo.")],
    max_drop: Annotated[float | None, setting("max_drop")] = None,
    json: Json = False,
    details: Details = False,
    traceback: Traceback = False,
) -> None:
    """Rebuild tables and figure of stored runs, and show them.

    Example: tomebench report results/demo

    Example: tomebench report results/cpu results/cuda

    Example: tomebench report results/demo --max-drop 0.5

    Example: tomebench report results/array-cells-1-of-2 results/array-cells-2-of-2

    Rewrites table.csv, rows.jsonl, summary.md and figure.png of each run. Several runs are shown in one table, with a
    column for the setting in which they differ, or their folders' names where that is more than one, and for their
    images; the parts of one sweep (--cells) are the one table that they are. With --max-drop they are judged by that
    limit on the screen, and the files stay what they are; without it each by its own, together by 1 point if those
    differ.
    """
    from tomebench.cli.console import open_screen
    from tomebench.cli.results import read_run, show, write_run
    from tomebench.report.parts import are_parts, joined
    from tomebench.report.text import context_for
    from tomebench.runs.setting_values import checked_max_drop
    from tomebench.schema import MAX_DROP

    try:
        asked = None if max_drop is None else checked_max_drop(max_drop)
    except ValueError as error:
        raise InputError(f"--max-drop {max_drop:g}: {error}") from error
    if len({run.resolve() for run in runs}) < len(runs):
        raise InputError("a run folder is named twice; name every run once")
    stored = [read_run(run) for run in runs]  # all are read before anything is written
    configs = [each.config for each in stored]
    together = are_parts(configs)
    remarks = _compared(runs, [each.origin for each in stored], together)
    limits = [each.max_drop if asked is None else asked for each in stored]
    contexts = [
        write_run(run, each.rows, each.config, limit, keep=asked is None)
        for run, each, limit in zip(runs, stored, limits, strict=True)
    ]
    context, limit = contexts[0], limits[0] if len({*limits}) == 1 else MAX_DROP
    names = _names(runs)
    rows = [
        dataclasses.replace(row, run=names[run]) for run, each in zip(runs, stored, strict=True) for row in each.rows
    ]
    screen = open_screen(as_json=json, details=details)
    if together:
        rows, notes = joined([each.rows for each in stored], configs)
        paths = [path for one in contexts for path in one.paths]
        context = context_for(rows, f"{len(runs)} parts", paths=paths, max_drop=limit)
        show(screen, rows, dataclasses.replace(context, warnings=(*context.warnings, *notes, *remarks)))
        return
    if len(contexts) > 1:
        paths = [path for one in contexts for path in one.paths]
        context = context_for(rows, f"{len(runs)} runs", paths=paths, max_drop=limit)
        context = dataclasses.replace(context, warnings=(*context.warnings, *remarks))
    show(screen, rows, context)


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
