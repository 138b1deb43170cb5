"""Describe the testbed: device, driver, libraries, CPU and threads that a speed was measured on.

What cannot be found out is "unavailable", never an error.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
import uuid
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tomebench.measure.allocator import describe_memory
from tomebench.measure.cgroup import read, usable_cpus
from tomebench.measure.machine import gpu_facts
from tomebench.runs.testbed import UNAVAILABLE

if TYPE_CHECKING:
    import torch

_LIBRARIES = ("torch", "torchvision", "timm", "numpy")
_CPU_OVERRIDES = (
    "ATEN_CPU_CAPABILITY",
    "DNNL_MAX_CPU_ISA",
    "ONEDNN_MAX_CPU_ISA",
    "DNNL_DEFAULT_FPMATH_MODE",
    "ONEDNN_DEFAULT_FPMATH_MODE",
    "MKL_CBWR",
    "MKL_ENABLE_INSTRUCTIONS",
)
"""Environment variables that change what a CPU computes, whatever the settings say."""
THIS_PROCESS = uuid.uuid4().hex


def describe(device: torch.device, threads: int) -> dict[str, Any]:
    """Everything about this machine that a speed depends on, as a flat JSON object.

    Args:
        device: what the model runs on.
        threads: intra-op threads in use.

    Returns:
        Text, integers and floats under: device, device_name, driver, cuda, cudnn, cublas, overrides, cpu, usable_cpus,
        threads, platform, python, torch, torchvision, timm, numpy, memory, git, and what
        :func:`tomebench.measure.machine.gpu_facts` gives. Never None.
    """
    import torch  # imported here, since tables are rebuilt from stored testbeds without torch

    from tomebench.measure.device import OVERRIDES, device_name

    cuda = device.type == "cuda" and torch.cuda.is_available()
    cpu = cpu_model()
    return {
        "device": device_name(device),
        "device_name": torch.cuda.get_device_name(device) if cuda else cpu,
        "driver": _nvidia_driver() if cuda else UNAVAILABLE,
        "cuda": (torch.version.cuda if cuda else None) or UNAVAILABLE,
        "cudnn": (torch.backends.cudnn.version() if cuda else None) or UNAVAILABLE,
        "cublas": _cublas(torch.version.cuda) if cuda else UNAVAILABLE,
        "overrides": _set_variables(OVERRIDES) if cuda else _overrides_of_cpu(),
        "cpu": cpu,
        "usable_cpus": usable_cpus(),
        "threads": threads,
        "platform": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **{library: _version(library) for library in _LIBRARIES},
        "memory": describe_memory(),
        **gpu_facts(device),
        "git": git_here(),
    }


def cpu_model(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Name of the processor."""
    match = re.search(r"^model name\s*:\s*(.+?)\s*$", read(cpuinfo), re.MULTILINE)
    return match[1] if match else platform.processor() or UNAVAILABLE


def _overrides_of_cpu() -> str:
    """Overrides that are set; the same text as in older testbeds where there are none."""
    found = _set_variables(_CPU_OVERRIDES)
    return UNAVAILABLE if found == "none" else found


def arithmetic_of(device: torch.device) -> str:
    """Instruction set that computes, as far as it decides how sums are rounded."""
    import torch

    from tomebench.measure.device import OVERRIDES

    names = OVERRIDES if device.type == "cuda" else _CPU_OVERRIDES
    kind = f"cuda {torch.version.cuda}" if device.type == "cuda" else torch.backends.cpu.get_cpu_capability()
    overrides = _set_variables(names)
    return kind if overrides == "none" else f"{kind} {overrides}"


def git_here() -> str:
    """:func:`git_state` of the checkout that this package is in."""
    return git_state(Path(__file__).resolve().parents[2])


def git_state(root: Path) -> str:
    """Commit of the checkout at ``root``, with "-dirty" if tracked files have changed; "unavailable" elsewhere."""
    if not (root / ".git").exists():
        return UNAVAILABLE
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    # Read only: do not refresh the index, and look at this checkout whatever GIT_ variables of a hook or an editor say.
    own = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    environment = {**own, "GIT_OPTIONAL_LOCKS": "0"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True, env=environment)
    except (OSError, subprocess.SubprocessError):
        return UNAVAILABLE
    return done.stdout.strip() or UNAVAILABLE


def _nvidia_driver(path: Path = Path("/proc/driver/nvidia/version")) -> str:
    match = re.search(r"NVRM version:.*?\b(\d+\.\d+(?:\.\d+)?)\b", read(path))
    return match[1] if match else UNAVAILABLE


def _cublas(cuda: str | None) -> str:
    """Version of the cuBLAS of PyTorch's wheels, whose package name has CUDA's major version or not."""
    names = (f"nvidia-cublas-cu{(cuda or '').partition('.')[0]}", "nvidia-cublas")
    return next((found for name in names if (found := _version(name)) != UNAVAILABLE), UNAVAILABLE)


def _set_variables(names: Iterable[str]) -> str:
    """Which of some environment variables are set, as ``NAME=value``, or "none"."""
    return ", ".join(f"{name}={os.environ[name]}" for name in names if name in os.environ) or "none"


def _version(library: str) -> str:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return UNAVAILABLE
