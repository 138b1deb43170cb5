"""What there is to say about a warning code, and what the codes of a run and of a row of it are judged by."""

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
    """What is known of a run as a whole."""

    rounds: Sequence[Round]
    baseline: str | None  # key of the r = 0 cell; None where it was not measured
    on_gpu: bool = False
    between: bool = False  # each session was a fresh process, and processes are the unit of analysis
    cells: Collection[str] = ()  # keys
    answers: Answers | None = None  # None without images
    testbeds: Sequence[Mapping[str, Any]] = ()  # of the sessions that measured something

    @cached_property
    def trend(self) -> float:
        """How much faster or slower r = 0 became, a fraction; 0 where that is not sure."""
        return 0.0 if self.baseline is None else abs(drift(self.rounds, self.baseline))


@dataclass(frozen=True)
class RowEvidence:
    """What is known of a row."""

    cell: Cell
    resolved: Resolved
    rounds: Sequence[Round]  # of the run
    key: str  # of the cell
    beside: Collection[str] = ()  # other variants that its numbers are made of
    against: str = ""  # the variant that it is compared with within each round
    max_mhz: int | None = None  # the GPU's highest clock; None where it is not known
    status: Status = "ok"
    stored: Status = "ok"  # the same as far as the store has it, which knows of no numbers
    interrupted: bool = False  # its timing was cut short
    output_excess: float = 0.0  # how far timed logits, or those of r = 0, are off, over what rounding explains
    answers: Answers | None = None  # of the run; None without images

    @cached_property
    def own(self) -> list[Burst]:
        """The bursts of it that count."""
        return counted_bursts(self.rounds, self.key)

    @cached_property
    def compared(self) -> list[list[Burst]]:
        """Those, and the ones of each variant beside it: a ratio is as doubtful as either of its halves."""
        return [counted_bursts(self.rounds, name) for name in {self.key, *self.beside}]


@dataclass(frozen=True)
class Code:
    """What a status or warning code is called, what it means and when it holds; a status is derived elsewhere."""

    note: str  # in the notes of a table
    mark: str  # there, where the table has to be narrow
    brief: str  # what it means or what to do, in a line of a screen of 80 columns
    text: str  # both, in full
    grave: bool  # numbers of such rows are not to be quoted
    invalid: bool  # their speed is not to be used at all
    of_row: Callable[[RowEvidence], bool] | None
    of_run: Callable[[RunEvidence], bool] | None
    place: int  # in the column warnings, the smallest first; what holds for the run comes last
