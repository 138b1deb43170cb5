"""What else goes on while something is timed: GPU clock and energy, other processes. None is "cannot be told here"."""

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
"""Seconds between two looks at the GPU's clock: a dozen in the shortest burst."""

_CLIENTS = ("Compute", "Graphics", "MPSCompute")
"""Kinds of processes on a GPU, as NVML names them."""


@dataclass(frozen=True)
class GpuReading:
    """What a GPU did while something ran. None where its driver does not say."""

    mhz: int | None = None  # median clock of the multiprocessors
    capped: float | None = None  # share of the time in which the power limit held that clock down
    slowed: float | None = None  # share of the time in which heat or the hardware did


class Gauges(Protocol):
    """What timing asks of the machine. Tests bring their own."""

    def watch(self) -> AbstractContextManager[Callable[[], GpuReading]]:
        """Look at the GPU for as long as the context lasts; after it, the call says what there was to see."""
        ...

    def max_mhz(self) -> int | None:
        """Highest clock of the GPU's multiprocessors; None where nothing can be asked."""
        ...

    def joules(self) -> float | None:
        """Energy that the GPU has taken since its driver was loaded. Counted anew every 20 to 100 ms only."""
        ...

    def gpu_processes(self) -> int | None:
        """Processes on the GPU that are not this one; None where that cannot be told."""
        ...

    def other_cpus(self) -> float | None:
        """Share of the machine's CPU time that went to others since the last call; None at the first."""
        ...


class NoGauges:
    """A machine that says nothing."""

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
    """This machine, through /proc/stat and, where nvidia-ml-py is installed (the extra ``gpu``), NVML.

    Args:
        device: what is timed; its GPU is the one to ask.
        stat: the kernel's count of CPU time.
    """

    def __init__(self, device: torch.device, stat: Path = _STAT) -> None:
        self._stat = stat
        self._before: tuple[float, float, float] | None = None
        self._nvml, self._handle = _open_nvml(device)

    @contextmanager
    def watch(self) -> Iterator[Callable[[], GpuReading]]:
        """See :class:`Gauges`.

        Sampled by a thread: the clock of a GPU that has become idle, which is when a burst is over, says nothing.
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
            if not samples:  # it was over too soon
                samples.append(self._sample())

    def _sample(self) -> tuple[int | None, int | None]:
        """Clock in MHz, and the reasons for which it is not higher, now."""
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
        # In a container the driver may number processes otherwise, or hide them: one of these may be we, or none.
        return len(pids) - 1 if len(pids) > 1 else None

    def _running(self, kind: str) -> list[Any] | None:
        """Processes of one kind; None where this version of the library, or the driver, does not list them."""
        nvml, name = self._nvml, f"nvmlDeviceGet{kind}RunningProcesses"
        return _asked(nvml, lambda: getattr(nvml, name)(self._handle)) if hasattr(nvml, name) else None

    def other_cpus(self) -> float | None:
        """See :class:`Gauges`."""
        found = _cpu_seconds(self._stat)
        if found is None:
            return None
        now = (*found, sum(os.times()[:4]))  # our own, and that of children that have ended
        before, self._before = self._before, now
        if before is None or now[0] <= before[0]:
            return None
        total, busy, own = (new - old for new, old in zip(now, before, strict=True))
        return min(1.0, max(0.0, (busy - own) / total))


_POWER_CAP, _SYNC_BOOST = 0x4, 0x10
_REASONS = {  # nvmlClocksThrottleReason*; idle, and clocks that the user set, are no throttling
    _POWER_CAP: "power cap",
    0x8: "hardware slowdown",
    _SYNC_BOOST: "sync boost",
    0x20: "software thermal",
    0x40: "hardware thermal",
    0x80: "power brake",
}
_SLOWED = sum(_REASONS) - _POWER_CAP - _SYNC_BOOST  # which waits for other GPUs: neither heat nor a fault


def throttle_reasons(bits: int) -> str:
    """What NVML's bits say in words: "power cap, hardware thermal", or "none"."""
    return ", ".join(name for bit, name in _REASONS.items() if bits & bit) or "none"


def _reading(samples: Sequence[tuple[int | None, int | None]]) -> GpuReading:
    clocks = [mhz for mhz, _ in samples if mhz is not None]
    reasons = [bits for _, bits in samples if bits is not None]

    def share(mask: int) -> float | None:
        return sum(bool(bits & mask) for bits in reasons) / len(reasons) if reasons else None

    return GpuReading(round(statistics.median(clocks)) if clocks else None, share(_POWER_CAP), share(_SLOWED))


def gpu_facts(device: torch.device) -> dict[str, int | str]:
    """What bounds a GPU's clock: its highest clock, its power limit, and what throttles it at this moment.

    Returns:
        gpu_max_mhz, gpu_power_limit_w and gpu_throttle_reasons; each "unavailable" where it cannot be told.
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
    """Seconds of all CPUs together since boot, and those that were not idle; None where that cannot be read."""
    try:
        fields = stat.read_text().splitlines()[0].split()
        # user nice system idle iowait irq softirq steal; guest time is in user already. Stolen time is the worst kind
        # of a busy machine: the hypervisor ran somebody else.
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
        # By UUID, because CUDA_VISIBLE_DEVICES renumbers what torch sees and not what NVML sees.
        uuid = f"GPU-{torch.cuda.get_device_properties(device).uuid}"
        return pynvml.nvmlDeviceGetHandleByUUID(uuid)

    found = _asked(pynvml, handle)
    return (None, None) if found is None else (pynvml, found)


def _asked(nvml: Any, question: Any) -> Any:
    """What NVML answers; None where this GPU or driver does not know, or is too old for the library."""
    mismatch = getattr(nvml, "NVMLLibraryMismatchError", nvml.NVMLError)
    try:
        return question()
    except (nvml.NVMLError, mismatch, UnicodeError):
        return None
