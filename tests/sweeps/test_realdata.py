"""The whole path on real weights and real images: counts of the default ToMe that were established independently.

Needs ``../shared/realdata`` beside the checkout; its README has the table.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tomebench.measure import budget, speed
from tomebench.sweeps import run
from tomebench.sweeps.config import load_config
from tomebench.sweeps.events import Finished

REALDATA = Path(__file__).parents[3] / "shared" / "realdata"
CHECKPOINT = REALDATA / "deit_tiny_patch16_224.safetensors"
R = range(0, 25, 2)
CORRECT = {
    "imagenet-val-300": (250, 251, 250, 250, 248, 248, 243, 238, 235, 223, 214, 188, 158),
    "imagenet-sample-100": (74, 73, 72, 71, 73, 74, 72, 73, 70, 67, 63, 57, 50),
}


@pytest.mark.realdata
@pytest.mark.skipif(not CHECKPOINT.exists(), reason=f"needs {REALDATA.name} beside the checkout")
@pytest.mark.parametrize("name", CORRECT)
def test_counts_of_every_r_on_real_images(name, tmp_path, monkeypatch):
    # Only accuracy is looked at: one round of one-step bursts.
    monkeypatch.setitem(budget.BUDGETS, "quick", budget.Budget("quick", 1, 100.0, 0.0))
    monkeypatch.setattr("tomebench.measure.clock.CpuClock.min_burst", 1e-6)
    monkeypatch.setattr(speed, "WINDOW", 1)
    config = load_config(
        [],
        {
            "model": "deit_tiny_patch16_224",
            "checkpoint": CHECKPOINT,
            "data": str(REALDATA / name),
            "r": "0..24:2",
            "device": "cpu",
            "batch_size": 20,
            "budget": "quick",
        },
    )
    *_, finished = run.run_sweep(config, tmp_path / "run", should_stop=lambda: False)
    assert isinstance(finished, Finished)
    assert [row.r for row in finished.rows] == list(R)
    for row, expected in zip(finished.rows, CORRECT[name], strict=True):
        assert abs(row.top1_correct - expected) <= 1, f"r={row.r}: {row.top1_correct} instead of {expected}"
    assert "of 1000 classes" in finished.rows[0].dataset
