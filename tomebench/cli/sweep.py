"""``tomebench sweep``: measure every r, store, report."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from tomebench.cli.interrupt import stop_on_signal
from tomebench.cli.options import SweepFlags, takes_sweep_flags
from tomebench.errors import EXIT_FAILED_CELLS
from tomebench.sweeps.ranks import Place

if TYPE_CHECKING:
    from tomebench.sweeps.config import SweepConfig


@takes_sweep_flags
def sweep(flags: SweepFlags) -> None:
    """Speed, cost and, with --data, top-1 of a model at every r.

    Example: tomebench sweep --model vit_b_16 --r 0..24 --batch-size 2

    Example: tomebench sweep --model deit_ti_16 --data imagenet/val --r 0..24:2

    Example: torchrun --nproc-per-node 8 -m -- tomebench sweep --model vit_b_16 --data imagenet/val --device cuda

    Results are stored in the run folder as they come. The same command goes on where it stopped. A flag wins over
    --config, a later --config over an earlier one.
    """
    run(flags.load(), flags)


def run(config: SweepConfig, flags: SweepFlags) -> None:
    """Run a sweep, drawing its progress; then write and show its reports.

    Raises:
        Exit: 5 if a cell could not be measured.
    """
    from tomebench.cli.console import follow, open_screen
    from tomebench.cli.results import show, write_run
    from tomebench.sweeps.config import run_directory
    from tomebench.sweeps.run import run_sweep

    leads = Place.here().rank == 0
    screen = open_screen(as_json=flags.json, quiet=flags.quiet or not leads)
    with stop_on_signal(quiet=not leads) as should_stop:
        finished = follow(run_sweep(config, run_directory(config), should_stop), screen)
        if not leads:
            return
        context = write_run(finished.directory, finished.rows, config.stored())
    show(screen, finished.rows, context)
    if any(row.status in ("failed", "nonfinite", "oom") for row in finished.rows):
        raise typer.Exit(EXIT_FAILED_CELLS)
