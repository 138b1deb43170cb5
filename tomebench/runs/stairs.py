"""Stairs of a latency staircase: times of one block at one number of tokens."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from statistics import median


@dataclass(frozen=True)
class Stair:
    """Times of a block at one number of tokens, in ms of a pass; one value a round."""

    tokens: int
    attention: tuple[float, ...]
    mlp: tuple[float, ...]

    @cached_property
    def block(self) -> tuple[float, ...]:
        """Attention and MLP together, by round."""
        return tuple(a + m for a, m in zip(self.attention, self.mlp, strict=True))

    @cached_property
    def ms(self) -> float:
        """Median of the block."""
        return median(self.block)
