"""Peak memory of one pass: the weights, and the most that is allocated at one time on top of them."""

from __future__ import annotations

import os
from collections.abc import Callable

import torch
from torch.autograd.profiler import profile
from torch.autograd.profiler_util import MEMORY_EVENT_NAME


def peak_bytes(step: Callable[[], object], device: torch.device, params_bytes: int) -> int | None:
    """Peak memory of one call of ``step``, in bytes: ``params_bytes`` plus the most it has allocated at one time.

    Memory allocated before the call, such as the input images, does not count, so that CPU and CUDA agree and the
    number of input batches does not matter. ``step`` runs twice: the first call fills caches, and its errors, such as
    out of memory, are raised.

    Returns:
        Bytes; None on a device whose allocations cannot be watched.
    """
    step()
    if device.type == "cuda":
        return params_bytes + _cuda_peak(step, device)
    if device.type == "cpu":
        return params_bytes + _cpu_peak(step)
    return None


def device_bytes(step: Callable[[], object], device: torch.device) -> int | None:
    """Bytes in use on a GPU after ``step`` has run, which decide whether a larger batch would fit.

    They include the allocator's cache that this step needs, the pools of CUDA graphs, workspaces of libraries, the
    context of this process, and the memory of other processes. None on another device.
    """
    if device.type != "cuda":
        return None
    torch.cuda.synchronize(device)
    torch.cuda.empty_cache()
    step()
    torch.cuda.synchronize(device)
    free, total = torch.cuda.mem_get_info(device)
    return total - free


def driver_allocations(device: torch.device) -> int:
    """How often PyTorch's allocator has asked a GPU's driver for memory so far, or emptied its cache for lack of it.

    0 on another device.
    """
    if device.type != "cuda":
        return 0
    stats = torch.cuda.memory_stats(device)
    return int(stats.get("num_device_alloc", 0) + stats.get("num_alloc_retries", 0))


def _cuda_peak(step: Callable[[], object], device: torch.device) -> int:
    """Peak above the memory allocated before; cuBLAS workspaces are freed first, so that they count for every pass."""
    torch.cuda.synchronize(device)
    if clear := getattr(torch._C, "_cuda_clearCublasWorkspaces", None):
        clear()
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    step()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before


def _cpu_peak(step: Callable[[], object]) -> int:
    """Peak from the allocations and releases of PyTorch's CPU allocator, added up in order of time."""
    # Read by torch's profiler when it starts; it writes to stderr otherwise.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    with profile(profile_memory=True, use_kineto=True) as profiler:
        step()
    # The profiler's own tables assign most allocations to the operators that made them and lose their time. The raw
    # events have it; torch.profiler would also build the tables, which takes longer than the pass.
    assert profiler.kineto_results is not None
    changes = sorted(
        (event.start_ns(), event.nbytes())
        for event in profiler.kineto_results.events()
        if event.name() == MEMORY_EVENT_NAME
    )
    current = peak = 0
    for _, change in changes:
        current += change
        peak = max(peak, current)
    return peak
