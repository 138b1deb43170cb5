"""The time estimate: arithmetic on MACs, and a probe that a real device answers."""

from __future__ import annotations

import pytest
import torch

from tomebench.measure import estimate
from tomebench.measure.estimate import macs_per_second, sweep_seconds
from tomebench.runs.budget import Budget

BUDGET = Budget("test", min_rounds=7, half_width=0.02, cap_seconds=60)


def test_steps_longer_than_a_burst_count_by_their_macs():
    # 2 GMAC and 1 GMAC cells, sentinel and unwrapped at 2: 7e9 MACs an image, 4 images a step, 1e9 a second.
    assert sweep_seconds([2.0, 1.0], 4, 0, 1e9, BUDGET, "cpu") == pytest.approx(7 * 4 * (3 + 7))


def test_short_steps_count_as_a_burst_each():
    assert sweep_seconds([1e-6, 1e-6], 1, 0, 1e12, BUDGET, "cpu") == pytest.approx(4 * 0.1 * 10)
    assert sweep_seconds([1e-6, 1e-6], 1, 0, 1e12, BUDGET, "cuda") == pytest.approx(4 * 0.25 * 10)


def test_images_are_run_once_through_every_cell():
    without = sweep_seconds([2.0, 1.0], 4, 0, 1e9, BUDGET, "cpu")
    assert sweep_seconds([2.0, 1.0], 4, 100, 1e9, BUDGET, "cpu") - without == pytest.approx(300)


@pytest.mark.parametrize(
    ("looks", "products"),
    [
        ([10.0, 10.25, 10.5, 11.0], 3),
        ([10.0, 15.0], 1),  # the process was not on a CPU for longer than the probe takes
    ],
)
def test_the_probe_gives_the_rate_of_what_it_computed(monkeypatch, looks, products):
    monkeypatch.setattr(estimate, "_PROBE_SECONDS", 1.0)
    monkeypatch.setattr(estimate, "_SHAPE", (2, 3, 5))
    monkeypatch.setattr(estimate.time, "perf_counter", iter(looks).__next__)
    rate = macs_per_second(torch.device("cpu"), torch.float32)
    assert rate == pytest.approx(products * 2 * 3 * 5 / (looks[-1] - looks[0]))
