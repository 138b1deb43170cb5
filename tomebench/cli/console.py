"""The screen: results to stdout, laid out for its width; what is going on to stderr.

Everything that is data (paths, names, numbers) is printed literally: no markup, and control characters made visible.
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
"""Lines of what to know."""
_WIDE = 10_000  # lines are laid out here; rich would cut what it finds too long


class _Console(Console):
    """A console that leaves a closed pipe to the command boundary; rich's own way out would be exit 1, a bug."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


@dataclass(frozen=True)
class Screen:
    """Where a command prints."""

    out: Console
    err: Console
    as_json: bool = False
    quiet: bool = False
    details: bool = False
    width: int = 80

    def note(self, text: str) -> None:
        """A line about what is going on, on stderr."""
        if not self.quiet:
            self.err.print(Text(clean(text)), soft_wrap=True)

    def line(self, text: str = "", style: str = "", *, whole: Iterable[str] = ()) -> None:
        """A line of the result, on stdout: wrapped at words, but not within what stands in ``whole``."""
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
        """A table of the result, on stdout, never wrapped.

        Where it is too wide it is made narrower; with ``--details`` it becomes several tables instead.

        Args:
            headers: one for each column.
            rows: cells, as they are shown.
            left: heads of columns that hold words; all others hold numbers and are set to the right.
            steps: what makes it narrower, in their order.
            keys: heads of the columns that stand in front of each of several tables; by default the first.

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
        """A table of words; where it is too wide, a list of names with what there is to say about each."""
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
        """Names with what there is to say about each."""
        self._print(entries([(clean(name), clean(text)) for name, text in items], self.width))

    def remarks(self, brief: Sequence[tuple[str, str]], full: Sequence[str], lost: Sequence[str] = ()) -> None:
        """What to know: the first three in brief and what the others are called; with ``--details`` all in full.

        Args:
            brief: names and lines, the gravest first.
            full: lines.
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
        """A command to go on with, on a line of its own, where it can be copied."""
        self.line("next:")
        self._print(command_lines(clean(command), self.width))

    def _print(self, lines: Iterable[str], style: str = "") -> None:
        for line in lines:
            self.out.print(Text(self._plain(line), style=style), soft_wrap=True)

    def _plain(self, text: str) -> str:
        return text.translate(ASCII) if self.out.options.ascii_only else text

    def command(self, line: str) -> None:
        """A command to whatever reads the log, such as a GitHub annotation; its text is escaped already."""
        print(line, file=(self.err if self.as_json else self.out).file)

    def object(self, value: Mapping[str, Any]) -> None:
        """The result as one JSON object on stdout; NaN and infinity are refused."""
        self.out.file.write(json.dumps(value, allow_nan=False, default=str) + "\n")


def _named(head: str, cell: str) -> str:
    return f"{head} {cell}" if cell.isdigit() else cell


def open_screen(*, as_json: bool = False, quiet: bool = False, details: bool = False) -> Screen:
    """The screen of this process: plain unless it is a terminal and NO_COLOR is unset.

    It is as wide as the terminal, or as COLUMNS says, and 80 columns where nobody says.
    """
    color: Literal["auto"] | None = None if os.environ.get("NO_COLOR") else "auto"
    out = _Console(markup=False, highlight=False, emoji=False, color_system=color, width=_WIDE)
    err = _Console(markup=False, highlight=False, emoji=False, color_system=color, stderr=True)
    width = max(shutil.get_terminal_size().columns, NARROWEST)
    return Screen(out, err, as_json, quiet, details, width)
