"""Steps that make a text table fit a narrow screen: columns are shortened or left out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

Table = tuple[list[str], list[list[str]]]
"""Column titles, and rows of text."""
Cells = Callable[[list[str]], list[str]]


@dataclass(frozen=True)
class Step:
    """One step that makes a table narrower: shorten the title or the texts of a column, or leave it out."""

    head: str  # title of the column; a table without it stays as it is
    to: str = ""  # shorter title; empty: the column is left out
    cells: Cells = list  # function that shortens the texts; if all become empty, the column is left out
    lost: str = ""  # what is no longer shown, for the line below the table

    def __call__(self, table: Table) -> Table:
        """Apply the step to a table."""
        heads, rows = table
        if self.head not in heads:
            return table
        place = heads.index(self.head)
        column = self.cells([row[place] for row in rows]) if self.to else []
        new = [self.to] if any(column) else []
        return (
            [*heads[:place], *new, *heads[place + 1 :]],
            [[*row[:place], *([column[number]] if new else []), *row[place + 1 :]] for number, row in enumerate(rows)],
        )


def without(head: str) -> Step:
    """Step that leaves a column out."""
    return Step(head, lost=head)


def before(mark: str) -> Cells:
    """Shorten texts to what stands before a mark."""
    return lambda cells: [cell.partition(mark)[0] for cell in cells]


def last(length: int) -> Cells:
    """Shorten texts to their last characters, if they stay different: for names that begin alike."""

    def shortened(cells: list[str]) -> list[str]:
        short = [cell if len(cell) <= length else f"…{cell[1 - length :]}" for cell in cells]
        return short if len({*short}) == len({*cells}) else cells

    return shortened


def first(length: int) -> Cells:
    """Shorten texts to their first characters, for digests."""
    return lambda cells: [cell[:length] for cell in cells]
