"""Choose the device and the arithmetic of matmuls (fp32, TF32, half) explicitly; refuse what this machine lacks."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from tomebench.errors import DeviceError
from tomebench.words import are

DTYPES: Mapping[str, torch.dtype] = {
    "fp32": torch.float32,
    "tf32": torch.float32,  # fp32 storage, matmuls rounded to TF32
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}


def resolve_device(name: str, dtype: str = "fp32") -> torch.device:
    """The device of that name; ``auto`` is the first CUDA GPU, or the CPU where there is none.

    Raises:
        DeviceError: unknown or absent device, or a dtype that it does not have.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, index = name.partition(":")
    if kind not in ("cpu", "cuda") or (index and not (kind == "cuda" and index.isdigit())):
        raise DeviceError(f"unknown device {name!r}; use auto, cpu, cuda or cuda:<number>")
    if kind == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if count == 0:
            raise DeviceError(f"device {name!r} is not available: PyTorch sees no CUDA GPU here; use --device cpu")
        if index and int(index) >= count:
            raise DeviceError(f"device {name!r} is not available: there {are(count)} {count}, numbered from 0")
    if dtype not in DTYPES:
        raise DeviceError(f"unknown dtype {dtype!r}; use {', '.join(DTYPES)}")
    if dtype == "tf32" and (kind == "cpu" or torch.cuda.get_device_capability(name) < (8, 0)):
        raise DeviceError(
            f"dtype tf32 needs a CUDA GPU of compute capability 8.0 or newer, not {name}; use --dtype fp32"
        )
    if kind == "cuda":
        _refuse_emulated_bf16(name, dtype)
        _refuse_overrides(dtype)
    return torch.device(name)


def device_name(device: torch.device) -> str:
    """``cpu``, ``cuda`` for the first GPU however it was asked for, or ``cuda:<number>``."""
    return device.type if device.index in (None, 0) else str(device)


def _refuse_emulated_bf16(name: str, dtype: str) -> None:
    """Refuse bf16 on older GPUs: PyTorch emulates it by way of fp32, and reports it as supported."""
    if dtype != "bf16":
        return
    with torch.cuda.device(torch.device(name)):
        if not torch.cuda.is_bf16_supported(including_emulation=False):
            raise DeviceError(f"{name} has no bf16; use --dtype fp16")


OVERRIDES = (
    *("NVIDIA_TF32_OVERRIDE", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", "CUDA_LAUNCH_BLOCKING", "CUBLAS_WORKSPACE_CONFIG"),
    *("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_NO_CUDA_MEMORY_CACHING", "TORCH_CUDNN_SDPA_PREFERRED"),
)
"""Environment variables that change what a GPU computes, or how fast, whatever the settings say."""


def _refuse_overrides(dtype: str) -> None:
    """Refuse variables that would make a row's dtype untrue; the testbed records the others."""
    on = {name for name in OVERRIDES if os.environ.get(name, "0") not in ("", "0")}
    wrong = on & {"CUDA_LAUNCH_BLOCKING", "PYTORCH_NO_CUDA_MEMORY_CACHING"}
    tf32 = os.environ.get("NVIDIA_TF32_OVERRIDE", "")  # affects fp32 only
    if (dtype == "fp32" and tf32 not in ("", "0")) or (dtype == "tf32" and tf32 == "0"):
        wrong.add("NVIDIA_TF32_OVERRIDE")
    for name in OVERRIDES:
        if name in wrong:
            value = os.environ[name]
            raise DeviceError(f"{name}={value} in the environment changes what --dtype {dtype} measures; unset it")


def lost(device: torch.device) -> bool:
    """Whether the context of a GPU is lost: after a kernel's error it only repeats that error, in this process.

    Running out of memory, or an operation refused before it runs, leaves the context intact.
    """
    if device.type != "cuda":
        return False
    try:
        torch.cuda.synchronize(device)
    except RuntimeError:
        return True
    return False


_ON_GPU: tuple[Any, ...] = (
    torch.backends.cuda.matmul,
    *(getattr(torch.backends.cudnn, name) for name in ("conv", "rnn")),
)
_ON_CPU: tuple[Any, ...] = tuple(getattr(torch.backends.mkldnn, name) for name in ("matmul", "conv"))
"""Operations of oneDNN with an fp32 precision setting of their own."""


@contextmanager
def arithmetic(dtype: str, threads: int | None) -> Iterator[int]:
    """Context that sets how fp32 matmuls are computed and the number of CPU threads; restores both at its end.

    Args:
        dtype: ``tf32`` rounds matmuls to TF32, everything else computes them in full fp32.
        threads: CPU threads of one operation; None leaves the number as it is.

    Yields:
        The number of threads in use.
    """
    # Some versions warn at every use that there is another interface for these settings.
    warnings.filterwarnings("ignore", message="Please use the new API settings to control TF32")
    before, number = [(holder, holder.fp32_precision) for holder in (*_ON_GPU, *_ON_CPU)], torch.get_num_threads()
    legacy = _legacy_precision()
    torch.set_float32_matmul_precision("high" if dtype == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = dtype == "tf32"
    for holder in _ON_CPU:
        holder.fp32_precision = "ieee"  # the older interface does not cover convolutions on a CPU
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        yield torch.get_num_threads()
    finally:
        if legacy is not None:
            torch.set_float32_matmul_precision(legacy)
        for holder, precision in before:
            holder.fp32_precision = precision
        torch.set_num_threads(number)


def _legacy_precision() -> str | None:
    """Precision in the older of PyTorch's two interfaces; None where the younger one set what the older cannot say."""
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:
        return None
