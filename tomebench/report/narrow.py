"""Steps that make a table of text narrower: in a stated order, columns get shorter or are left out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

Table = tuple[list[str], list[list[str]]]
"""Headers and cells."""
Cells = Callable[[list[str]], list[str]]


@dataclass(frozen=True)
class Step:
    """One way to make a table narrower: a column with a shorter head or shorter cells, or none."""

    head: str  # of the column; a table without it stays as it is
    to: str = ""  # its shorter head; without one the column is left out
    cells: Cells = list  # its shorter cells; where none has anything in it, the column is left out
    lost: str = ""  # what the reader misses, if anything

    def __call__(self, table: Table) -> Table:
        """The narrower table."""
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
    """A column less."""
    return Step(head, lost=head)


def before(mark: str) -> Cells:
    """Cells up to a mark."""
    return lambda cells: [cell.partition(mark)[0] for cell in cells]


def last(length: int) -> Cells:
    """The last characters of every cell, where those still tell them apart: of names that begin alike."""

    def shortened(cells: list[str]) -> list[str]:
        short = [cell if len(cell) <= length else f"…{cell[1 - length :]}" for cell in cells]
        return short if len({*short}) == len({*cells}) else cells

    return shortened


def first(length: int) -> Cells:
    """The first characters of every cell, for digests."""
    return lambda cells: [cell[:length] for cell in cells]
