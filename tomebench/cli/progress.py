"""Progress of a sweep on stderr: bars with the time left on a terminal, else a plain line now and then."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from tomebench.cli.console import Screen
from tomebench.report.escape import clean
from tomebench.words import counted

if TYPE_CHECKING:
    from tomebench.sweeps.events import Event, Finished, Phase, Progress

_LINE_SECONDS = 10.0
_T = TypeVar("_T")


def follow(events: Iterable[Event], screen: Screen) -> Finished:
    """Show the progress of a sweep by its events, until it ends.

    Returns:
        Its last event.
    """
    finished = _shown(events, screen)
    if finished is None:
        raise RuntimeError("the sweep ended without a result")
    return finished


def result_of(run: Generator[Event, None, _T], screen: Screen) -> _T:
    """Show the progress of what is no sweep by its events, until it ends.

    Returns:
        What it returns.
    """
    found: list[_T] = []

    def events() -> Iterator[Event]:
        found.append((yield from run))

    _shown(events(), screen)
    return found[0]


def _shown(events: Iterable[Event], screen: Screen) -> Finished | None:
    """Show events until they end; returns the last one of a sweep."""
    from tomebench.sweeps.events import Finished, Note, Phase, Planned, Progress

    drawing = _drawing(screen)
    finished: Finished | None = None
    with drawing.live():
        for event in events:
            match event:
                case Planned():
                    screen.note(_planned(event))
                case Note():
                    screen.note(event.text)
                case Phase():
                    drawing.phase(event)
                case Progress():
                    drawing.progress(event)
                case Finished():
                    finished = event
    return finished


def _planned(event: Any) -> str:
    resumed = [
        counted(count, what)
        for count, what in ((event.resumed_rounds, "timed round"), (event.resumed_chunks, "evaluated batch"))
        if count
    ]
    return f"{event.model}: {counted(event.cells, 'cell')}" + (
        f", going on after {' and '.join(resumed)}" if resumed else ""
    )


class _Drawing(Protocol):
    """Interface of what shows a phase and its progress."""

    def live(self) -> AbstractContextManager[object]: ...
    def phase(self, event: Phase) -> None: ...
    def progress(self, event: Progress) -> None: ...


def _drawing(screen: Screen) -> _Drawing:
    if screen.quiet:
        return _Nothing()
    if screen.err.is_terminal and not screen.err.is_dumb_terminal:
        return _Live(screen.err)
    return Lines(screen.note)


class _Nothing:
    def live(self) -> AbstractContextManager[object]:
        return nullcontext()

    def phase(self, event: Phase) -> None:
        pass

    def progress(self, event: Progress) -> None:
        pass


class _Live:
    """A progress bar for the current phase, on a terminal."""

    def __init__(self, console: Console) -> None:
        self._bars = Bars(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[count]}", markup=False),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[detail]}", markup=False),
            console=console,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._task: TaskID | None = None

    def live(self) -> AbstractContextManager[object]:
        return self._bars

    def phase(self, event: Phase) -> None:
        if self._task is not None:
            self._bars.remove_task(self._task)
        self._task = self._bars.add_task(event.name, total=event.total, count="", detail="")

    def progress(self, event: Progress) -> None:
        if self._task is not None:
            self._bars.update(
                self._task, completed=event.done, total=event.total, count=_count(event), detail=clean(event.detail)
            )


@dataclass
class Lines:
    """A plain line when a phase begins and then every ten seconds, for logs."""

    say: Callable[[str], None]
    now: Callable[[], float] = time.monotonic
    _said: float = field(default=0.0, init=False)
    _start: tuple[float, float] | None = field(default=None, init=False)  # when, done

    def live(self) -> AbstractContextManager[object]:
        """A null context: lines need no redrawing."""
        return nullcontext()

    def phase(self, event: Phase) -> None:
        """Print the name of a phase that begins."""
        self._said, self._start = self.now(), None
        if event.name != "load":  # errors in the input are mostly found while loading, and should stand alone
            self.say(f"{event.name} ...")

    def progress(self, event: Progress) -> None:
        """Print the progress of the phase, at most every ten seconds."""
        now = self.now()
        if self._start is None:
            self._start = (now, event.done)
        if now - self._said < _LINE_SECONDS:
            return
        self._said = now
        parts = [_count(event), self._time_left(event, now), event.detail]
        self.say(f"{event.phase}: {', '.join(part for part in parts if part)}")

    def _time_left(self, event: Progress, now: float) -> str:
        began, before = self._start or (now, event.done)
        if event.total is None or event.done <= before:
            return ""
        left = (now - began) * max(event.total - event.done, 0) / (event.done - before)
        return f"about {left:.0f} s left" if left < 120 else f"about {left / 60:.0f} min left"


def _count(event: Progress) -> str:
    total = "" if event.total is None else f" of {event.total:g}"
    last = event.done if event.total is None else event.total
    return f"{event.done:g}{total} {event.unit.removesuffix('s') if last == 1 else event.unit}"
