"""What probes share: a registry, what a probe finds, and the model, images and clock that it is handed."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import timm
import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from tomebench.measure.clock import Clock, clock_for

Step = Callable[[], object]


@dataclass(frozen=True)
class Finding:
    """What a probe says of a defect, and the figure behind it."""

    verdict: str  # confirmed, refuted or undecided
    figure: str


@dataclass(frozen=True)
class Probe:
    """How to decide whether a suspected defect is one."""

    defect: int
    what: str
    seconds: float  # it may take
    run: Callable[[Here], Finding]
    compiled: bool  # most of its time goes to the compiler


PROBES: list[Probe] = []
"""In order of worth."""


def probe(defect: int, what: str, seconds: float, *, compiled: bool = False) -> Callable[[Any], Any]:
    """Register a probe of a defect."""

    def register(run: Callable[[Here], Finding]) -> Callable[[Here], Finding]:
        PROBES.append(Probe(defect, what, seconds, run, compiled))
        return run

    return register


def decided(holds: bool, figure: str) -> Finding:
    """Confirmed or refuted."""
    return Finding("confirmed" if holds else "refuted", figure)


@dataclass(frozen=True)
class Here:
    """Where a probe runs, and how large: ``small`` rehearses it on a model of no account."""

    device: torch.device
    small: bool

    @property
    def cuda(self) -> bool:
        return self.device.type == "cuda"

    @property
    def clock(self) -> Clock:
        return clock_for(self.device)

    def seconds(self, asked: float) -> float:
        """How long to measure where ``asked`` would be right."""
        return asked / 50 if self.small else asked

    def count(self, asked: int) -> int:
        """How often to do something."""
        return max(2, asked // 10) if self.small else asked

    def vit(self, name: str = "vit_base_patch16_224", dtype: torch.dtype = torch.bfloat16) -> nn.Module:
        """A model with seeded random weights, ready for inference."""
        torch.manual_seed(0)
        with self.device:
            return timm.create_model("test_vit" if self.small else name).eval().to(dtype)

    def images(self, model: nn.Module, batch: int, seed: int = 0) -> Tensor:
        """Seeded noise [B, 3, H, W] in the dtype of the model."""
        generator = torch.Generator(self.device).manual_seed(seed)
        shape = (min(batch, 2) if self.small else batch, *model.default_cfg["input_size"])
        dtype = next(model.parameters()).dtype
        return torch.randn(shape, device=self.device, generator=generator).to(dtype)

    def synchronize(self) -> None:
        if self.cuda:
            torch.cuda.synchronize(self.device)


def burst(here: Here, step: Step, steps: int) -> float:
    """Seconds of a burst by the package's clock, whatever it returns them in."""
    found: Any = here.clock.burst(step, steps)
    return float(getattr(found, "seconds", found))


def steps_lasting(here: Here, step: Step, seconds: float) -> int:
    """Steps that take about so long, once warm."""
    burst(here, step, 3)
    return max(1, math.ceil(5 * seconds / burst(here, step, 5)))


def inference(forward: Callable[[Tensor], Tensor], images: Tensor) -> Step:
    """A step that runs one batch without gradients."""

    def step() -> Tensor:
        with torch.inference_mode():
            return forward(images)

    return step


def median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


def events(step: Step, here: Here) -> Counter[str]:
    """How often each operator, call of the runtime and kernel occurs in a step, by the profiler."""
    kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if here.cuda else [])]
    with profile(activities=kinds) as profiler:
        step()
        here.synchronize()
    return Counter({event.key: event.count for event in profiler.key_averages()})


class NoNvml(Exception):
    """There is nothing that says what the GPU does."""


def nvml(here: Here) -> tuple[Any, Any]:
    """NVML and the handle of the device. Raises NoNvml without a GPU or its library."""
    if not here.cuda:
        raise NoNvml("needs CUDA")
    try:
        import pynvml
    except ImportError as error:
        raise NoNvml("nvidia-ml-py is missing") from error
    try:
        pynvml.nvmlInit()
        uuid = f"GPU-{torch.cuda.get_device_properties(here.device).uuid}"
        return pynvml, pynvml.nvmlDeviceGetHandleByUUID(uuid)
    except pynvml.NVMLError as error:
        raise NoNvml(f"NVML: {error}") from error


@dataclass
class Samples:
    """What the GPU said while something ran."""

    mhz: list[int] = field(default_factory=list)
    watts: list[float] = field(default_factory=list)
    reasons: int = 0  # throttle reasons, or-ed


@contextlib.contextmanager
def sampled(here: Here) -> Iterator[Samples]:
    """Sample clock, power and throttle reasons every 10 ms in a thread. Raises NoNvml."""
    library, handle = nvml(here)
    samples, done = Samples(), threading.Event()

    def watch() -> None:
        while not done.wait(0.01):
            samples.mhz.append(library.nvmlDeviceGetClockInfo(handle, library.NVML_CLOCK_SM))
            samples.watts.append(library.nvmlDeviceGetPowerUsage(handle) / 1e3)
            samples.reasons |= library.nvmlDeviceGetCurrentClocksThrottleReasons(handle)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield samples
    finally:
        done.set()
        thread.join()


def host_seconds(here: Here, step: Step, steps: int) -> tuple[float, float]:
    """Seconds until the host has launched so many steps, and until the device has done them."""
    here.synchronize()
    start = time.perf_counter()
    for _ in range(steps):
        step()
    launched = time.perf_counter() - start
    here.synchronize()
    return launched, time.perf_counter() - start
