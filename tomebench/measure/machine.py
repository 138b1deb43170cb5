"""State of the machine during a burst: GPU clock, throttling and energy (NVML), CPU time taken by other processes.

Values that cannot be read here are None.
"""

from __future__ import annotations

import os
import statistics
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from tomebench.runs.testbed import UNAVAILABLE

if TYPE_CHECKING:
    import torch


_STAT = Path("/proc/stat")
_EVERY = 0.02
"""Seconds between two samples of the GPU's clock: a dozen in the shortest burst."""

_CLIENTS = ("Compute", "Graphics", "MPSCompute")
"""Kinds of GPU processes, as NVML names them."""


@dataclass(frozen=True)
class GpuReading:
    """GPU clock and throttling over an interval. None where the driver does not report it."""

    mhz: int | None = None  # median clock of the multiprocessors
    capped: float | None = None  # share of the time in which the power limit held that clock down
    slowed: float | None = None  # share of the time in which heat or the hardware held it down


class Gauges(Protocol):
    """Readings of the machine that timing needs. Tests bring their own."""

    def watch(self) -> AbstractContextManager[Callable[[], GpuReading]]:
        """Sample the GPU within the context; after it, the call returns the reading."""
        ...

    def max_mhz(self) -> int | None:
        """Highest clock of the GPU's multiprocessors in MHz; None where it cannot be read."""
        ...

    def joules(self) -> float | None:
        """Energy in joules since the GPU's driver was loaded; the counter is updated every 20 to 100 ms only."""
        ...

    def gpu_processes(self) -> int | None:
        """Number of processes on the GPU besides this one; None where it cannot be read."""
        ...

    def other_cpus(self) -> float | None:
        """Share of the machine's CPU time taken by other processes since the last call; None at the first."""
        ...


class NoGauges:
    """A machine without readings."""

    def watch(self) -> AbstractContextManager[Callable[[], GpuReading]]:
        """See :class:`Gauges`."""
        return nullcontext(GpuReading)

    def max_mhz(self) -> int | None:
        """See :class:`Gauges`."""
        return None

    def joules(self) -> float | None:
        """See :class:`Gauges`."""
        return None

    def gpu_processes(self) -> int | None:
        """See :class:`Gauges`."""
        return None

    def other_cpus(self) -> float | None:
        """See :class:`Gauges`."""
        return None


class MachineGauges:
    """Readings of this machine from /proc/stat and, where nvidia-ml-py is installed (the extra ``gpu``), NVML.

    Args:
        device: device of the timed passes; its GPU is read.
        stat: the kernel's count of CPU time.
    """

    def __init__(self, device: torch.device, stat: Path = _STAT) -> None:
        self._stat = stat
        self._before: tuple[float, float, float] | None = None
        self._nvml, self._handle = _open_nvml(device)

    @contextmanager
    def watch(self) -> Iterator[Callable[[], GpuReading]]:
        """See :class:`Gauges`.

        A thread takes samples during the burst: after it the GPU is idle, and its clock another one.
        """
        if self._nvml is None:
            yield GpuReading
            return
        samples: list[tuple[int | None, int | None]] = []
        done = threading.Event()

        def sample() -> None:
            while not done.wait(_EVERY):
                samples.append(self._sample())

        watcher = threading.Thread(target=sample, name="gpu-clock", daemon=True)
        watcher.start()
        try:
            yield lambda: _reading(samples)
        finally:
            done.set()
            watcher.join()
            if not samples:  # the burst was shorter than one interval
                samples.append(self._sample())

    def _sample(self) -> tuple[int | None, int | None]:
        """Current clock in MHz, and NVML's bits for why it is not higher."""
        nvml, handle = self._nvml, self._handle
        mhz = _asked(nvml, lambda: nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM))
        return mhz or None, _asked(nvml, lambda: nvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle))

    def max_mhz(self) -> int | None:
        """See :class:`Gauges`."""
        if self._nvml is None:
            return None
        nvml = self._nvml
        return _asked(nvml, lambda: nvml.nvmlDeviceGetMaxClockInfo(self._handle, nvml.NVML_CLOCK_SM))

    def joules(self) -> float | None:
        """See :class:`Gauges`."""
        if self._nvml is None:
            return None
        millijoules = _asked(self._nvml, lambda: self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle))
        return None if millijoules is None else millijoules / 1e3

    def gpu_processes(self) -> int | None:
        """See :class:`Gauges`."""
        if self._nvml is None:
            return None
        known = [found for kind in _CLIENTS if (found := self._running(kind)) is not None]
        if not known:
            return None
        pids = {process.pid for processes in known for process in processes}
        if os.getpid() in pids:
            return len(pids) - 1
        # In a container the driver may number processes in another way, or hide them: this process may be one of these
        # or not.
        return len(pids) - 1 if len(pids) > 1 else None

    def _running(self, kind: str) -> list[Any] | None:
        """Processes of one kind; None where the library's version or the driver does not list them."""
        nvml, name = self._nvml, f"nvmlDeviceGet{kind}RunningProcesses"
        return _asked(nvml, lambda: getattr(nvml, name)(self._handle)) if hasattr(nvml, name) else None

    def other_cpus(self) -> float | None:
        """See :class:`Gauges`."""
        found = _cpu_seconds(self._stat)
        if found is None:
            return None
        now = (*found, sum(os.times()[:4]))  # CPU time of this process, and of children that have ended
        before, self._before = self._before, now
        if before is None or now[0] <= before[0]:
            return None
        total, busy, own = (new - old for new, old in zip(now, before, strict=True))
        return min(1.0, max(0.0, (busy - own) / total))


_POWER_CAP, _SYNC_BOOST = 0x4, 0x10
_REASONS = {  # nvmlClocksThrottleReason*; an idle GPU, or clocks that the user set, are not throttled
    _POWER_CAP: "power cap",
    0x8: "hardware slowdown",
    _SYNC_BOOST: "sync boost",
    0x20: "software thermal",
    0x40: "hardware thermal",
    0x80: "power brake",
}
_SLOWED = sum(_REASONS) - _POWER_CAP - _SYNC_BOOST  # sync boost waits for other GPUs: neither heat nor a fault


def throttle_reasons(bits: int) -> str:
    """NVML's throttle bits in words: "power cap, hardware thermal", or "none"."""
    return ", ".join(name for bit, name in _REASONS.items() if bits & bit) or "none"


def _reading(samples: Sequence[tuple[int | None, int | None]]) -> GpuReading:
    clocks = [mhz for mhz, _ in samples if mhz is not None]
    reasons = [bits for _, bits in samples if bits is not None]

    def share(mask: int) -> float | None:
        return sum(bool(bits & mask) for bits in reasons) / len(reasons) if reasons else None

    return GpuReading(round(statistics.median(clocks)) if clocks else None, share(_POWER_CAP), share(_SLOWED))


def gpu_facts(device: torch.device) -> dict[str, int | str]:
    """Limits of a GPU's clock: its highest value, the power limit, and what throttles it at this moment.

    Returns:
        gpu_max_mhz, gpu_power_limit_w and gpu_throttle_reasons; each "unavailable" where it cannot be read.
    """
    nvml, handle = _open_nvml(device)
    if nvml is None:
        return dict.fromkeys(("gpu_max_mhz", "gpu_power_limit_w", "gpu_throttle_reasons"), UNAVAILABLE)
    mhz = _asked(nvml, lambda: nvml.nvmlDeviceGetMaxClockInfo(handle, nvml.NVML_CLOCK_SM))
    milliwatts = _asked(nvml, lambda: nvml.nvmlDeviceGetEnforcedPowerLimit(handle))
    bits = _asked(nvml, lambda: nvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle))
    reasons = None if bits is None else throttle_reasons(bits)
    return {
        "gpu_max_mhz": mhz or UNAVAILABLE,
        "gpu_power_limit_w": UNAVAILABLE if milliwatts is None else milliwatts // 1000,
        "gpu_throttle_reasons": reasons or UNAVAILABLE,
    }


def _cpu_seconds(stat: Path) -> tuple[float, float] | None:
    """Seconds of all CPUs together since boot, and those that were not idle; None where they cannot be read."""
    try:
        fields = stat.read_text().splitlines()[0].split()
        # user nice system idle iowait irq softirq steal; guest time is part of user. Stolen time counts as busy: the
        # hypervisor ran another machine.
        ticks = [int(field) for field in fields[1:9]]
    except (OSError, IndexError, ValueError):
        return None
    if fields[0] != "cpu" or len(ticks) < 5:
        return None
    hertz = os.sysconf("SC_CLK_TCK")
    return sum(ticks) / hertz, (sum(ticks) - ticks[3] - ticks[4]) / hertz


def _open_nvml(device: torch.device) -> tuple[Any, Any]:
    """The NVML module and a handle of the device; (None, None) without a GPU, the library or its driver."""
    if device.type != "cuda":
        return None, None
    try:
        import pynvml
    except ImportError:
        return None, None
    import torch

    def handle() -> Any:
        pynvml.nvmlInit()
        # By UUID: CUDA_VISIBLE_DEVICES renumbers the GPUs for torch, but not for NVML.
        uuid = f"GPU-{torch.cuda.get_device_properties(device).uuid}"
        return pynvml.nvmlDeviceGetHandleByUUID(uuid)

    found = _asked(pynvml, handle)
    return (None, None) if found is None else (pynvml, found)


def _asked(nvml: Any, question: Any) -> Any:
    """Result of an NVML query; None where this GPU or driver does not support it, or is too old for the library."""
    mismatch = getattr(nvml, "NVMLLibraryMismatchError", nvml.NVMLError)
    try:
        return question()
    except (nvml.NVMLError, mismatch, UnicodeError):
        return None
