"""The real clocks: that they count steps and wait for the device, not how fast this machine is."""

from __future__ import annotations

import contextlib
import gc
import time
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from tomebench.errors import DeviceError
from tomebench.measure import clock as clock_module
from tomebench.measure.clock import MIN_BURST, CpuClock, CudaClock, clock_for


def test_cpu_clock_runs_every_step_and_its_time_passes() -> None:
    calls: list[int] = []
    clock = clock_for(torch.device("cpu"))
    assert isinstance(clock, CpuClock)
    assert clock.min_burst == MIN_BURST["cpu"] == 0.1
    before = clock.now()
    seconds = clock.burst(lambda: (calls.append(1), time.sleep(0.002)), 5)
    assert len(calls) == 5
    assert 0.01 <= seconds <= clock.now() - before


@pytest.mark.parametrize("name", ["meta", "mps"])
def test_other_devices_are_refused(name: str) -> None:
    with pytest.raises(DeviceError, match="only cpu and cuda can be timed"):
        clock_for(torch.device(name))


def test_a_missing_gpu_is_refused() -> None:
    with pytest.raises(DeviceError, match="device cuda:99: this machine has"):
        clock_for(torch.device("cuda:99"))


class _FakeCuda:
    """Stands in for torch.cuda and the wall clock, which move on as the work does; records what happens in which order.

    Args:
        issue: seconds in which a step is issued.
        stream: seconds that the current stream takes for a step.
        elsewhere: seconds that another stream goes on after the current one.
        late: seconds by which the host wakes up late when the current stream is done.
    """

    def __init__(self, issue: float, stream: float, elsewhere: float = 0.0, late: float = 0.0) -> None:
        self.log: list[str] = []
        self.issue, self.stream, self.elsewhere, self.late = issue, stream, elsewhere, late
        self.wall = self.done = 0.0  # now, and when the current stream will be

    def device_count(self) -> int:
        return 1

    def step(self) -> None:
        assert not gc.isenabled()
        self.log.append("step")
        self.wall += self.issue
        self.done = max(self.done, self.wall) + self.stream

    def synchronize(self) -> None:
        self.log.append("synchronize")
        if "step" in self.log:
            self.wall = max(self.wall, self.done + self.elsewhere)

    @contextlib.contextmanager
    def device(self, device: torch.device) -> Iterator[None]:
        self.log.append(f"enter {device}")
        yield
        self.log.append("leave")

    def Event(self, enable_timing: bool) -> Any:  # noqa: N802
        assert enable_timing
        fake = self

        class Event:
            def record(self) -> None:
                fake.log.append("record")
                self.at = max(fake.done, fake.wall)

            def synchronize(self) -> None:
                fake.log.append("wait")
                fake.wall = max(fake.wall, self.at) + fake.late

            def elapsed_time(self, end: Event) -> float:
                assert fake.log[-1] == "synchronize"  # unfinished events have no time
                return 1e3 * (end.at - self.at)

        return Event()

    def perf_counter(self) -> float:
        return self.wall


@pytest.mark.parametrize(
    ("times", "expected", "backlog"),
    [
        ({"issue": 0.001, "stream": 0.125}, 0.251, 0.249),  # the usual case: events
        ({"issue": 0.001, "stream": 0.125, "late": 0.15}, 0.251, 0.399),  # the host was late to wake up
        ({"issue": 0.001, "stream": 0.0005, "elsewhere": 0.25}, 0.2525, 0.2505),  # on another stream: wall time
        ({"issue": 0.001, "stream": 0.125, "elsewhere": 0.002}, 0.251, 0.251),  # nothing to speak of
        ({"issue": 0.125, "stream": 0.001}, 0.251, 0.001),  # the host sets the pace
    ],
)
def test_cuda_burst_lies_between_two_synchronisations(
    monkeypatch: pytest.MonkeyPatch, times: dict[str, float], expected: float, backlog: float
) -> None:
    fake = _FakeCuda(**times)
    for name in ("device_count", "synchronize", "device", "Event"):
        monkeypatch.setattr(torch.cuda, name, getattr(fake, name))
    monkeypatch.setattr(clock_module.time, "perf_counter", fake.perf_counter)
    clock = clock_for(torch.device("cuda:0"))
    assert clock.min_burst == 0.25
    assert clock.backlog is None
    assert clock.burst(fake.step, 2) == pytest.approx(expected)
    assert clock.backlog == pytest.approx(backlog)
    assert fake.log == [
        "enter cuda:0",
        "synchronize",
        "record",
        "step",
        "step",
        "record",
        "wait",
        "synchronize",
        "leave",
    ]
    assert gc.isenabled()


def test_garbage_is_not_collected_in_a_burst() -> None:
    seen: list[bool] = []
    clock = CpuClock()
    clock.burst(lambda: seen.append(gc.isenabled()), 2)
    with pytest.raises(RuntimeError):
        clock.burst(lambda: [][0] if seen.append(gc.isenabled()) else torch.zeros(1).view(2), 1)
    assert seen == [False] * 3
    assert gc.isenabled()
    assert clock.backlog is None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_clock_waits_for_the_device() -> None:
    device = torch.device("cuda")
    x = torch.randn(4096, 4096, device=device)
    clock = CudaClock(device)
    clock.burst(lambda: x @ x, 3)
    one, ten = clock.burst(lambda: x @ x, 10), clock.burst(lambda: x @ x, 100)
    assert ten == pytest.approx(10 * one, rel=0.3)
    before = clock.now()
    assert clock.burst(lambda: x @ x, 100) <= clock.now() - before
