"""``tomebench reproduce``: measure the tables of a paper, beside the reported figures, with a verdict for each row."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tomebench.cli.options import SweepFlags, takes_sweep_flags
from tomebench.errors import EXIT_DIFFERS, EXIT_FAILED_CELLS, EXIT_OPEN, ConfigError, InputError, ModelError, SpecError
from tomebench.ranks.place import Place
from tomebench.whole import write_whole

if TYPE_CHECKING:
    from tomebench.cli.console import Screen
    from tomebench.paper.comparison import Found, Line
    from tomebench.paper.runs import TableRun
    from tomebench.paper.targets import PaperTable
    from tomebench.report.narrow import Table
    from tomebench.report.reproduction import Layout

_SUFFIXES = {"markdown": ".md", "latex": ".tex"}
_FORMATS = ("console", *_SUFFIXES)


@dataclass(frozen=True)
class ReproduceFlags(SweepFlags):
    """Flags of sweep, and those of this command."""

    table: Annotated[
        str | None, typer.Argument(metavar="[TABLE]", help="A table, or TABLE/RUN for a part of it; see --list.")
    ] = None
    list_: Annotated[bool, typer.Option("--list", help="What tables there are, and their runs.")] = False
    static: Annotated[bool, typer.Option("--static", help="Only GMACs and tokens: no images, no weights.")] = False
    speed: Annotated[bool, typer.Option("--speed", help="Only time: random weights, no images.")] = False
    weights: Annotated[
        Path | None,
        typer.Option("--weights", help="Folder with files of weights, named as they are published.", metavar="DIR"),
    ] = None
    format: Annotated[
        str | None,
        typer.Option("--format", help="What to print: console, markdown or latex. [default: console]", metavar="NAME"),
    ] = None


@partial(takes_sweep_flags, defaults=False, flags=ReproduceFlags)
def reproduce(flags: ReproduceFlags) -> None:
    """The paper's tables: reported beside measured.

    Example: tomebench reproduce --list

    Example: tomebench reproduce augreg --static

    Example: tomebench reproduce augreg/b_224 --data imagenet/val --device cuda

    Example: tomebench reproduce swag --data imagenet/val --weights checkpoints/ --format latex

    Example: tomebench reproduce digits

    A run whose images or weights are not there is named with what it lacks, and its GMACs and tokens are checked all
    the same. Top-1 is reproduced within 25 images of 50 000 (75 in half precision) beyond the rounding of the printed
    number, GMACs as printed. A speed-up stands beside the reported one and the ratio of MACs; other hardware is no
    failure.

    The flags of sweep, but --name, go on top of every run. Everything is kept in results/paper-TABLE, what --speed
    measures apart from the rest, and the same command goes on there. Exits with 3 if something differs, with 4 if
    something that could be compared was not.
    """
    from tomebench.cli.console import open_screen
    from tomebench.paper.comparison import compare
    from tomebench.paper.runs import found, found_audio, table_runs
    from tomebench.paper.tables import find_table
    from tomebench.report.reproduction import context_table, latex_text, layout, markdown_text

    _check(flags)
    screen = open_screen(as_json=flags.json, quiet=flags.quiet, details=flags.details)
    if flags.list_:
        _list(screen)
        return
    table, only = find_table(flags.table or "")
    runs = table_runs(table, only, _given(flags), flags.weights, speed_only=flags.speed, extra=flags.config or [])
    if not runs and (ignored := _ignored(flags)):
        raise SpecError(f"table {table.name} measures nothing; leave {', '.join(ignored)} out")
    pairs = sorted(((found(run), run) for run in runs), key=lambda pair: pair[0].shape.order)
    facts, runs = [each for each, _ in pairs], [run for _, run in pairs]
    if table.name == "audio":
        facts = [found_audio("b")]
    directory = flags.given["out"] or Path("results") / f"paper-{table.name}"
    if flags.given["out"] is not None:
        _make(directory)
    conditions: list[str] = []
    missing: dict[str, tuple[str, ...]] = {}
    if not flags.static:
        facts, conditions, missing = _measure(runs, facts, directory, screen, flags)
    lines = compare(table, facts, static=flags.static, only=only)
    shown = layout(table.title, lines, table.acc_name, missing, by_choice=table.by_choice)
    context = context_table(table.remeasured(only))
    texts = {"markdown": markdown_text(shown, context, conditions), "latex": latex_text(shown, conditions)}
    worth = flags.given["out"] is not None or any(line.row is not None for line in lines)
    name = "costs" if flags.static else "speed" if flags.speed else "table"
    written = _write(directory, f"{name}-{only}" if only else name, texts) if worth else []
    code = _exit_code(lines, flags)
    if screen.as_json:
        screen.object(_json(table, only, lines, missing, conditions, written, code))
    elif flags.format in _SUFFIXES:
        print(texts[flags.format], end="", file=screen.out.file)  # as it is, to be pasted
    else:
        _show(screen, shown, context, conditions, lines, written)
    if code:
        raise typer.Exit(code)


def _given(flags: ReproduceFlags) -> dict[str, object]:
    """The settings of sweep that the user gave for all runs of the table; None: not given."""
    return {**flags.given, "out": None}


def _ignored(flags: ReproduceFlags) -> list[str]:
    """Given flags that have no effect with ``--static``, which measures nothing."""
    given = {**_given(flags), "weights": flags.weights, "config": flags.config, "offline": None}
    return [f"--{name.replace('_', '-')}" for name, value in given.items() if value]


def _make(directory: Path) -> None:
    """Make the folder for the results, before anything is measured."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out {directory}: {error.strerror or error}; give a folder that can be written") from error


def _check(flags: ReproduceFlags) -> None:
    """Raise InputError for flags that exclude each other."""
    if (flags.table is None) != flags.list_:
        what = "--list lists all tables; leave the table out" if flags.list_ else "which table? name one; see: --list"
        raise SpecError(what)
    if flags.format is not None and flags.format not in _FORMATS:
        raise SpecError(f"--format {flags.format!r}: use {', '.join(_FORMATS)}")
    if flags.format is not None and flags.json:
        raise ConfigError("--json and --format print two different things; drop one of them")
    if flags.static and flags.speed:
        raise ConfigError("--static measures nothing and --speed only times; drop one of them")
    if flags.given["name"] is not None:
        raise ConfigError("--name is that of the table; use --out for another folder")
    if flags.weights is not None and not flags.weights.is_dir():
        raise InputError(f"--weights {flags.weights}: no such folder")
    if Place.here().size > 1:
        raise InputError(
            "several processes share one run: use tomebench sweep --nproc-per-node N --config paper/TABLE/RUN "
            "--out results/paper-TABLE/RUN with the same flags, then tomebench reproduce TABLE, which goes on there"
        )


def _measure(
    runs: Sequence[TableRun], facts: Sequence[Found], directory: Path, screen: Screen, flags: ReproduceFlags
) -> tuple[list[Found], list[str], dict[str, tuple[str, ...]]]:
    """Measure the runs of the table whose images and weights are there, one after another.

    Returns:
        The facts known now, the conditions they were measured under, and what the other runs lack, by their name.
    """
    from tomebench.cli.results import write_run
    from tomebench.cli.sweep import measure
    from tomebench.paper.runs import measured_before, with_measured
    from tomebench.report.several import read_run

    done, conditions = list(facts), []
    missing: dict[str, tuple[str, ...]] = {}
    folders = [directory / (f"{run.name}-speed" if flags.speed else run.name) for run in runs]
    for run, folder in zip(runs, folders, strict=True):
        if run.missing and not measured_before(run, folder):
            missing[run.full_name] = run.missing
    if 0 < len(missing) < len(runs):  # printed before measuring for hours, and again below the table
        screen.note(f"will not be measured, for want of images or weights: {', '.join(missing)}")
    for place, (run, folder) in enumerate(zip(runs, folders, strict=True)):
        if run.full_name in missing:
            continue
        screen.note(f"{run.full_name} ({place + 1} of {len(runs)})")
        try:
            if run.missing:
                stored = read_run(folder)
                context = write_run(folder, stored.rows, stored.config, stored.max_drop)
            else:
                measured = measure(run.config.model_copy(update={"out": folder}), flags)
                assert measured is not None, "this process is alone"
                _, context = measured
        except ModelError as error:
            if flags.given["checkpoint"] is not None or flags.given["model"] is not None:
                raise
            missing[run.full_name] = (f"{error}; --weights DIR takes {run.weights}",)
            continue
        done[place] = with_measured(done[place], run, folder)
        conditions += [f"{run.name}: {line}" for line in (*context.conditions, *context.warnings)]
    return done, conditions, missing


def _exit_code(lines: Sequence[Line], flags: ReproduceFlags) -> int:
    """Exit code: 3 if something differs, 5 if a cell failed, 4 if something comparable was not compared; else 0."""
    if any(line.differs for line in lines):
        return EXIT_DIFFERS
    if any(line.row is not None and line.row.status in ("failed", "oom", "nonfinite") for line in lines):
        return EXIT_FAILED_CELLS
    if flags.static:
        return 0
    if all(line.row is None for line in lines):
        return EXIT_OPEN
    return EXIT_OPEN if not flags.speed and any(line.open for line in lines) else 0


def _write(directory: Path, name: str, texts: Mapping[str, str]) -> list[str]:
    directory.mkdir(parents=True, exist_ok=True)
    written = []
    for kind, suffix in _SUFFIXES.items():
        path = directory / f"{name}{suffix}"
        write_whole(path, texts[kind])
        written.append(str(path))
    return written


def _show(
    screen: Screen,
    shown: Layout,
    context: Table,
    conditions: Sequence[str],
    lines: Sequence[Line],
    written: Sequence[str],
) -> None:
    from tomebench.report.codes import brief_lines
    from tomebench.report.conditions import compact_conditions
    from tomebench.report.reproduction import narrower, summary

    left = [head.name for head in shown.heads if head.left]
    screen.line(summary(lines), style="bold")
    screen.line(shown.title)
    lost = []
    for place, (title, _) in enumerate(shown.parts):
        screen.line()
        screen.line(title)
        lost += screen.table(*shown.table(place), left=left, steps=narrower(shown), keys=("choice", "r"))
    screen.line()
    if context[1] and screen.details:
        screen.line("Measured by others, for context")
        screen.table(*context, left=context[0], keys=("model", "method", "r"))
        screen.line()
    rows = [line.row for line in lines if line.row is not None]
    warnings = brief_lines(rows, screen.width - 2)
    sources = [note for note in shown.notes if note.startswith("reported: ")]
    notes = [note for note in shown.notes if note not in sources]
    notes.sort(key=lambda note: note.startswith("("))  # what differs and what is missing before the marks of cells
    said = [*((note.partition(" ")[0] if note.startswith("(") else "", note) for note in notes), *warnings]
    screen.remarks(said, notes, [*lost, *["what others measured"] * bool(context[1])])
    for line in [*sources, *(conditions if screen.details else [compact_conditions(rows)] * bool(rows))]:
        screen.line(line)
    if written:
        screen.line(f"written: {', '.join(written)}", whole=written)


def _json(
    table: PaperTable,
    only: str | None,
    lines: Sequence[Line],
    missing: Mapping[str, Sequence[str]],
    conditions: Sequence[str],
    written: Sequence[str],
    code: int,
) -> dict[str, object]:
    from tomebench.report.reproduction import line_object, summary

    return {
        "table": table.name,
        "title": table.title,
        "exit_code": code,
        "outcome": summary(lines),
        "missing": {name: list(what) for name, what in missing.items()},
        "lines": [line_object(line) for line in lines],
        "context": [dataclasses.asdict(row) for row in table.remeasured(only)],
        "conditions": list(conditions),
        "written": list(written),
    }


def _list(screen: Screen) -> None:
    from tomebench.paper.runs import run_files
    from tomebench.paper.tables import TABLES

    found = []
    for table in TABLES.values():
        runs, reported = list(run_files(table.name)), list(table.targets())
        found.append((table.name, table.title, str(len(reported)), ", ".join(runs) or "-"))
    headers = ("table", "what it is", "reported", "runs")
    if screen.as_json:
        screen.object({"tables": [dict(zip(headers, row, strict=True)) for row in found]})
        return
    screen.listing(headers, found)
    screen.line("tomebench reproduce TABLE --static checks GMACs and tokens; with --data DIR everything is measured")
