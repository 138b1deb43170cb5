"""``tomebench search``: r of every layer that is fastest within a loss, against the best constant r."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tomebench.cli.interrupt import stop_on_signal
from tomebench.cli.options import SweepFlags, takes_sweep_flags
from tomebench.errors import EXIT_OPEN, ConfigError
from tomebench.ranks.place import Place

if TYPE_CHECKING:
    from tomebench.cli.console import Screen
    from tomebench.compare.searched import Searched
    from tomebench.sweeps.config import SweepConfig


@dataclass(frozen=True)
class SearchFlags(SweepFlags):
    """Flags of sweep, and those of search."""

    tries: Annotated[int, typer.Option("--tries", help="Schedules to make, eight at a time.", metavar="N")] = 64
    staircase: Annotated[
        Path | None,
        typer.Option(
            "--staircase",
            help="Stored times of a block, by tomebench staircase --removal. Without: measured once.",
            metavar="FILE",
            show_default=False,
        ),
    ] = None


@partial(takes_sweep_flags, flags=SearchFlags, seldom=("Several processes",))
def search(flags: SearchFlags) -> None:
    """The r of every layer that is fastest within a loss.

    Example: tomebench search --model deit_s_16 --data imagenet/val --max-drop 0.5

    First the best r of constant, decreasing and inflected schedules (--schedule names other families), then small
    changes to the best, eight at a time. Half of the images choose, raced as by --until recommended; the staircase of
    a block says what is faster (MACs with --budget none). At the end the schedule found and the best constant and
    decreasing r are timed in the same rounds, and run on the other half of the images.

    Written into the run folder (results/search-MODEL-METHOD): schedule.yaml for sweep --config, search.md, and
    staircase.json. The same command goes on where it stopped.

    Exits with 4 where nothing can be said.
    """
    from tomebench.cli.console import open_screen
    from tomebench.cli.progress import result_of
    from tomebench.compare.searched import searched
    from tomebench.sweeps.config import folder_name
    from tomebench.sweeps.resume import choose_folder
    from tomebench.sweeps.search import check_search, run_search
    from tomebench.sweeps.staircase import read_staircase

    config = flags.load()
    check_search(config, flags.tries)
    if Place.here().size > 1:
        raise ConfigError("search runs in one process; start it without torchrun")
    staircase = None if flags.staircase is None else read_staircase(flags.staircase)
    if config.budget == "none" and staircase is not None:
        raise ConfigError("budget none goes by MACs, not by times; drop --staircase, or --budget none")
    named = config.out is not None or config.name is not None
    if not named:
        config = config.model_copy(update={"name": folder_name(f"search-{config.model}-{config.method}")})
    screen = open_screen(as_json=flags.json, quiet=flags.quiet, details=flags.details)
    with stop_on_signal() as should_stop:
        folder, remark = choose_folder(config.model_copy(update={"until": "recommended"}), named=named)
        if remark:
            screen.note(remark)
        result_of(run_search(config, folder, should_stop, tries=flags.tries, staircase=staircase), screen)
    found = searched(folder, config.goal)
    _show(screen, found, config, folder)
    if found.answer.why is not None:
        raise typer.Exit(EXIT_OPEN)


def _show(screen: Screen, found: Searched, config: SweepConfig, folder: Path) -> None:
    """Write the configuration and the result, and print it."""
    from tomebench.report.searched import NARROWER, WORDS, about, as_json, markdown_text, sentences, table
    from tomebench.sweeps.search import saved
    from tomebench.whole import write_whole

    written = [folder / "search.md"]
    write_whole(written[0], markdown_text(f"tomebench {folder.resolve().name}", found))
    (folder / "schedule.yaml").unlink(missing_ok=True)  # of another limit
    if found.answer.chosen is not None and found.answer.why is None:
        written.append(folder / "schedule.yaml")
        row = found.answer.chosen.measured.row
        write_whole(written[-1], f"# {sentences(found)[0]}.\n{saved(config, row.schedule, row.r)}")
    if screen.as_json:
        screen.object({**as_json(found), "run": str(folder), "files": [str(each) for each in written]})
        return
    screen.line()
    first, *rest = sentences(found)
    screen.line(first, style="bold")
    for line in rest:
        screen.line(line)
    if found.found is not None:
        screen.line()
        lost = screen.table(*table(found), left=WORDS, steps=NARROWER, keys=WORDS)
        screen.line()
        screen.remarks([], [], lost)
    for line in about(found):
        screen.line(line)
    screen.line(f"written: {', '.join(map(str, written))}", whole=[str(each) for each in written])
