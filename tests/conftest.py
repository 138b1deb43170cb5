"""Settings every test shares."""

from __future__ import annotations

import os

from hypothesis import settings

# Workers side by side: as many threads as there are cores in each of them would wait for each other.
if "PYTEST_XDIST_WORKER" in os.environ:
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = "1"

# No deadline: the first call of a torch operation loads code and can take a hundred times as long as the next.
settings.register_profile("tomebench", deadline=None)
settings.load_profile("tomebench")
