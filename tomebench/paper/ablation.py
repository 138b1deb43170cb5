"""Sub-tables of the paper's ablation, from a run that changes one option at a time: top-1 and speed of each value.

Source: Bolya et al., arXiv 2210.09461, Table 1 and the table of matching algorithms.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tomebench import stats
from tomebench.reduction.methods.flags import PAPER
from tomebench.runs.row import Row
from tomebench.runs.rows import build_rows
from tomebench.runs.store import Store
from tomebench.runs.top1 import discordant
from tomebench.schema import Cell
from tomebench.stats import PairedDelta

PROP_ATTN = "prop_attn"
SUB_TABLES = (
    ("feature", "metric", ("x_pre", "x", "k", "q", "v")),
    ("distance", "distance", ("euclidean", "cosine", "dot", "softmax")),
    ("heads", "heads", ("mean", "concat")),
    ("combining", "combine", ("keep", "max", "mean", "weighted")),
    ("partition", "partition", ("sequential", "alternating", "random")),
    ("proportional attention", PROP_ATTN, ("off", "on")),
    (
        "matching",
        "matching",
        ("random-prune", "attention-prune", "kmeans-2", "kmeans-5", "greedy", "bipartite"),
    ),
)
"""Title, option and values of each sub-table, in the paper's order."""


@dataclass(frozen=True)
class Entry:
    """One value of an option in a sub-table."""

    value: str
    default: bool  # whether this is the value that others are compared with
    row: Row
    delta: PairedDelta | None  # top-1 minus the default's on the same images, as a fraction; None: not measured


@dataclass(frozen=True)
class SubTable:
    """Sub-table of one option."""

    title: str
    option: str
    r: int
    entries: tuple[Entry, ...]


def sub_tables(store: Store) -> list[SubTable]:
    """The sub-tables of a run of ``--ablate``, for each r in turn.

    Raises:
        StorageError: the store is damaged.
    """
    cells = sorted((cell for cell, _ in store.cells()), key=lambda cell: cell.r)
    rows = dict(zip((cell.key for cell in cells), build_rows(store), strict=True))
    return [
        table
        for r in dict.fromkeys(cell.r for cell in cells if not cell.is_baseline)
        for table in _tables(store, r, [cell for cell in cells if cell.r == r], rows)
    ]


def _tables(store: Store, r: int, cells: Sequence[Cell], rows: dict[str, Row]) -> Iterator[SubTable]:
    by_choice = {_choice(cell): cell for cell in cells}
    default = cells[0]  # the cell with no option changed
    images, predictions = store.images(), store.predictions()

    def entry(option: str, value: str) -> Iterator[Entry]:
        same = value == _value(default, option)
        cell = default if same else by_choice.get((option, value))
        if cell is None:
            return
        delta = None
        if images is not None and not same and cell.key in predictions and default.key in predictions:
            labels = images.labels[store.seen()]
            both = predictions[default.key], predictions[cell.key]
            if not any(each.nonfinite for each in both):
                delta = stats.paired_delta(*discordant(*both, labels), len(labels))
        yield Entry(value, same, rows[cell.key], delta)

    for title, option, values in SUB_TABLES:
        yield SubTable(title, option, r, tuple(found for value in values for found in entry(option, value)))


def _choice(cell: Cell) -> tuple[str, str]:
    """Option that a cell changes, and its value; of the default cell, that of proportional attention."""
    changed = [(name, str(value)) for name, value in cell.options]
    return changed[0] if changed else (PROP_ATTN, _value(cell, PROP_ATTN))


def _value(cell: Cell, option: str) -> str:
    if option == PROP_ATTN:
        return "on" if cell.prop_attn else "off"
    return str(dict(cell.options).get(option) or getattr(PAPER, option))
