"""``tomebench compare``: stored runs at equal accuracy, tokens, MACs and measured speed; nothing is measured."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tomebench.cli.options import Details, Json, Traceback
from tomebench.cli.outputs import writable
from tomebench.errors import ConfigError, InputError, SpecError

if TYPE_CHECKING:
    from tomebench.cli.console import Screen
    from tomebench.compare.points import Comparison
    from tomebench.compare.questions import Question
    from tomebench.report.compared import Section

_FORMATS = ("console", "markdown", "latex", "csv")


def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders, as written by sweep.")],
    match: Annotated[
        list[str] | None,
        typer.Option(
            "--match",
            help="What is equal: drop=X (points of top-1), tokens, gmacs or speed, with =N for one value; repeat it.",
            metavar="WHAT",
        ),
    ] = None,
    pareto: Annotated[bool, typer.Option("--pareto", help="The front of speed and top-1, and what it beats.")] = False,
    tests: Annotated[bool, typer.Option("--tests", help="Paired tests at each r, with Holm's correction.")] = False,
    against: Annotated[
        str | None, typer.Option("--against", help="The method that others are compared with.", metavar="METHOD")
    ] = None,
    tolerance: Annotated[
        float, typer.Option("--tolerance", help="How far a point may be from the value, in %.", metavar="PERCENT")
    ] = 5.0,
    format: Annotated[
        str | None,
        typer.Option(
            "--format", help="What to print: console, markdown, latex or csv. [default: console]", metavar="NAME"
        ),
    ] = None,
    figure: Annotated[
        Path | None, typer.Option("--figure", help="Draw a figure with a line a method, as PNG.", metavar="FILE")
    ] = None,
    json: Json = False,
    details: Details = False,
    traceback: Traceback = False,
) -> None:
    """Which method at equal accuracy, tokens, MACs or speed?

    Example: tomebench compare results/methods

    Example: tomebench compare results/methods --match drop=1

    Example: tomebench compare results/methods --match tokens --format latex

    One table a question, from stored runs; nothing is measured. Every line is a method with its options, or a plain
    rival: a smaller input or a smaller model at r = 0. Each gives a point that was measured, never one in between: at
    equal accuracy the fastest (without comparable times, the one of least MACs) that loses at most X points, otherwise
    the nearest within --tolerance. A line whose grid does not reach it, and a drop that too few images tell, say so.

    Drops are against r = 0 of the reference, or of the model and input with most MACs, on the same images. Speeds are
    compared within one run, or over a common reference. Rows that differ in the seed only are one point, their mean.
    Without --match, --pareto and --tests: at most 0.5 and 1 point lost, then tokens, MACs and speed each equal to those
    of METHOD where it loses at most 1 point, and the front.
    """
    from tomebench.cli.console import open_screen
    from tomebench.compare.lines import comparisons
    from tomebench.compare.questions import answers, parse_match
    from tomebench.compare.read import read_runs
    from tomebench.report.compared import section
    from tomebench.report.compared_formats import about, csv_text, latex_text, markdown_text, records

    if format is not None and format not in _FORMATS:
        raise SpecError(f"--format {format[:40]!r}: use {', '.join(_FORMATS)}")
    if format is not None and json:
        raise ConfigError("--json and --format print two different things; drop one of them")
    if not 0 <= tolerance <= 100:
        raise InputError(f"--tolerance {tolerance:g}: use a percentage from 0 to 100")
    questions: list[Question] = [parse_match(text) for text in match or ()]
    if figure is not None:
        writable("--figure", figure)
    measured, remarks = read_runs(runs)
    found = comparisons(measured)
    views = answers(found, questions, pareto=pareto, tests=tests, against=against, tolerance=tolerance / 100)
    sections = [section(each, view, several=len(found) > 1) for each, view in views]
    drawn = None if figure is None else _draw(figure, found)
    screen = open_screen(as_json=json, details=details)
    if json:
        lines = [*remarks, *(remark for each in found for remark in each.remarks)]
        screen.object({"entries": records(views), "remarks": lines, "figure": drawn})
    elif format == "csv":
        print(csv_text(views), end="", file=screen.out.file)
    elif format in ("markdown", "latex"):
        written = markdown_text if format == "markdown" else latex_text
        print(written(sections, about(found, remarks)), end="", file=screen.out.file)
    else:
        _show(screen, sections, found, remarks)
        if drawn is not None:
            screen.line(drawn, whole=[str(figure)])


def _draw(path: Path, found: Sequence[Comparison]) -> str:
    """Draw the first comparison that can be drawn; returns a line that says what was written, or why nothing was."""
    from tomebench.report.compared_figure import compared_figure
    from tomebench.whole import write_whole

    said = ""
    for each in found:
        drawn = compared_figure(each)
        if isinstance(drawn, bytes):
            write_whole(path, drawn)
            return f"written: {path}" + (f" ({each.setting})" if len(found) > 1 else "")
        said = said or drawn
    return said


def _show(screen: Screen, sections: Sequence[Section], found: Sequence[Comparison], remarks: Sequence[str]) -> None:
    """Print the tables, each under its question, and below them what their columns mean."""
    from tomebench.report.compared import KEYS, WORDS
    from tomebench.report.compared_formats import about

    lost: list[str] = []
    for each in sections:
        screen.line()
        screen.line(each.title, style="bold")
        lost += screen.table(*each.table, left=WORDS, steps=each.steps, keys=KEYS)
        for note in each.notes:
            screen.line(note)
    screen.line()
    said = [*remarks, *(remark for each in found for remark in each.remarks)]
    screen.remarks([("", line) for line in said], said, lost)
    for line in about(found):
        if line not in said:
            screen.line(line)
