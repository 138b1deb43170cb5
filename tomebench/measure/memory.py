"""Peak memory of one forward pass: the weights, and the most that is allocated at once on top of them."""

from __future__ import annotations

import os
from collections.abc import Callable

import torch
from torch.autograd.profiler import profile
from torch.autograd.profiler_util import MEMORY_EVENT_NAME


def peak_bytes(step: Callable[[], object], device: torch.device, params_bytes: int) -> int | None:
    """Peak memory of one call of ``step``, in bytes: ``params_bytes`` plus the most it has allocated at one time.

    What was allocated before the call, such as the input images, does not count, so that CPU and CUDA mean the same
    and the number of input batches kept ready does not matter. ``step`` runs twice: the first call fills caches (and
    raises whatever it raises, such as out of memory).

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
    """Bytes of a GPU that are taken when ``step`` has run: what decides whether a larger batch would fit.

    The allocator's cache as this step needs it, the pools of CUDA graphs, workspaces of libraries, the context of this
    process and whatever other processes have. None on another device.
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
    """How often PyTorch's allocator has asked a GPU's driver for memory, or emptied its cache for lack of it, so far.

    0 on another device.
    """
    if device.type != "cuda":
        return 0
    stats = torch.cuda.memory_stats(device)
    return int(stats.get("num_device_alloc", 0) + stats.get("num_alloc_retries", 0))


def _cuda_peak(step: Callable[[], object], device: torch.device) -> int:
    """Peak over what was there before, after which cuBLAS makes its workspaces anew: each pass needs them."""
    torch.cuda.synchronize(device)
    if clear := getattr(torch._C, "_cuda_clearCublasWorkspaces", None):
        clear()
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    step()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before


def _cpu_peak(step: Callable[[], object]) -> int:
    """Allocations and releases of PyTorch's CPU allocator, added up in the order of time."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # torch's profiler reads it when it starts, and talks on stderr
    with profile(profile_memory=True, use_kineto=True) as profiler:
        step()
    # The profiler's own tables give most allocations to the operators that made them and lose their time; the raw
    # events keep it, and that of torch.profiler makes the tables, which takes longer than the pass, whoever wants them.
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
