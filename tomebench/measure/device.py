"""Which device and which arithmetic: every choice is explicit, and one that this machine lacks is refused."""

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
    """PyTorch computes bf16 on older GPUs by way of fp32, and then calls it supported."""
    if dtype != "bf16":
        return
    with torch.cuda.device(torch.device(name)):
        if not torch.cuda.is_bf16_supported(including_emulation=False):
            raise DeviceError(f"{name} has no bf16; use --dtype fp16")


OVERRIDES = (
    *("NVIDIA_TF32_OVERRIDE", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", "CUDA_LAUNCH_BLOCKING", "CUBLAS_WORKSPACE_CONFIG"),
    *("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_NO_CUDA_MEMORY_CACHING", "TORCH_CUDNN_SDPA_PREFERRED"),
)
"""Environment variables that change what a GPU computes, or how fast, behind the back of every setting."""


def _refuse_overrides(dtype: str) -> None:
    """Refuse those that would make a row something else than it says; the testbed names the others."""
    on = {name for name in OVERRIDES if os.environ.get(name, "0") not in ("", "0")}
    wrong = on & {"CUDA_LAUNCH_BLOCKING", "PYTORCH_NO_CUDA_MEMORY_CACHING"}
    tf32 = os.environ.get("NVIDIA_TF32_OVERRIDE", "")  # says something about fp32 only
    if (dtype == "fp32" and tf32 not in ("", "0")) or (dtype == "tf32" and tf32 == "0"):
        wrong.add("NVIDIA_TF32_OVERRIDE")
    for name in OVERRIDES:
        if name in wrong:
            value = os.environ[name]
            raise DeviceError(f"{name}={value} in the environment changes what --dtype {dtype} measures; unset it")


def lost(device: torch.device) -> bool:
    """Whether a GPU only repeats an error that some kernel made: its context is gone, for all that this process does.

    Out of memory, and what an operation refuses before it runs, leave it as it was.
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
"""What has a precision of fp32 of its own."""


@contextmanager
def arithmetic(dtype: str, threads: int | None) -> Iterator[int]:
    """Set how fp32 matmuls are computed and with how many CPU threads; give both back at the end.

    Args:
        dtype: ``tf32`` rounds matmuls to TF32, everything else computes them in full fp32.
        threads: CPU threads of one operation; None leaves them.

    Yields:
        The number of threads in use.
    """
    # Some versions announce another interface for the same settings at every use of this one.
    warnings.filterwarnings("ignore", message="Please use the new API settings to control TF32")
    before, number = [(holder, holder.fp32_precision) for holder in (*_ON_GPU, *_ON_CPU)], torch.get_num_threads()
    legacy = _legacy_precision()
    torch.set_float32_matmul_precision("high" if dtype == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = dtype == "tf32"
    for holder in _ON_CPU:
        holder.fp32_precision = "ieee"  # on a CPU the older interface says nothing of convolutions
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
    """What the older of two interfaces says; None where the younger one has been used in another sense."""
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:
        return None
