"""What measuring costs beside what is measured, on the real clock with a model that does nothing."""

from __future__ import annotations

import time

import pytest
import torch
from torch import nn

from tomebench.measure.clock import CpuClock
from tomebench.measure.machine import MachineGauges
from tomebench.measure.speed import Variant, time_round, warm_up
from tomebench.schema import SENTINEL, UNWRAPPED
from tomebench.sweeps.failures import guarded
from tomebench.sweeps.passes import rotating, without_gradients

pytestmark = pytest.mark.bench

LIMIT = 0.005
"""Of the time of a burst."""
TRIES = 8
"""The quietest of so many counts: another process can only add."""


def empty_step() -> object:
    """A step as a sweep makes it, around a model that returns its input."""
    inputs = [torch.zeros(1, 3, 8, 8) for _ in range(4)]
    return rotating(guarded("r0", without_gradients(nn.Identity())), inputs, keep=lambda batch, output: None)


def test_between_bursts_next_to_nothing_is_lost() -> None:
    clock, gauges = CpuClock(), MachineGauges(torch.device("cpu"))
    variants = [Variant(name, empty_step()) for name in ("r0", "r8", SENTINEL, UNWRAPPED)]  # type: ignore[arg-type]
    steps = warm_up(variants, "r0", clock).steps
    shares = []
    for seed in range(TRIES):
        start = time.perf_counter()
        done = time_round(variants, steps, clock, session=1, seed=seed, gauges=gauges)
        whole = time.perf_counter() - start
        bursts = sum(burst.seconds for burst in done.bursts)
        shares.append((whole - bursts) / bursts)
    assert min(shares) <= LIMIT, shares


def test_in_a_burst_the_clock_costs_next_to_nothing() -> None:
    clock = CpuClock()
    fixed = min(clock.burst(lambda: None, 1) for _ in range(100 * TRIES))
    assert fixed <= LIMIT * clock.min_burst, fixed


def test_the_way_to_the_model_costs_next_to_nothing_of_the_smallest_pass_there_is() -> None:
    """Of the demo model at batch size 1, that is: no ViT that anybody times is smaller."""
    from tomebench.models.create import load_model

    clock = CpuClock()
    model = load_model("digits_vit", pretrained=False).model.eval()
    images = torch.zeros(1, 3, 56, 56)
    empty = empty_step()
    run = without_gradients(model)
    run(images)
    way = min(clock.burst(empty, 100) / 100 for _ in range(10 * TRIES))  # type: ignore[arg-type]
    smallest = min(clock.burst(lambda: run(images), 1) for _ in range(10 * TRIES))
    assert way <= LIMIT * smallest, (way, smallest)
