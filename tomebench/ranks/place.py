"""Rank and size of this process among those that share a sweep, from torchrun's environment variables."""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Place:
    """Rank of this process and number of processes, in all and on this machine."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0  # among those on this machine
    local_size: int = 1

    @classmethod
    def here(cls) -> Place:
        """Read the place from the environment that torchrun sets; rank 0 of 1 without it."""
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
        given = [os.environ.get(name, "") for name in names]
        if "MASTER_ADDR" not in os.environ or not all(map(str.isdecimal, given)) or int(given[1]) < 2:
            return cls()
        return cls(*map(int, given))
