"""Measure the speed of a sweep in several fresh processes, one after another (``--processes``).

Memory layout, page placement and the choice of kernels are fixed once per process, so no interval over the rounds of
one process covers them. So every process loads the model anew and times every cell; the last one also does what is
needed once, such as counting top-1. The parent process holds no model and no GPU: it starts the others, passes their
events on, and builds the table.
"""

from __future__ import annotations

import dataclasses
import json
import os
import queue
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, get_args

from tomebench import errors
from tomebench.errors import ConfigError, RankError, TomebenchError
from tomebench.ranks.place import Place
from tomebench.runs.database import FILE
from tomebench.runs.lock import held
from tomebench.runs.rows import build_rows, limit_of
from tomebench.runs.store import Store
from tomebench.runs.targets import timed_rounds
from tomebench.sweeps.config import SweepConfig
from tomebench.sweeps.events import Event, Facts, Finished, Note, Phase, Planned, Progress
from tomebench.sweeps.interpreter import environment, interpreter
from tomebench.sweeps.job import stops
from tomebench.words import counted

MODULE = "tomebench.sweeps.fresh"
"""Module of a fresh process: run folder, place, parent's id as arguments; settings on stdin, events on stdout."""
_KINDS = {kind.__name__: kind for kind in (*get_args(Event), *Note.__subclasses__()) if kind is not Finished}
FINISHED = "finished"
"""Kind of the last message of a fresh process."""
APART = (
    "speed is measured in one process after another, which several that share a sweep cannot do; measure it without "
    "them, then count top-1 in the same folder with --budget none"
)
"""Error text: a sweep in fresh processes cannot be shared by ranks."""
_POLL = 0.5


def in_fresh_processes(
    config: SweepConfig,
    directory: Path,
    should_stop: Callable[[], bool],
    *,
    given: bool = False,
    facts: Facts = (),
) -> Iterator[Event]:
    """Run a sweep in as many fresh processes as its configuration asks for.

    Args:
        config: what to measure.
        directory: run folder.
        should_stop: asked twice a second.
        given: the model was handed over in Python, so other processes cannot build it.
        facts: to be stored with the run.

    Yields:
        The events of all processes, equal notes once; the last is ``Finished``.

    Raises:
        ConfigError: the model cannot be built in another process, or other processes share this sweep.
        TomebenchError: a process raised it.
        RankError: a process was killed from outside.
        Interrupted: ``should_stop()`` became true; no process is running any more.
        RuntimeError: a process failed for a reason that is a bug.
    """
    count = config.process_count
    publish = config.budget == "publish"
    asks = f"budget publish asks for {counted(count, 'process')}" if publish else "processes"
    if given:
        raise ConfigError(
            f"{asks}: a module that is handed over lives in this one and cannot be measured in others; "
            f"{'take another budget' if publish else 'leave processes out'}, or save its weights and give its timm "
            "name with checkpoint="
        )
    if Place.here().size > 1:
        raise ConfigError(f"{asks}: {APART}")
    with _folder(directory):
        yield from _all(config, directory, should_stop, count, facts)
    with Store.read(directory) as store:
        yield Finished(tuple(build_rows(store)), directory, store.config, max_drop=limit_of(store))


@contextmanager
def _folder(directory: Path) -> Iterator[None]:
    """Lock the folder of a sweep; create it where it is missing, and remove it if it stays empty."""
    try:
        missing = not directory.exists()
        directory.mkdir(parents=True, exist_ok=True)
    except OSError:
        yield  # the first process reports what is wrong with the folder
        return
    try:
        with held(directory):
            yield
    finally:
        if missing:
            with suppress(OSError):
                directory.rmdir()


def _all(
    config: SweepConfig, directory: Path, should_stop: Callable[[], bool], count: int, facts: Facts
) -> Iterator[Event]:
    """The events of one process after another, until none is left."""
    said: set[Event] = set()
    begun = _begun(directory)
    left, done = count - min(begun, count - 1), 0
    name = "a further process" if begun else f"process 1 of {count}"
    while not done or left:
        stops(should_stop)()
        one = _one(config, directory, should_stop, facts, first=not done)
        before, left = left, (yield from _marked(one, name, said))
        if done and left >= before:
            raise RuntimeError(f"{name} of {directory} has stored none of what it timed")
        done += 1
        name = f"process {done + 1} of {done + left}"


def _marked(events: Generator[Event, None, int], name: str, said: set[Event]) -> Generator[Event, None, int]:
    """Events of one process, with its name in their progress and without notes that an earlier process gave."""
    while True:
        try:
            event = next(events)
        except StopIteration as end:
            left: int = end.value
            return left
        if isinstance(event, Progress):
            yield dataclasses.replace(event, detail=", ".join(filter(None, [name, event.detail])))
        elif isinstance(event, Phase):
            yield event
        elif (key := Planned(0, "", 0, 0) if isinstance(event, Planned) else event) not in said:
            said.add(key)
            yield event


def _begun(directory: Path) -> int:
    """Number of processes that have timed rounds in a folder."""
    if not (directory / FILE).is_file():
        return 0
    with Store.read(directory) as store:
        return len({round_.session for round_ in timed_rounds(store)})


def _one(
    config: SweepConfig, directory: Path, should_stop: Callable[[], bool], facts: Facts, *, first: bool
) -> Generator[Event, None, int]:
    """Events of one fresh process; returns how many more processes are needed."""
    command = [*interpreter(), MODULE, str(directory), "first" if first else "next", str(os.getpid())]
    with tempfile.TemporaryFile() as log:
        with subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env=environment(),
            text=True,
            encoding="utf-8",
        ) as process:
            try:
                left = yield from _followed(process, config, should_stop, facts)
            except BaseException:
                process.terminate()
                process.wait()  # the folder stays locked until the process is gone
                raise
        if left is None:
            stops(should_stop)()  # it was stopped before it could report so
            log.seek(0)
            raise _unsaid(process.returncode, log.read().decode(errors="replace"))
    return left


def _followed(
    process: subprocess.Popen[str], config: SweepConfig, should_stop: Callable[[], bool], facts: Facts
) -> Generator[Event, None, int | None]:
    """Events of a running process until it ends; returns how many more it reports as needed, None without a report."""
    assert process.stdin is not None
    assert process.stdout is not None
    with suppress(BrokenPipeError), process.stdin as stdin:
        asked = config.model_dump(mode="json", exclude_unset=True)  # only what was asked for
        stdin.write(json.dumps([asked, [*facts]], allow_nan=False))
    lines: queue.Queue[str | None] = queue.Queue()
    threading.Thread(target=_read, args=(process.stdout, lines), daemon=True).start()
    left, stopping = None, False
    while True:
        if should_stop() and not stopping:
            stopping = True
            process.terminate()  # the first signal: it finishes the step in progress, then reports
        try:
            line = lines.get(timeout=_POLL)
        except queue.Empty:
            continue
        if line is None:
            return left
        kind, fields = json.loads(line)
        if kind in _KINDS:
            yield _KINDS[kind](**fields)
        elif kind == FINISHED:
            left = int(fields["left"])
        elif kind == "OSError":
            raise OSError(*fields["args"])
        else:
            raise _raised(kind, fields["text"])


def _read(stream: IO[str], lines: queue.Queue[str | None]) -> None:
    with suppress(ValueError):  # the stream is closed when the sweep is given up
        for line in stream:
            lines.put(line)
    lines.put(None)


def _raised(kind: str, text: str) -> Exception:
    """Rebuild the exception of a fresh process from the name of its class."""
    found = getattr(errors, kind, None)
    if isinstance(found, type) and issubclass(found, TomebenchError):
        return found(text)
    return RuntimeError(text)


def _unsaid(code: int, log: str) -> Exception:
    """The error for a process that ended without a report."""
    if code < 0:
        return RankError(
            f"a process that measures was ended by {signal.Signals(-code).name}; what was measured is kept, run the "
            "same command again (if memory ran out: with a smaller --batch-size)"
        )
    last = (log.strip().splitlines() or [""])[-1]
    error = RuntimeError(f"a process that measures ended with {code}: {last[:300]}")
    error.add_note(log)  # for --traceback
    return error
