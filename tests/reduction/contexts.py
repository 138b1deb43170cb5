"""Contexts for tests of methods: random tokens, queries, keys and values."""

from __future__ import annotations

import torch

from tomebench.reduction.constants import Constants
from tomebench.reduction.method import Context, Heads


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
) -> Context:
    """n tokens of which ``prefix`` are prefix; with ``sized`` they stand for one to four patches each."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)

    size = torch.randint(1, 5, (batch, n), generator=generator).float() if sized else None
    three = Heads(*(normal(batch, heads, n, d) for _ in range(3)))
    x, x_pre = normal(batch, n, heads * d), normal(batch, n, heads * d)
    return Context(x, x_pre, three, size, size, r, prefix, layer, layer + 1, Constants())
