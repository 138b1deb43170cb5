"""Which device and which arithmetic: every choice is explicit, and one that this machine lacks is refused."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from tomebench.errors import DeviceError

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
            raise DeviceError(f"device {name!r} is not available: there are {count}, numbered from 0")
    if dtype not in DTYPES:
        raise DeviceError(f"unknown dtype {dtype!r}; use {', '.join(DTYPES)}")
    if dtype == "tf32" and (kind == "cpu" or torch.cuda.get_device_capability(name) < (8, 0)):
        raise DeviceError(
            f"dtype tf32 needs a CUDA GPU of compute capability 8.0 or newer, not {name}; use --dtype fp32"
        )
    if dtype == "bf16" and kind == "cuda" and not torch.cuda.is_bf16_supported():
        raise DeviceError(f"{name} has no bf16; use --dtype fp16")
    return torch.device(name)


def use_precision(dtype: str) -> None:
    """Set how fp32 matmuls are computed: TF32 for ``tf32``, full fp32 for everything else."""
    torch.set_float32_matmul_precision("high" if dtype == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = dtype == "tf32"


def use_threads(threads: int | None) -> int:
    """Set the number of CPU threads of one operation, if given; returns the number in use."""
    if threads is not None:
        torch.set_num_threads(threads)
    return torch.get_num_threads()
