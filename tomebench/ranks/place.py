"""Which of the processes that share a sweep this one is."""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Place:
    """Which of the processes this one is."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0  # among those on this machine
    local_size: int = 1

    @classmethod
    def here(cls) -> Place:
        """As torchrun says it in the environment; alone without it."""
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
        given = [os.environ.get(name, "") for name in names]
        if "MASTER_ADDR" not in os.environ or not all(map(str.isdecimal, given)) or int(given[1]) < 2:
            return cls()
        return cls(*map(int, given))
