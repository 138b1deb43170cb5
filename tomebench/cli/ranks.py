"""Which of several processes this is, without importing torch: only rank 0 talks."""

from __future__ import annotations

import os


def rank() -> int:
    """The rank that torchrun gave this process; 0 for one that is alone."""
    number = os.environ.get("RANK", "0") if "MASTER_ADDR" in os.environ else "0"
    return int(number) if number.isdigit() else 0
