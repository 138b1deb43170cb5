"""Screen: print results to stdout, laid out for the width of the terminal, and status lines to stderr.

Data (paths, names, numbers) are printed literally: without markup, control characters escaped.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rich.console import Console
from rich.text import Text

from tomebench.cli.layout import (
    ASCII,
    NARROWEST,
    command_lines,
    entries,
    in_parts,
    narrowed,
    records,
    table_lines,
    table_width,
    wrapped,
)
from tomebench.report.escape import clean
from tomebench.report.narrow import Step

MOST_REMARKS = 3
"""Most remarks below a table that are printed without ``--details``."""
_WIDE = 10_000  # lines are wrapped in this package; rich must not wrap or cut them again


class _Console(Console):
    """A rich console that raises on a closed pipe, for app.py to handle; rich itself would exit with 1."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


@dataclass(frozen=True)
class Screen:
    """Printer of a command's output: lines, tables and remarks, or one JSON object."""

    out: Console
    err: Console
    as_json: bool = False
    quiet: bool = False
    details: bool = False
    width: int = 80

    def note(self, text: str) -> None:
        """Print a status line on stderr."""
        if not self.quiet:
            self.err.print(Text(clean(text)), soft_wrap=True)

    def line(self, text: str = "", style: str = "", *, whole: Iterable[str] = ()) -> None:
        """Print a line of the result on stdout, wrapped at words, but not within the texts ``whole``."""
        self._print(wrapped(clean(text), self.width, whole=map(clean, whole)), style)

    def table(
        self,
        headers: Sequence[str],
        rows: Iterable[Sequence[str]],
        *,
        left: Collection[str] = ("notes",),
        steps: Sequence[Step] = (),
        keys: Collection[str] = (),
    ) -> list[str]:
        """Print a table of the result on stdout, never wrapped.

        Where it is too wide it is made narrower; with ``--details`` it is split into several tables instead.

        Args:
            headers: title of each column.
            rows: texts, as they are shown.
            left: titles of columns that hold words; all others hold numbers and are right-aligned.
            steps: ways to make it narrower, in order.
            keys: titles of the columns that are repeated in each of several tables; by default the first.

        Returns:
            What is left out.
        """
        table = (list(headers), [[clean(cell) for cell in row] for row in rows])
        if self.details:
            self._print(in_parts(table, keys or headers[:1], left, self.width))
            return []
        shown, lost = narrowed(table, steps, self.width)
        if table_width(shown) > self.width:
            self._print(records(table, self.width))
            return []
        self._print(table_lines(shown, left))
        return lost

    def listing(self, headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Print a table of words; where it is too wide, a list of names with descriptions."""
        table = (list(headers), [[clean(cell) for cell in row] for row in rows])
        if table_width(table) <= self.width:
            self._print(table_lines(table, headers))
            return
        self.entries(
            [
                (row[0], "; ".join(_named(*pair) for pair in zip(headers[1:], row[1:], strict=True) if pair[1]))
                for row in rows
            ]
        )

    def entries(self, items: Sequence[tuple[str, str]]) -> None:
        """Print names with descriptions."""
        self._print(entries([(clean(name), clean(text)) for name, text in items], self.width))

    def remarks(self, brief: Sequence[tuple[str, str]], full: Sequence[str], lost: Sequence[str] = ()) -> None:
        """Print remarks: the first three in brief and the names of the others; with ``--details`` all in full.

        Args:
            brief: names and lines, the gravest first.
            full: lines in full.
            lost: what the tables leave out.
        """
        for text in full if self.details else [line for _, line in brief[:MOST_REMARKS]]:
            first, *more = wrapped(clean(f"! {text}"), self.width, indent=2)
            self.out.print(Text.assemble((first[:1], "bold yellow"), self._plain(first[1:])), soft_wrap=True)
            self._print(more)
        if self.details:
            return
        others = [name for name, _ in brief[MOST_REMARKS:]]
        parts = [
            f"and {len(others)} more ({', '.join(filter(None, dict.fromkeys(others)))})".replace(" ()", "")
        ] * bool(others)
        parts += [f"left out {', '.join(dict.fromkeys(lost))}"] * bool(lost)
        if parts:
            self.line("; ".join(parts) + ": --details")

    def next(self, command: str) -> None:
        """Print the command to run next, on lines of its own, so that it can be copied."""
        self.line("next:")
        self._print(command_lines(clean(command), self.width))

    def _print(self, lines: Iterable[str], style: str = "") -> None:
        for line in lines:
            self.out.print(Text(self._plain(line), style=style), soft_wrap=True)

    def _plain(self, text: str) -> str:
        return text.translate(ASCII) if self.out.options.ascii_only else text

    def command(self, line: str) -> None:
        """Print a workflow command for the log of a CI system, such as a GitHub annotation; escaped already."""
        print(line, file=(self.err if self.as_json else self.out).file)

    def object(self, value: Mapping[str, Any]) -> None:
        """Print the result as one JSON object on stdout; ValueError for NaN and infinity."""
        self.out.file.write(json.dumps(value, allow_nan=False, default=str) + "\n")


def _named(head: str, cell: str) -> str:
    return f"{head} {cell}" if cell.isdigit() else cell


def open_screen(*, as_json: bool = False, quiet: bool = False, details: bool = False) -> Screen:
    """Open the screen of this process: with colours only on a terminal without NO_COLOR.

    It is as wide as the terminal or COLUMNS, else 80 columns.
    """
    color: Literal["auto"] | None = None if os.environ.get("NO_COLOR") else "auto"
    out = _Console(markup=False, highlight=False, emoji=False, color_system=color, width=_WIDE)
    err = _Console(markup=False, highlight=False, emoji=False, color_system=color, stderr=True)
    width = max(shutil.get_terminal_size().columns, NARROWEST)
    return Screen(out, err, as_json, quiet, details, width)
