"""Timing: seconds of a burst of passes between two synchronisations; the only module that reads a clock."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import pairwise
from typing import Protocol

import torch

from tomebench.errors import DeviceError
from tomebench.words import counted

MIN_BURST: Mapping[str, float] = {"cuda": 0.25, "cpu": 0.1}
"""Least seconds of a burst by type of device, long enough that the synchronisations at its ends do not matter."""

_IDLE_AT_ONCE, _IDLE_SHARE = 1e-3, 0.01
"""Longest time, in seconds and as a share of the burst, in which a synchronisation of an idle device returns."""


class Clock(Protocol):
    """A clock for bursts, as timing needs it. Tests bring their own."""

    @property
    def min_burst(self) -> float:
        """Least seconds of a burst."""
        ...

    @property
    def backlog(self) -> float | None:
        """Seconds that the device still ran after the host had issued the last burst; None where the host computes."""
        ...

    def burst(self, step: Callable[[], object], steps: int) -> float:
        """Call ``step`` ``steps`` times; returns the seconds from an idle device to an idle device."""
        ...

    def now(self) -> float:
        """Seconds since a fixed moment, never decreasing; for time limits, not for results."""
        ...


class CpuClock:
    """Wall time, for steps whose work is done when the call returns."""

    min_burst = MIN_BURST["cpu"]
    backlog: float | None = None

    def burst(self, step: Callable[[], object], steps: int) -> float:
        """See :class:`Clock`."""
        with _no_collection():
            start = time.perf_counter()
            for _ in range(steps):
                step()
            return time.perf_counter() - start

    def now(self) -> float:
        """See :class:`Clock`."""
        return time.perf_counter()


class CudaClock:
    """CUDA events around a burst on the current stream, checked against work on other streams.

    Args:
        device: the CUDA device that the steps run on.

    Raises:
        DeviceError: there is no such device.
    """

    min_burst = MIN_BURST["cuda"]

    def __init__(self, device: torch.device) -> None:
        count = torch.cuda.device_count()
        if device.type != "cuda" or (device.index or 0) >= count:
            raise DeviceError(
                f"device {device}: this machine has {counted(count, 'CUDA device')}; pass --device cpu or cuda:N"
            )
        self.device = device
        self.backlog: float | None = None

    def burst(self, step: Callable[[], object], steps: int) -> float:
        """See :class:`Clock`."""
        with torch.cuda.device(self.device), _no_collection():
            start = torch.cuda.Event(enable_timing=True)
            end = torch.cuda.Event(enable_timing=True)
            torch.cuda.synchronize()
            began = time.perf_counter()
            start.record()
            for _ in range(steps):
                step()
            end.record()
            issued = time.perf_counter()
            end.synchronize()
            ended = time.perf_counter()
            torch.cuda.synchronize()
            idle = time.perf_counter()
            on_device = start.elapsed_time(end) / 1e3
        self.backlog = idle - issued
        # Events leave out the time in which the host wakes up, but cover the current stream only. If the device is not
        # idle when that stream is, some work ran on another stream and would not be counted.
        return idle - began if idle - ended > _IDLE_AT_ONCE + _IDLE_SHARE * on_device else on_device

    def now(self) -> float:
        """See :class:`Clock`."""
        return time.perf_counter()


@contextmanager
def _no_collection() -> Iterator[None]:
    """Context without garbage collection, whose moment depends on what ran before."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def clock_for(device: torch.device) -> Clock:
    """The clock for a device. Raises DeviceError for a device that is neither CPU nor an existing CUDA one."""
    if device.type == "cpu":
        return CpuClock()
    if device.type == "cuda":
        return CudaClock(device)
    raise DeviceError(f"device {device}: only cpu and cuda can be timed; pass --device cpu or cuda")


class Stopwatch(Protocol):
    """Divides a burst into laps, to time the stages of a pass. Tests bring their own."""

    def start(self) -> None:
        """Begin anew; the device must be idle."""
        ...

    def mark(self, label: str) -> None:
        """End a lap, which began at the previous mark or at the start."""
        ...

    def laps(self) -> list[tuple[str, float]]:
        """Label and seconds of every lap since the start; waits until the work is done."""
        ...


class CpuStopwatch:
    """Stopwatch on wall time."""

    def __init__(self) -> None:
        self._marks: list[tuple[str, float]] = []

    def start(self) -> None:
        """See :class:`Stopwatch`."""
        self._marks = [("", time.perf_counter())]

    def mark(self, label: str) -> None:
        """See :class:`Stopwatch`."""
        self._marks.append((label, time.perf_counter()))

    def laps(self) -> list[tuple[str, float]]:
        """See :class:`Stopwatch`."""
        return [(label, after - before) for (_, before), (label, after) in pairwise(self._marks)]


class CudaStopwatch:
    """Stopwatch of CUDA events on the current stream; the host does not wait until the laps are read.

    Args:
        device: the CUDA device that the work runs on.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        # Kept from the longest burst so far: creating an event costs more than recording it.
        self._events: list[torch.cuda.Event] = []
        self._labels: list[str] = []

    def start(self) -> None:
        """See :class:`Stopwatch`."""
        torch.cuda.synchronize(self.device)
        self._stream = torch.cuda.current_stream(self.device)
        self._labels = []
        self._record()

    def mark(self, label: str) -> None:
        """See :class:`Stopwatch`."""
        self._labels.append(label)
        self._record()

    def laps(self) -> list[tuple[str, float]]:
        """See :class:`Stopwatch`."""
        torch.cuda.synchronize(self.device)
        pairs = zip(self._labels, pairwise(self._events), strict=False)
        return [(label, before.elapsed_time(after) / 1e3) for label, (before, after) in pairs]

    def _record(self) -> None:
        if len(self._events) == len(self._labels):
            self._events.append(torch.cuda.Event(enable_timing=True))
        self._events[len(self._labels)].record(self._stream)


def stopwatch_for(device: torch.device) -> Stopwatch:
    """The stopwatch for a device, one that :func:`clock_for` accepts."""
    return CudaStopwatch(device) if device.type == "cuda" else CpuStopwatch()
