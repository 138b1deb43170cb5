"""What else goes on while something is timed: /proc/stat as a file, NVML as a module that the test brings."""

# ruff: noqa: N802 (NVML names its functions as C does)

from __future__ import annotations

import os
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tomebench.measure import machine
from tomebench.measure.machine import Gauges, GpuReading, MachineGauges, NoGauges

CPU = torch.device("cpu")
HERTZ = os.sysconf("SC_CLK_TCK")


def stat_line(busy: float, idle: float, stolen: float = 0.0) -> str:
    """The first line of /proc/stat for so many seconds since boot; guest time is in user time already."""
    user, still, steal = (round(HERTZ * seconds) for seconds in (busy, idle, stolen))
    return f"cpu  {user} 0 0 {still} 0 0 0 {steal} {user} 0\ncpu0 1 2 3 4\n"


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Sets the CPU seconds that this process has taken."""

    def take(seconds: float) -> None:
        monkeypatch.setattr(os, "times", lambda: (seconds, 0.0, 0.0, 0.0, 1e9))

    take(0.0)
    return take


@pytest.mark.parametrize(
    ("busy", "idle", "stolen", "ours", "share"),
    [
        (10, 10, 0, 10, 0.0),  # all that was not idle is ours
        (10, 10, 0, 5, 0.25),
        (0, 10, 10, 0, 0.5),  # the hypervisor ran somebody else
        (5, 15, 0, 9, 0.0),  # ticks are coarse: never negative
    ],
)
def test_the_share_of_others(
    tmp_path: Path, own: Callable[[float], None], busy: float, idle: float, stolen: float, ours: float, share: float
) -> None:
    path = tmp_path / "stat"
    path.write_text(stat_line(100, 100))
    gauges = MachineGauges(CPU, path)
    assert gauges.other_cpus() is None  # nothing to compare with yet
    path.write_text(stat_line(100 + busy, 100 + idle, stolen))
    own(ours)
    assert gauges.other_cpus() == pytest.approx(share)
    assert gauges.other_cpus() is None  # no time has passed


@pytest.mark.parametrize("text", [None, "", "cpu", "cpu  a b c d e\n", "intr 1 2 3 4 5 6 7 8\n", "cpu  1 2\n"])
def test_where_the_kernel_does_not_say_nothing_is_said(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "stat"
    if text is not None:
        path.write_text(text)
    gauges = MachineGauges(CPU, path)
    assert (gauges.other_cpus(), gauges.other_cpus()) == (None, None)
    assert said(gauges) == NOTHING


NOTHING = (GpuReading(), None, None, None)


def said(gauges: Gauges) -> tuple[GpuReading, int | None, float | None, int | None]:
    """What gauges say of a GPU: in a burst that is over at once, its highest clock, its energy and its company."""
    with gauges.watch() as seen:
        pass
    return seen(), gauges.max_mhz(), gauges.joules(), gauges.gpu_processes()


def test_no_gauges_say_nothing() -> None:
    assert said(NoGauges()) == NOTHING
    assert NoGauges().other_cpus() is None


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="no /proc/stat here")
def test_this_machine_has_a_share_of_others() -> None:
    gauges = MachineGauges(CPU)
    gauges.other_cpus()
    end = sum(os.times()[:4]) + 0.2
    while sum(os.times()[:4]) < end:
        pass
    share = gauges.other_cpus()
    assert share is not None
    assert 0 <= share <= 1


class Nvml(types.ModuleType):
    """NVML of one GPU. ``broken`` names the functions that this driver does not have."""

    NVML_CLOCK_SM = 1
    NVML_CLOCK_MEM = 2

    class NVMLError(Exception):
        pass

    class NVMLLibraryMismatchError(Exception):
        """What the library raises for a driver that is too old; none of its other errors."""

    refusal: type[Exception] = NVMLError

    def __init__(self, broken: tuple[str, ...] = ()) -> None:
        super().__init__("pynvml")
        self.broken, self.mhz, self.millijoules, self.reasons = broken, 1980, 5_000, 0
        self.asked = 0
        self.compute, self.graphics, self.mps = ([os.getpid()], list[int](), list[int]())

    def __getattribute__(self, name: str) -> object:
        if name.startswith("nvml") and name in super().__getattribute__("broken"):
            return Nvml.refuse
        return super().__getattribute__(name)

    @staticmethod
    def refuse(*args: object) -> None:
        raise Nvml.refusal("Not Supported")

    def nvmlInit(self) -> None:
        pass

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:
        assert uuid == "GPU-aa-bb"
        return uuid

    def nvmlDeviceGetClockInfo(self, handle: str, clock: int) -> int:
        assert (handle, clock) == ("GPU-aa-bb", self.NVML_CLOCK_SM)
        self.asked += 1
        return self.mhz

    def nvmlDeviceGetMaxClockInfo(self, handle: str, clock: int) -> int:
        assert clock == self.NVML_CLOCK_SM
        return 1980

    def nvmlDeviceGetEnforcedPowerLimit(self, handle: str) -> int:
        return 700_000

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle: str) -> int:
        return self.reasons

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: str) -> int:
        return self.millijoules

    def nvmlDeviceGetComputeRunningProcesses(self, handle: str) -> list[types.SimpleNamespace]:
        return [types.SimpleNamespace(pid=pid) for pid in self.compute]

    def nvmlDeviceGetGraphicsRunningProcesses(self, handle: str) -> list[types.SimpleNamespace]:
        return [types.SimpleNamespace(pid=pid) for pid in self.graphics]

    def nvmlDeviceGetMPSComputeRunningProcesses(self, handle: str) -> list[types.SimpleNamespace]:
        return [types.SimpleNamespace(pid=pid) for pid in self.mps]


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Nvml]:
    """Puts a GPU with that NVML in place."""

    def make(*broken: str) -> Nvml:
        nvml = Nvml(broken)
        monkeypatch.setitem(sys.modules, "pynvml", nvml)
        properties = types.SimpleNamespace(uuid="aa-bb")
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
        return nvml

    return make


GPU = torch.device("cuda", 0)


def test_a_gpu_says_its_clock_energy_and_company(gpu: Callable[..., Nvml]) -> None:
    nvml = gpu()
    nvml.reasons = 0x1 | 0x4  # idle, which is no throttling, and the power limit
    assert said(MachineGauges(GPU)) == (GpuReading(1980, 1.0, 0.0), 1980, 5.0, 0)


def test_the_clock_is_that_of_the_whole_burst(gpu: Callable[..., Nvml], monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = gpu()
    monkeypatch.setattr(machine, "_EVERY", 1e-3)
    with MachineGauges(GPU).watch() as seen:
        for mhz, reasons in ((1000, 0x40), (1500, 0x4), (1500, 0x4), (1900, 0x0)):
            nvml.mhz, nvml.reasons, before = mhz, reasons, nvml.asked
            while nvml.asked < before + 20:
                time.sleep(1e-3)
    nvml.mhz = 345  # idle again
    reading = seen()
    assert reading.mhz == 1500
    assert reading.capped == pytest.approx(0.5, abs=0.2)
    assert reading.slowed == pytest.approx(0.25, abs=0.2)
    asked = nvml.asked
    time.sleep(0.02)
    assert nvml.asked == asked  # nobody looks any more


@pytest.mark.parametrize(
    ("compute", "graphics", "mps", "others"),
    [
        (["we"], [], [], 0),
        (["we", 1], [], [], 1),
        (["we"], ["we", 1], [2], 2),  # a desktop draws, a server of MPS computes
        ([], ["we"], [], 0),
        ([], [], [], None),  # the driver hides us, and others perhaps
        ([1], [], [], None),  # we under another number, or somebody else
        ([1, 2], [], [], 1),  # at least one of these is not us
    ],
)
def test_who_else_is_on_the_gpu(
    gpu: Callable[..., Nvml], compute: list[Any], graphics: list[Any], mps: list[Any], others: int | None
) -> None:
    nvml = gpu()
    nvml.compute, nvml.graphics, nvml.mps = (
        [os.getpid() if p == "we" else p for p in ps] for ps in (compute, graphics, mps)
    )
    assert MachineGauges(GPU).gpu_processes() == others


def test_what_a_driver_does_not_know_is_left_out(gpu: Callable[..., Nvml]) -> None:
    gpu("nvmlDeviceGetTotalEnergyConsumption", "nvmlDeviceGetCurrentClocksThrottleReasons")
    assert said(MachineGauges(GPU)) == (GpuReading(1980), 1980, None, 0)


def test_lists_of_processes_that_a_driver_lacks_are_left_out(
    gpu: Callable[..., Nvml], monkeypatch: pytest.MonkeyPatch
) -> None:
    nvml = gpu("nvmlDeviceGetGraphicsRunningProcesses")
    assert MachineGauges(GPU).gpu_processes() == 0
    monkeypatch.delattr(Nvml, "nvmlDeviceGetMPSComputeRunningProcesses")  # an older library
    assert MachineGauges(GPU).gpu_processes() == 0
    monkeypatch.setattr(Nvml, "refusal", Nvml.NVMLLibraryMismatchError)  # a driver that is too old
    nvml.broken = tuple(f"nvmlDeviceGet{kind}RunningProcesses" for kind in ("Compute", "Graphics", "MPSCompute"))
    assert MachineGauges(GPU).gpu_processes() is None


@pytest.mark.parametrize("broken", ["nvmlInit", "nvmlDeviceGetHandleByUUID"])
def test_without_a_driver_there_is_no_reading(gpu: Callable[..., Nvml], broken: str) -> None:
    gpu(broken)
    assert said(MachineGauges(GPU)) == NOTHING


def test_without_the_library_there_is_no_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert said(MachineGauges(GPU)) == NOTHING


def test_the_testbed_has_limits_and_reasons(gpu: Callable[..., Nvml]) -> None:
    nvml = gpu("nvmlDeviceGetEnforcedPowerLimit")
    nvml.reasons = 0x4 | 0x40
    assert machine.gpu_facts(torch.device("cuda", 0)) == {
        "gpu_max_mhz": 1980,
        "gpu_power_limit_w": "unavailable",
        "gpu_throttle_reasons": "power cap, hardware thermal",
    }
    nvml.reasons = 0x1  # idle, which is no throttling
    assert machine.gpu_facts(torch.device("cuda", 0))["gpu_throttle_reasons"] == "none"
    assert set(machine.gpu_facts(CPU).values()) == {"unavailable"}
