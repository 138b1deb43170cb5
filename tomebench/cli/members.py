"""A sweep over several models, sizes, dtypes or batch sizes: its runs one after another, then one table of all."""

from __future__ import annotations

import dataclasses
import itertools
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from tomebench.cli.interrupt import stop_on_signal
from tomebench.cli.launch import LaunchFlags
from tomebench.errors import EXIT_FAILED_CELLS, ConfigError, InputError
from tomebench.words import counted

if TYPE_CHECKING:
    from tomebench.sweeps.config_files import Member


def run_members(members: Sequence[Member], flags: LaunchFlags) -> None:
    """Measure every run below one parent folder with its progress on stderr; write and show the table of all.

    Raises:
        InputError: the first that a run ended with, after the table of the others.
        Exit: 5 if a cell could not be measured.
    """
    from tomebench.cli.console import open_screen
    from tomebench.cli.results import show
    from tomebench.report.several import write_together

    parent, ended = measure_members(members, flags)
    screen = open_screen(as_json=flags.json, quiet=flags.quiet, details=flags.details)
    rows, context = write_together(parent)
    show(screen, rows, dataclasses.replace(context, next_command=shlex.join(["tomebench", "compare", str(parent)])))
    if ended:
        raise ended[0]
    if any(row.status in ("failed", "nonfinite", "oom") for row in rows):
        raise typer.Exit(EXIT_FAILED_CELLS)


def measure_members(members: Sequence[Member], flags: LaunchFlags) -> tuple[Path, list[InputError]]:
    """Measure every run below one parent folder with its progress on stderr; the folder, and what runs ended with.

    A run that cannot be measured, such as one whose batch does not fit in memory, keeps none of the others from it.

    Raises:
        InputError: all runs ended with one; this is the first.
    """
    from tomebench.cli.console import open_screen
    from tomebench.cli.progress import follow
    from tomebench.cli.results import write_run
    from tomebench.gate.race import boards_of
    from tomebench.sweeps.events import Note
    from tomebench.sweeps.members import ALONE, check_members
    from tomebench.sweeps.resume import choose_parent
    from tomebench.sweeps.run import run_sweep
    from tomebench.sweeps.shares import facts_of, own_share, plan_share

    if flags.nproc_per_node is not None:
        raise ConfigError(ALONE)
    screen = open_screen(as_json=flags.json, quiet=flags.quiet, details=flags.details)
    with stop_on_signal() as should_stop:
        plan, members = plan_share(members), own_share(members)
        check_members(members)
        named = members[0].config.out is not None or bool(flags.given["name"] or flags.config)
        parent, remark = choose_parent(members, named=named)
        if remark:
            screen.note(remark)
        ended: list[InputError] = []
        for number, (name, config) in enumerate(members, start=1):
            said = Note(f"run {number} of {counted(len(members), 'run')}: {name}")
            try:
                facts, boards = facts_of(plan, name), boards_of(config)
                events = run_sweep(config, parent / name, should_stop, facts=facts, boards=boards)
                finished = follow(itertools.chain([said], events), screen)
            except InputError as error:
                ended.append(type(error)(f"run {name}: {error}"))
                screen.note(str(ended[-1]))
                continue
            settings = dict(finished.settings or config.stored())
            write_run(finished.directory, finished.rows, settings, finished.max_drop)
    if len(ended) == len(members):
        raise ended[0]
    return parent, ended
