"""``tomebench recommend``: which row to take, chosen on one half of the images and estimated on the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tomebench.cli.launch import LaunchFlags
from tomebench.cli.options import takes_sweep_flags
from tomebench.errors import EXIT_OPEN, ConfigError

if TYPE_CHECKING:
    from tomebench.cli.console import Screen
    from tomebench.compare.recommend import Recommendation
    from tomebench.runs.goal import Goal
    from tomebench.sweeps.config_files import Member

_OF_THE_QUESTION = ("max_drop", "min_agreement", "min_speedup", "max_latency_ms", "seed")
"""Settings that mean something about stored runs, too."""


@dataclass(frozen=True)
class RecommendFlags(LaunchFlags):
    """Flags of sweep, and the stored runs."""

    runs: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[RUN...]", help="Run folders to choose from, in place of --model.", show_default=False),
    ] = None


@partial(takes_sweep_flags, flags=RecommendFlags, seldom=("Model", "Method", "Timing"))
def recommend(flags: RecommendFlags) -> None:
    """Which row to take, and what it surely costs.

    Example: tomebench recommend --model vit_b_16 --data imagenet/val --max-drop 0.5

    Example: tomebench recommend results/methods --min-speedup 1.5

    Half of the images choose, the other half estimate. With --max-drop or --min-agreement the fastest row that surely
    keeps it; with --min-speedup or --max-latency-ms alone the most accurate that does. --max-drop 1 if nothing is said.

    Of stored runs, over methods, models, input sizes and batch sizes, nothing is measured. With --model a sweep is run
    first, or gone on with, whose cells are run on no more images than it takes to choose (--until recommended; those
    of several models are run on all). Losses are against r = 0 of the reference, or of the model and input with most
    MACs.

    Exits with 4 where nothing can be said.
    """
    from tomebench.cli.console import open_screen
    from tomebench.compare.read import read_runs
    from tomebench.compare.recommend import goal_of
    from tomebench.compare.recommend import recommend as choose
    from tomebench.sweeps.config_files import goal_asked

    runs, ended = flags.runs or [], list[str]()
    if runs:
        given = [name for name, value in flags.given.items() if value not in (None, [])]
        asked = [name for name in given if name not in _OF_THE_QUESTION]
        if asked or flags.config:
            name = asked[0].replace("_", "-") if asked else "config"
            raise ConfigError(f"--{name} is about a sweep, and stored runs are named; drop one of them")
        goal = goal_asked({name: flags.given.get(name) for name in _OF_THE_QUESTION if name != "seed"})
        seed = flags.given.get("seed") or 0
    else:
        measured = _measure(flags)
        if measured is None:  # a process of rank 1 and up
            return
        runs, goal, seed, ended = measured
    rows, remarks = read_runs(runs)
    found = choose(rows, goal or goal_of(rows), seed)
    _show(open_screen(as_json=flags.json, quiet=flags.quiet, details=flags.details), found, [*ended, *remarks], runs)
    if found.why is not None:
        raise typer.Exit(EXIT_OPEN)


def _measure(flags: RecommendFlags) -> tuple[list[Path], Goal | None, int, list[str]] | None:
    """Run the sweep that the question needs; its folder, the question, the seed and remarks. None in rank 1 and up."""
    from tomebench.cli.members import measure_members
    from tomebench.cli.sweep import measure

    members = flags.load_members()
    config = members[0].config
    if config.data is None:
        raise ConfigError("recommend counts what is lost, and there are no images; add --data, or name stored runs")
    if config.share is not None:
        raise ConfigError("a recommendation needs all of a plan; sweep its shares, then name them: recommend RUN...")
    if len(members) > 1:
        every = [_until(member, "all") for member in members]
        parent, ended = measure_members(every, flags)
        return [parent], config.goal, config.seed, [f"left out: {error}" for error in ended]
    config = _until(members[0], "recommended").config
    measured = measure(config, flags)
    return None if measured is None else ([measured[0].directory], config.goal, config.seed, [])


def _until(member: Member, usual: str) -> Member:
    """The same run with ``until``, unless it is given."""
    if member.config.until is not None:
        return member
    return member._replace(config=member.config.model_copy(update={"until": usual}))


def _show(screen: Screen, found: Recommendation, remarks: Sequence[str], runs: Sequence[Path]) -> None:
    """Print the sentence, the table of the chosen row and those near it, and what they mean."""
    from tomebench.report.recommended import NARROWER, about, as_json, sentence, table

    if screen.as_json:
        screen.object({**as_json(found), "runs": [str(run) for run in runs], "remarks": [*remarks, *found.remarks]})
        return
    screen.line()
    screen.line(sentence(found), style="bold")
    lost: list[str] = []
    if found.chosen or found.close:
        screen.line()
        lost = screen.table(*table(found), left=("", "row"), steps=NARROWER, keys=("", "row"))
    screen.line()
    screen.remarks([("", line) for line in remarks], remarks, lost)
    for line in about(found):
        screen.line(line)
    screen.line(f"from {', '.join(map(str, runs))}", whole=[str(run) for run in runs])
