"""``tomebench report``: rebuild tables and figure of stored runs; show several runs in one table."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from tomebench.cli.options import Details, Json, Traceback, setting
from tomebench.errors import InputError


def report(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN...", help="Run folders, as written by sweep or demo, or a folder of them."),
    ],
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

    Rewrites table.csv, rows.jsonl, summary.md and figure.png of each run, or of the folder of several. Several runs are
    shown in one table, with a column for the setting in which they differ, or their folders' names where that is more
    than one, and for their images; the parts of one sweep (--cells) are the one table that they are. With --max-drop
    they are judged by that limit on the screen, and the files stay what they are; without it each by its own, together
    by 1 point if those differ.
    """
    from tomebench.cli.console import open_screen
    from tomebench.cli.results import show, write_run
    from tomebench.report.several import in_one_table, read_run
    from tomebench.report.write import write_reports
    from tomebench.runs.members import all_runs
    from tomebench.runs.setting_values import checked_max_drop

    try:
        asked = None if max_drop is None else checked_max_drop(max_drop)
    except ValueError as error:
        raise InputError(f"--max-drop {max_drop:g}: {error}") from error
    given, runs = runs, all_runs(runs)
    if len({run.resolve() for run in runs}) < len(runs):
        raise InputError("a run folder is named twice; name every run once")
    stored = [read_run(run) for run in runs]  # all are read before anything is written
    if len(runs) > 1:
        rows, context = in_one_table(runs, stored, max_drop=asked)
    paths: list[str] = []
    if len(given) == 1 < len(runs):  # the folder of several runs has one table of them all
        paths = [] if asked is not None else [str(path) for path in write_reports(given[0], rows, context)]
    else:
        for run, each in zip(runs, stored, strict=True):
            limit = each.max_drop if asked is None else asked
            own = write_run(run, each.rows, each.config, limit, keep=asked is None)
            paths += own.paths
            if len(runs) == 1:
                rows, context = each.rows, own
    context = dataclasses.replace(context, paths=tuple(paths))
    show(open_screen(as_json=json, details=details), rows, context)
