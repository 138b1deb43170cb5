"""What else goes on while something is timed: GPU clock and energy, other processes. None is "cannot be told here"."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import torch

UNAVAILABLE = "unavailable"
"""What a testbed says where something cannot be found out."""

_STAT = Path("/proc/stat")


@dataclass(frozen=True)
class GpuReading:
    """What a GPU says of itself at one moment."""

    mhz: int | None = None  # clock of the multiprocessors
    joules: float | None = None  # energy since the driver was loaded


class Gauges(Protocol):
    """What timing asks of the machine between two bursts. Tests bring their own."""

    def gpu(self) -> GpuReading:
        """The GPU now; empty without one, and where its driver does not say."""
        ...

    def gpu_processes(self) -> int | None:
        """Processes on the GPU that are not this one."""
        ...

    def other_cpus(self) -> float | None:
        """Share of the machine's CPU time that went to others since the last call; None at the first."""
        ...


class NoGauges:
    """A machine that says nothing."""

    def gpu(self) -> GpuReading:
        """See :class:`Gauges`."""
        return GpuReading()

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

    def gpu(self) -> GpuReading:
        """See :class:`Gauges`."""
        if self._nvml is None:
            return GpuReading()
        nvml = self._nvml
        mhz = _asked(nvml, lambda: nvml.nvmlDeviceGetClockInfo(self._handle, nvml.NVML_CLOCK_SM))
        millijoules = _asked(nvml, lambda: nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle))
        return GpuReading(mhz or None, None if millijoules is None else millijoules / 1e3)

    def gpu_processes(self) -> int | None:
        """See :class:`Gauges`."""
        if self._nvml is None:
            return None
        running = _asked(self._nvml, lambda: self._nvml.nvmlDeviceGetComputeRunningProcesses(self._handle))
        # In a container the driver may number processes otherwise, this one too: what is not us is then one too many.
        return None if running is None else len(running) - (1 if running else 0)

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


_REASONS = {  # nvmlClocksThrottleReason*; idle, and clocks that the user set, are no throttling
    0x4: "power cap",
    0x8: "hardware slowdown",
    0x10: "sync boost",
    0x20: "software thermal",
    0x40: "hardware thermal",
    0x80: "power brake",
}


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
    reasons = None if bits is None else ", ".join(name for bit, name in _REASONS.items() if bits & bit) or "none"
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
    """What NVML answers; None where this GPU or driver does not know."""
    try:
        return question()
    except (nvml.NVMLError, UnicodeError):
        return None
