"""Estimate seconds of a sweep: its MACs at the rate that a matmul of typical shape reaches on the device."""

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
    """Multiply-accumulates per second of a matmul, measured in a fraction of a second."""
    rows, inner, columns = _SHAPE
    drawn = torch.Generator(device).manual_seed(0)  # does not change the caller's random state
    a = torch.randn(rows, inner, device=device, dtype=dtype, generator=drawn)
    b = torch.randn(inner, columns, device=device, dtype=dtype, generator=drawn)
    _wait(device, a @ b)
    start, products, seconds = time.perf_counter(), 0, 0.0
    while not products or seconds < _PROBE_SECONDS:  # one at least, even if the process got no CPU meanwhile
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
    marked: int = 0,
    beside: Sequence[float] = (),
) -> float:
    """Estimated seconds of warm-up, the least number of rounds, and the evaluation of the images.

    A noisy machine needs more rounds; decoding and compiling are not counted.

    Args:
        gmacs: 1e9 multiply-accumulates per image of every cell, the baseline first.
        batch_size: images per step.
        images: number of images to evaluate, 0 for none.
        rate: multiply-accumulates per second, see :func:`macs_per_second`.
        budget: gives the number of rounds.
        device_type: cpu or cuda; decides the least length of a burst.
        training: passes are training steps, which cost three forward passes.
        ceilings: every cell but the baseline is timed with its ceiling.
        processes: number of fresh processes that time all cells.
        marked: further passes of every cell but the baseline.
        beside: as ``gmacs``, of what else is timed in every round.
    """
    # R = 0 twice more, as the sentinel and the unwrapped model.
    timed = [*gmacs, gmacs[0], gmacs[0], *(gmacs[1:] if ceilings else ()), *beside]
    passes = batch_size * (3 if training else 1)
    bursts = [max(g * 1e9 * passes / rate, MIN_BURST[device_type]) for g in timed]
    rounds = processes * (WARM_UP_BURSTS + share_of(budget, processes).min_rounds) if budget.min_rounds else 0
    marks = marked * sum(gmacs[1:]) * 1e9 * passes / rate
    return marks + sum(bursts) * rounds + images * sum(gmacs) * 1e9 / rate


def _wait(device: torch.device, result: torch.Tensor) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    del result
