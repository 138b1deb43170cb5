"""Probe the batch size: the largest power of two whose pass fits in memory, found by trying."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping

import torch

from tomebench.errors import DeviceError

# Texts of plain RuntimeErrors by which allocators and libraries say that memory ran out.
_OOM_TEXTS = ("out of memory", "can't allocate memory", "not enough memory", "alloc_failed")

AUTO_BATCH_CAP: Mapping[str, int] = {"cpu": 32, "cuda": 256}
"""Largest batch that "auto" tries, by type of device: larger ones gain no throughput worth the memory."""
CPU_GMACS = 64.0
"""Work in a batch that "auto" takes on a CPU, in 1e9 multiply-accumulates: about a second of two cores. Larger ones
run no faster per image there, and make every round of a sweep longer.
"""


def auto_batch_cap(device_type: str, gmacs: float) -> int:
    """Largest batch that "auto" tries; computed from shapes, so that every machine of a type tries the same.

    Args:
        device_type: cpu or cuda.
        gmacs: 1e9 multiply-accumulates of one image at r = 0.
    """
    if device_type != "cpu":
        return AUTO_BATCH_CAP[device_type]
    fitting = max(1, int(CPU_GMACS / gmacs))
    return min(AUTO_BATCH_CAP["cpu"], max(2, 1 << (fitting.bit_length() - 1)))  # 1 would time latency instead


def is_oom(exc: BaseException) -> bool:
    """Whether an exception means that memory ran out, on the host or on the device."""
    if isinstance(exc, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(exc, RuntimeError) and any(text in str(exc).lower() for text in _OOM_TEXTS)


def auto_batch_size(make_step: Callable[[int], Callable[[], object]], cap: int) -> int:
    """Largest power of two, at most ``cap``, for which a step runs; tried from the top, halving.

    Args:
        make_step: batch size -> a callable that runs one batch and waits for its end, normally at r = 0, which needs
            most memory.
        cap: >= 1.

    Raises:
        DeviceError: not even one image fits.
        Exception: whatever else a step raises, at once; only running out of memory is tried again.
    """
    if cap < 1:
        raise ValueError(f"cap must be at least 1, got {cap}")
    size = 1 << (cap.bit_length() - 1)
    while not _fits(make_step, size):
        # Outside the handler the frames that hold the failed attempt's tensors are gone.
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if size == 1:
            raise DeviceError("out of memory with a single image; use a smaller model, image size or dtype")
        size //= 2
    return size


def _fits(make_step: Callable[[int], Callable[[], object]], size: int) -> bool:
    try:
        make_step(size)()
    except (RuntimeError, MemoryError) as exc:
        if not is_oom(exc):
            raise
        return False
    return True
