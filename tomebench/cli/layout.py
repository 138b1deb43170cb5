"""Layout of text for the width of a screen: lines wrapped at words, tables, lists, commands that can be copied."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Iterable, Sequence

from rich.cells import cell_len

from tomebench.report.narrow import Step, Table

NARROWEST = 40
"""Narrowest layout, in columns; a narrower terminal breaks longer lines itself."""
_GAP = 2
_GLUE = "\0"  # a space at which no line ends; clean text has no such character
_TOGETHER = re.compile(r"\[[^\[\]]{1,24}\]|\S+ = \S+|\S+ %")
ASCII = str.maketrans({"─": "-", "±": "+-", "Δ": "d", "…": "...", "×": "x", "→": "->", "√": "sqrt "})
"""Replacements for terminals without Unicode; escapes would be too wide for tables."""


def wrapped(text: str, width: int, *, indent: int = 0, whole: Iterable[str] = ()) -> list[str]:
    """Wrap a text at spaces into lines.

    Words longer than the screen stay whole, and so do the texts ``whole``, such as paths.

    Args:
        text: one line.
        width: of the screen.
        indent: of the lines after the first.
        whole: parts of the text at whose spaces no line may end.
    """
    if _room(text) <= width:
        return [text.replace(_GLUE, " ")]
    for part in whole:
        text = text.replace(part, part.replace(" ", _GLUE))
    text = _TOGETHER.sub(lambda found: found[0].replace(" ", _GLUE), text)
    lines = [""]
    for number, word in enumerate(text.split(" ")):
        longer = f"{lines[-1]} {word}" if number and lines[-1].strip() else lines[-1] + word
        if _room(longer) <= width or not lines[-1].strip():
            lines[-1] = longer
        else:
            lines.append(" " * indent + word)
    return [line.replace(_GLUE, " ") for line in lines]


def command_lines(command: str, width: int) -> list[str]:
    """Wrap a shell command into lines that end with a backslash; a flag and its value stay on one line."""
    if cell_len(command) <= width:
        return [command]
    pieces: list[str] = []
    for word in map(shlex.quote, shlex.split(command)):
        if pieces and not word.startswith("-") and pieces[-1].startswith("-") and " " not in pieces[-1]:
            pieces[-1] += f" {word}"
        else:
            pieces.append(word)
    lines = [pieces[0]]
    for piece in pieces[1:]:
        if cell_len(f"{lines[-1]} {piece} \\") <= width:
            lines[-1] += f" {piece}"
        else:
            lines.append(f"    {piece}")
    return [*(f"{line} \\" for line in lines[:-1]), lines[-1]]


def entries(items: Sequence[tuple[str, str]], width: int) -> list[str]:
    """Lay out names with descriptions, beside them or, where that is too narrow, below them."""
    longest = max((cell_len(name) for name, _ in items), default=0)
    lines: list[str] = []
    for name, text in items:
        beside = _entry(name, text, longest + _GAP, width)
        below = [name, *(_entry("", text, 4, width) if text else ())]
        fits = longest <= width // 2 and all(cell_len(line) <= width for line in beside)
        lines += beside if fits else below
    return lines


def _room(text: str) -> int:
    return cell_len(text.replace(_GLUE, " "))


def _entry(name: str, text: str, beside: int, width: int) -> list[str]:
    lines = wrapped(_GLUE * beside + text, width, indent=beside)
    return [(_padded(name, beside) + lines[0].lstrip()).rstrip(), *lines[1:]]


def table_width(table: Table) -> int:
    """Width of a table, in columns of the screen."""
    return sum(_widths(table)) + _GAP * (len(table[0]) - 1)


def table_lines(table: Table, left: Collection[str]) -> list[str]:
    """Lay out a table as lines: titles, a rule, rows.

    Args:
        table: column titles and rows.
        left: titles of the columns that hold words; all others hold numbers and are right-aligned.
    """
    heads, rows = table
    widths = _widths(table)

    def line(cells: Sequence[str]) -> str:
        padded = (_padded(c, w, left=h in left) for c, w, h in zip(cells, widths, heads, strict=True))
        return (" " * _GAP).join(padded).rstrip()

    return [line(heads), "─" * table_width(table), *map(line, rows)]


def narrowed(table: Table, steps: Sequence[Step], width: int) -> tuple[Table, list[str]]:
    """Apply steps to a table until it fits; second, what is no longer shown."""
    lost = []
    for step in steps:
        if table_width(table) <= width:
            break
        if step.head in table[0] and step.lost:
            lost.append(step.lost)
        table = step(table)
    return table, lost


def in_parts(table: Table, keys: Collection[str], left: Collection[str], width: int) -> list[str]:
    """Split a table by columns into tables that fit, each with the columns ``keys`` in front.

    A column that is too wide even so becomes a list below them.
    """
    heads, rows = table
    if table_width(table) <= width:
        return table_lines(table, left)
    front = [place for place, head in enumerate(heads) if head in keys]
    parts: list[list[int]] = []
    lists = []
    for place in range(len(heads)):
        if place in front:
            continue
        if table_width(_columns(table, [*front, place])) > width:
            lists.append(place)
        elif parts and table_width(_columns(table, [*front, *parts[-1], place])) <= width:
            parts[-1].append(place)
        else:
            parts.append([place])
    if not parts:
        return records(table, width)
    lines: list[str] = []
    for part in parts:
        lines += [*[""] * bool(lines), *table_lines(_columns(table, [*front, *part]), left)]
    for place in lists:
        names = [" ".join(f"{heads[key]}={row[key]}" for key in front) for row in rows]
        items = [(name, row[place]) for name, row in zip(names, rows, strict=True) if row[place]]
        lines += [*[""] * bool(lines), f"{heads[place]}:", *entries(items, width)]
    return lines


def records(table: Table, width: int) -> list[str]:
    """Lay out a table as one paragraph per row, for screens on which not even its narrowest form fits."""
    heads, rows = table
    return [
        line
        for row in rows
        for line in wrapped(
            ", ".join(f"{head} {cell}".strip() for head, cell in zip(heads, row, strict=True) if cell), width, indent=4
        )
    ]


def _columns(table: Table, places: Sequence[int]) -> Table:
    heads, rows = table
    return [heads[place] for place in places], [[row[place] for place in places] for row in rows]


def _widths(table: Table) -> list[int]:
    heads, rows = table
    return [max(map(cell_len, column)) for column in zip(heads, *rows, strict=True)]


def _padded(text: str, width: int, *, left: bool = True) -> str:
    space = " " * max(0, width - cell_len(text))
    return text + space if left else space + text
