"""Stairs of a latency staircase: times of one block at one number of tokens, and what they say of a whole pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from statistics import median

import numpy as np


@dataclass(frozen=True)
class Stair:
    """Times of a block at one number of tokens, in ms of a pass; one value a round."""

    tokens: int
    attention: tuple[float, ...]
    mlp: tuple[float, ...]
    sized: tuple[float, ...] = ()  # attention of tokens that have been merged; empty where it was not timed
    removal: tuple[float, ...] = ()  # choosing and removing tokens; likewise

    @cached_property
    def block(self) -> tuple[float, ...]:
        """Attention and MLP together, by round."""
        return tuple(a + m for a, m in zip(self.attention, self.mlp, strict=True))

    @cached_property
    def ms(self) -> float:
        """Median of the block."""
        return median(self.block)


class BlockTimes:
    """Time of the blocks of a pass, from the stairs of one of them; between two stairs it is interpolated.

    Args:
        stairs: ascending numbers of tokens, with times of merged tokens.
        tokens: before the first block.
        after_mlp: tokens are removed after the MLP of a block, not before it.
        prefix_only: the last block slices all but the prefix off, which takes no time.
    """

    def __init__(
        self, stairs: Sequence[Stair], tokens: int, *, after_mlp: bool = False, prefix_only: bool = False
    ) -> None:
        self._tokens, self._after_mlp, self._prefix_only = tokens, after_mlp, prefix_only
        self._counts = [each.tokens for each in stairs]
        self._attention = [median(each.attention) for each in stairs]
        self._mlp = [median(each.mlp) for each in stairs]
        self._sized = [median(each.sized) for each in stairs]
        self._removal = [median(each.removal) for each in stairs]

    def ms(self, left: Sequence[int]) -> float:
        """Time of all blocks in ms of a pass.

        Args:
            left: tokens after each block, never more than before it.
        """
        total, removed = 0.0, False
        for layer, (before, after) in enumerate(pairwise((self._tokens, *left)), start=1):
            sliced = self._prefix_only and layer == len(left)
            total += self._at(self._sized if removed else self._attention, before)
            if after < before and not sliced:
                total += self._at(self._removal, before)
                removed = True
            total += self._at(self._mlp, before if self._after_mlp and not sliced else after)
        return total

    def _at(self, times: Sequence[float], tokens: int) -> float:
        return float(np.interp(tokens, self._counts, times))
