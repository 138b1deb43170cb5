"""``tomebench sweep``: measure speed and top-1 of a model at every r, store the run, write and show its report."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

import typer

from tomebench.cli.interrupt import stop_on_signal
from tomebench.cli.launch import LaunchFlags, start_processes
from tomebench.cli.options import SweepFlags, takes_sweep_flags
from tomebench.errors import EXIT_FAILED_CELLS, ConfigError
from tomebench.ranks.place import Place

if TYPE_CHECKING:
    from tomebench.report.text import ReportContext
    from tomebench.sweeps.config import SweepConfig
    from tomebench.sweeps.events import Event, Facts, Finished


@partial(takes_sweep_flags, flags=LaunchFlags)
def sweep(flags: LaunchFlags) -> None:
    """Speed, cost and, with --data, top-1 of models at each r.

    Example: tomebench sweep --model vit_b_16 --r 0..24 --batch-size 2

    Example: tomebench sweep --model deit_b_16,deit_s_16 --img-size 224,192,176

    Example: tomebench sweep --model vit_b_16 --data imagenet/val --device cuda --nproc-per-node 8

    Values with commas make cells; those of --model, --img-size, --dtype and --batch-size make a run each. Results are
    stored as they come: the same command goes on where it stopped, one that asks for more measures what is missing.
    Other settings take a numbered folder without --out and --name. Flags win over --config, a later one over an
    earlier.
    """
    members = flags.load_members()
    if len(members) == 1 and members[0].config.share is None:
        run(members[0].config, flags)
        return
    from tomebench.cli.members import run_members
    from tomebench.sweeps.shares import alone

    if (flags.nproc_per_node is not None or Place.here().size > 1) and (only := alone(members)) is not None:
        run(only[0], flags, only[1])  # a share of one run, which processes can share
    else:
        run_members(members, flags)


def run(config: SweepConfig, flags: SweepFlags, facts: Facts = ()) -> None:
    """Run a sweep with its progress on stderr; then write and show its reports.

    Args:
        config: of the sweep.
        flags: of the command.
        facts: to be stored with the run.

    Raises:
        Exit: 5 if a cell could not be measured.
    """
    from tomebench.cli.console import open_screen
    from tomebench.cli.results import show

    measured = measure(config, flags, facts)
    if measured is not None:
        finished, context = measured
        show(open_screen(as_json=flags.json, quiet=flags.quiet, details=flags.details), finished.rows, context)
        finish(finished)


def measure(config: SweepConfig, flags: SweepFlags, facts: Facts = ()) -> tuple[Finished, ReportContext] | None:
    """Run a sweep with its progress on stderr, and write its reports; None in a process of rank 1 and up.

    Raises:
        Exit: the sweep was run by several launched processes, which have ended.
    """
    if isinstance(flags, LaunchFlags) and flags.nproc_per_node is not None and config.process_count > 1:
        from tomebench.sweeps.processes import APART

        raise ConfigError(f"--processes or --budget publish with --nproc-per-node: {APART}")
    start_processes(flags)
    from tomebench.cli.console import open_screen
    from tomebench.cli.progress import follow
    from tomebench.cli.results import write_run
    from tomebench.gate.race import boards_of
    from tomebench.sweeps.config import run_directory
    from tomebench.sweeps.resume import choose_folder
    from tomebench.sweeps.run import run_sweep

    leads = Place.here().rank == 0  # rank 0 alone writes
    screen = open_screen(as_json=flags.json, quiet=flags.quiet or not leads)
    boards = boards_of(config)
    with stop_on_signal(quiet=not leads) as should_stop:
        named = config.out is not None or bool(flags.given["name"] or flags.config)  # not by demo.yaml
        folder, remark = choose_folder(config, named=named) if leads else (run_directory(config), None)
        events = run_sweep(config, folder, should_stop, facts=facts, boards=boards)
        finished = follow(_remarked(events, remark), screen)
        if not leads:
            return None
        settings = dict(finished.settings or config.stored())
        return finished, write_run(finished.directory, finished.rows, settings, finished.max_drop)


def _remarked(events: Iterator[Event], remark: str | None) -> Iterator[Event]:
    """Pass events on, and insert a remark once it is certain that something will be measured."""
    from tomebench.sweeps.events import Note, Planned

    for event in events:
        if remark and isinstance(event, Planned):
            yield Note(remark)
        yield event


def finish(finished: Finished) -> None:
    """Exit with 5 if a cell could not be measured."""
    if any(row.status in ("failed", "nonfinite", "oom") for row in finished.rows):
        raise typer.Exit(EXIT_FAILED_CELLS)
