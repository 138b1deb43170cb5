"""Record types of the warning codes: the text of a code, and the evidence about a run or row that it is judged by."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from tomebench.runs.accuracy_columns import Answers
from tomebench.runs.rounds import counted_bursts
from tomebench.runs.validity import drift
from tomebench.schema import Burst, Cell, Resolved, Round, Status


@dataclass(frozen=True)
class RunEvidence:
    """Evidence about a run as a whole."""

    rounds: Sequence[Round]
    baseline: str | None  # key of the r = 0 cell; None where it was not measured
    on_gpu: bool = False
    between: bool = False  # each session was a fresh process, and processes are the unit of the intervals
    cells: Collection[str] = ()  # keys
    answers: Answers | None = None  # None without images
    testbeds: Sequence[Mapping[str, Any]] = ()  # of the sessions that measured something

    @cached_property
    def trend(self) -> float:
        """Absolute relative change of the step time of r = 0 over a session; 0 where it is not significant."""
        return 0.0 if self.baseline is None else abs(drift(self.rounds, self.baseline))


@dataclass(frozen=True)
class RowEvidence:
    """Evidence about one row."""

    cell: Cell
    resolved: Resolved
    rounds: Sequence[Round]  # of the run
    key: str  # of the cell
    beside: Collection[str] = ()  # other variants whose times are in its ratios
    against: str = ""  # the variant in the denominator of its ratios, within each round
    max_mhz: int | None = None  # the GPU's highest clock; None where it is not known
    status: Status = "ok"
    stored: Status = "ok"  # the status as the store has it, which does not know the derived numbers
    interrupted: bool = False  # its timing was cut short
    # Distance of timed logits, or those of r = 0, from the model's, over what rounding explains.
    output_excess: float = 0.0
    answers: Answers | None = None  # of the run; None without images

    @cached_property
    def own(self) -> list[Burst]:
        """Its bursts that count."""
        return counted_bursts(self.rounds, self.key)

    @cached_property
    def compared(self) -> list[list[Burst]]:
        """Its bursts and those of each variant beside it: a ratio is as doubtful as either of its halves."""
        return [counted_bursts(self.rounds, name) for name in {self.key, *self.beside}]


@dataclass(frozen=True)
class Code:
    """A status or warning code: its texts, how grave it is, and when a warning holds; a status is derived elsewhere."""

    note: str  # text in the notes of a table
    mark: str  # the same where the table has to be narrow
    brief: str  # meaning or advice, in one line of a screen of 80 columns
    text: str  # meaning and advice in full
    grave: bool  # numbers of such rows are not to be quoted
    invalid: bool  # their speed is not to be used at all
    of_row: Callable[[RowEvidence], bool] | None
    of_run: Callable[[RunEvidence], bool] | None
    place: int  # position in the column warnings, smallest first; codes of the run come last
