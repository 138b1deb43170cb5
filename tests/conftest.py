"""Settings every test shares."""

from __future__ import annotations

import os
import sys

import pytest
from hypothesis import settings

# Workers side by side: as many threads as there are cores in each of them would wait for each other.
if "PYTEST_XDIST_WORKER" in os.environ:
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = "1"

# No deadline: the first call of a torch operation loads code and can take a hundred times as long as the next.
settings.register_profile("tomebench", deadline=None)
settings.load_profile("tomebench")


@pytest.fixture(autouse=True)
def _short_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    """How long a sweep will take is said before it; of interest in few tests, and a fifth of a second in hundreds."""
    if module := sys.modules.get("tomebench.measure.estimate"):
        monkeypatch.setattr(module, "_PROBE_SECONDS", 0.001)
        monkeypatch.setattr(module, "_SHAPE", (64, 64, 64))


@pytest.fixture(params=[pytest.param("cuda", marks=pytest.mark.gpu), pytest.param("cpu", id="cpu_twin")])
def accelerator(request: pytest.FixtureRequest) -> str:
    """Name of the device of a test that is about CUDA and makes sense on a CPU as well: its rehearsal there."""
    import torch

    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return request.param
