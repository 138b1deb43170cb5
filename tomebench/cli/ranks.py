"""Which of several processes this is, without importing torch: only rank 0 talks."""

from __future__ import annotations

import os


def rank() -> int:
    """The rank that torchrun gave this process; 0 for one that is alone."""
    given = [os.environ.get(name, "") for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")]
    # As tomebench.sweeps.ranks.Place has it.
    if "MASTER_ADDR" not in os.environ or not all(map(str.isdecimal, given)) or int(given[1]) < 2:
        return 0
    return int(given[0])
