"""Contexts for tests of methods: random tokens, queries, keys and values."""

from __future__ import annotations

from collections.abc import Callable

import torch
from hypothesis import strategies as st
from reduction.learned_files import random_predictors

from tomebench.reduction.constants import Constants
from tomebench.reduction.method import Context, Heads
from tomebench.reduction.schedule import half_of_patches


def make_context(
    n: int,
    prefix: int,
    r: int,
    *,
    batch: int = 2,
    heads: int = 3,
    d: int = 4,
    seed: int = 0,
    sized: bool = False,
    layer: int = 0,
    dtype: torch.dtype = torch.float64,
    learned: bool = False,
) -> Context:
    """n tokens of which ``prefix`` are prefix; with ``sized`` they stand for one to four patches each.

    With ``learned`` there are random predictors before the next block.
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)

    size = torch.randint(1, 5, (batch, n), generator=generator).float() if sized else None
    three = Heads(*(normal(batch, heads, n, d) for _ in range(3)))
    x, x_pre, before_mlp = (normal(batch, n, heads * d) for _ in range(3))
    module = random_predictors([layer + 1], heads * d, seed).to(dtype) if learned else None
    return Context(
        x, x_pre, three, size, size, r, prefix, layer, layer + 1, Constants(), prefix > 0, before_mlp, module
    )


@st.composite
def contexts(draw: st.DrawFn, cap: Callable[[int, int], int] = half_of_patches, learned: bool = False) -> Context:
    """2 to 14 tokens, up to three of them prefix, and any r up to the cap of a method."""
    n = draw(st.integers(2, 14))
    prefix = draw(st.integers(0, min(n - 2, 3)))
    r = draw(st.integers(1, cap(n, prefix)))
    seed, sized, layer = draw(st.integers(0, 2**32)), draw(st.booleans()), draw(st.integers(0, 3))
    return make_context(n, prefix, r, seed=seed, sized=sized, layer=layer, learned=learned)
