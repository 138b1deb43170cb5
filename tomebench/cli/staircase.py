"""``tomebench staircase``: time of a block at every number of tokens, measured once and stored; shown and drawn."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Annotated

import typer

from tomebench.cli.interrupt import stop_on_signal
from tomebench.cli.options import SweepFlags, takes_sweep_flags
from tomebench.cli.outputs import writable
from tomebench.errors import ConfigError
from tomebench.words import counted

if TYPE_CHECKING:
    from tomebench.cli.console import Screen
    from tomebench.sweeps.config import SweepConfig
    from tomebench.sweeps.staircase import Staircase

_ROWS = 24
"""Lines of the table without --details."""


@dataclass(frozen=True)
class StaircaseFlags(SweepFlags):
    """Flags of sweep, and those of staircase."""

    step: Annotated[int, typer.Option("--step", help="Tokens between two that are timed.", metavar="N")] = 1
    removal: Annotated[
        bool, typer.Option("--removal", help="Also removing tokens, and attention of merged ones, as search needs.")
    ] = False
    figure: Annotated[Path | None, typer.Option("--figure", help="Draw it, as PNG.", metavar="FILE")] = None
    show: Annotated[
        Path | None, typer.Option("--show", help="Show a stored one; nothing is measured.", metavar="FILE")
    ] = None


@partial(takes_sweep_flags, defaults=False, flags=StaircaseFlags, seldom=("Method", "Data"))
def staircase(flags: StaircaseFlags) -> None:
    """Time of a block at every number of tokens.

    Example: tomebench staircase --model deit_ti_16 --batch-size 8 --figure stairs.png

    Kernels work in tiles, so time goes down in steps as tokens do: at some numbers one token less gains much, at others
    nothing. The middle block is timed, its attention and its MLP apart, on the first N tokens of noise, in rounds of
    all N in a random order: 12 with the budget quick, standard 20, publish 40. Steps between neighbours take 20 to be
    told from noise. It is stored in --out, by default results/staircase-MODEL-....json.

    It takes the flags of sweep; those about images and reports play no part, nor without --removal those about merging.
    """
    from tomebench.cli.console import open_screen
    from tomebench.cli.progress import result_of
    from tomebench.sweeps.staircase import read_staircase, run_staircase, write_staircase

    if flags.figure is not None:
        writable("--figure", flags.figure)
    screen = open_screen(as_json=flags.json, quiet=flags.quiet, details=flags.details)
    if flags.show is not None:
        if any(value not in (None, []) for value in flags.given.values()) or flags.config:
            raise ConfigError(
                "--show is about a stored staircase, and the flags of a sweep are about a new one; drop them"
            )
        _show(screen, read_staircase(flags.show), flags, flags.show)
        return
    config = flags.load()
    if config.out is not None:
        writable("--out", config.out)
    with stop_on_signal() as should_stop:
        found = result_of(run_staircase(config, flags.step, should_stop, removal=flags.removal), screen)
    path = config.out or _path(config, found)
    writable("--out", path)
    write_staircase(path, found)
    _show(screen, found, flags, path)


def _path(config: SweepConfig, found: Staircase) -> Path:
    from tomebench.sweeps.config import folder_name

    parts = (config.model, found.img_size, found.device, found.dtype, f"b{found.batch_size}")
    return Path("results") / f"staircase-{folder_name('-'.join(map(str, parts)))}.json"


def _show(screen: Screen, found: Staircase, flags: StaircaseFlags, path: Path) -> None:
    from tomebench.report.staircase import figure, quartiles, sentence, warning
    from tomebench.runs.testbed import one_line
    from tomebench.whole import write_whole

    seen = found.stairs
    title = f"A block of {found.model}, {found.img_size} px, {found.device}, {found.dtype}, batch {found.batch_size}"
    drawn = None
    if flags.figure is not None:
        made = figure(title, seen)
        drawn = made if isinstance(made, str) else f"written: {flags.figure}"
        if isinstance(made, bytes):
            write_whole(flags.figure, made)
    if screen.as_json:
        screen.object({**json.loads(found.to_json()), "sentence": sentence(seen), "file": str(path), "figure": drawn})
        return
    screen.line()
    screen.line(sentence(seen), style="bold")
    screen.line()
    every = 1 if screen.details else -(-len(seen) // _ROWS)
    shown = [each for at, each in enumerate(seen) if (len(seen) - 1 - at) % every == 0]
    cells = [
        (
            str(each.tokens),
            *(f"{ms:.3f}" for ms in (median(each.attention), median(each.mlp), each.ms)),
            *(f"{median(times):.3f}" for times in (each.sized, each.removal) if times),
            "{:.3f} to {:.3f}".format(*quartiles(each)),
        )
        for each in reversed(shown)
    ]
    more = ("attention of merged ms", "removal ms") if found.removal else ()
    screen.table(("tokens", "attention ms", "MLP ms", "block ms", *more, "half of the rounds"), cells, left=())
    screen.line()
    if said := warning(seen):
        screen.line(said)
    rounds = len(found.stairs[0].attention)
    screen.line(f"{title}; block {found.layer + 1} of {found.depth}, medians of {counted(rounds, 'round')}")
    if screen.details:
        screen.line(f"testbed: {one_line(found.testbed)}")
    screen.line(f"stored in {path}", whole=[str(path)])
    if drawn is not None:
        screen.line(drawn, whole=[str(flags.figure)])
