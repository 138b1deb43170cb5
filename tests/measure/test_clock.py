"""The real clocks: that they count steps and wait for the device, not how fast this machine is."""

from __future__ import annotations

import contextlib
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
    """Stands in for torch.cuda and the wall clock; records what happens in which order."""

    def __init__(self, on_device_ms: float, wall: float) -> None:
        self.log: list[str] = []
        self.on_device_ms, self.wall = on_device_ms, wall

    def device_count(self) -> int:
        return 1

    def synchronize(self) -> None:
        self.log.append("synchronize")

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

            def elapsed_time(self, end: Event) -> float:
                assert fake.log[-1] == "synchronize"  # unfinished events have no time
                return fake.on_device_ms

        return Event()

    def perf_counter(self) -> float:
        return self.wall if "step" in self.log else 0.0


@pytest.mark.parametrize(
    ("on_device_ms", "wall", "expected"),
    [
        (250.0, 0.251, 0.25),  # the usual case: events
        (250.0, 0.400, 0.25),  # the host was late to wake up
        (1.0, 0.250, 0.25),  # the work went to another stream, where the events do not see it
        (0.05, 0.004, 5e-5),  # a very short burst: the host's part is large but harmless
    ],
)
def test_cuda_burst_lies_between_two_synchronisations(
    monkeypatch: pytest.MonkeyPatch, on_device_ms: float, wall: float, expected: float
) -> None:
    fake = _FakeCuda(on_device_ms, wall)
    for name in ("device_count", "synchronize", "device", "Event"):
        monkeypatch.setattr(torch.cuda, name, getattr(fake, name))
    monkeypatch.setattr(clock_module.time, "perf_counter", fake.perf_counter)
    clock = clock_for(torch.device("cuda:0"))
    assert clock.min_burst == 0.25
    assert clock.burst(lambda: fake.log.append("step"), 2) == pytest.approx(expected)
    assert fake.log == ["enter cuda:0", "synchronize", "record", "step", "step", "record", "synchronize", "leave"]


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
