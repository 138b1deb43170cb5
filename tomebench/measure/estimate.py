"""How long a sweep will take, roughly: its MACs at the rate that a matmul of typical shape reaches on the device."""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch

from tomebench.measure.clock import MIN_BURST
from tomebench.measure.speed import WARM_UP_BURSTS
from tomebench.runs.budget import Budget, share_of

_SHAPE = (1576, 768, 3072)  # 8 images of 197 tokens through the first MLP layer of a ViT-B
_PROBE_SECONDS = 0.2


def macs_per_second(device: torch.device, dtype: torch.dtype) -> float:
    """Multiply-accumulates per second of a matmul; takes a fraction of a second."""
    rows, inner, columns = _SHAPE
    drawn = torch.Generator(device).manual_seed(0)  # the caller's random state is left alone
    a = torch.randn(rows, inner, device=device, dtype=dtype, generator=drawn)
    b = torch.randn(inner, columns, device=device, dtype=dtype, generator=drawn)
    _wait(device, a @ b)
    start, products, seconds = time.perf_counter(), 0, 0.0
    while not products or seconds < _PROBE_SECONDS:  # one at least, however long the process was not on a CPU
        _wait(device, a @ b)
        products, seconds = products + 1, time.perf_counter() - start
    return products * rows * inner * columns / seconds


def sweep_seconds(
    gmacs: Sequence[float],
    batch_size: int,
    images: int,
    rate: float,
    budget: Budget,
    device_type: str,
    *,
    training: bool = False,
    ceilings: bool = False,
    processes: int = 1,
) -> float:
    """Seconds that warm-up, the least number of rounds and one pass over the images take.

    A machine that is not quiet needs more rounds; decoding images and compiling are not counted.

    Args:
        gmacs: 1e9 multiply-accumulates per image of every cell, the baseline first.
        batch_size: images per step.
        images: images to evaluate, 0 for none.
        rate: multiply-accumulates per second, see :func:`macs_per_second`.
        budget: gives the number of rounds.
        device_type: cpu or cuda; decides the least length of a burst.
        training: steps cost three passes.
        ceilings: every cell but the baseline is timed with its slicing ceiling.
        processes: fresh processes in which all is timed.
    """
    timed = [*gmacs, gmacs[0], gmacs[0], *(gmacs[1:] if ceilings else ())]  # the sentinel and the unwrapped model
    passes = batch_size * (3 if training else 1)
    bursts = [max(g * 1e9 * passes / rate, MIN_BURST[device_type]) for g in timed]
    rounds = processes * (WARM_UP_BURSTS + share_of(budget, processes).min_rounds) if budget.min_rounds else 0
    return sum(bursts) * rounds + images * sum(gmacs) * 1e9 / rate


def _wait(device: torch.device, result: torch.Tensor) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    del result
