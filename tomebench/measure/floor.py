"""The floor of each part of a pass: its MACs and bytes at the best rates measured on this machine.

A floor is max(MACs / MAC rate, bytes / memory bandwidth). Bytes are the least that a part moves when it runs by itself:
its tokens in and out, and its weights once. The parts of a small batch may find their tokens in a cache, which is
faster than memory, and then take less time than a floor that is bound by bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch

from tomebench.measure.clock import Clock
from tomebench.measure.stages import IN_BLOCKS, PARTS, Part, PassTimes
from tomebench.reduction.macs import MacTerms
from tomebench.reduction.method import Method

Bound = Literal["MACs", "bytes"]

_MATMUL: Mapping[str, tuple[int, int, int]] = {
    "cpu": (1576, 768, 3072),  # 8 images of 197 tokens through the first MLP layer of a ViT-B
    "cuda": (8192, 4096, 4096),  # enough to fill any GPU
}
"""Rows, inner dimension and columns of the product that measures the MAC rate, by type of device."""
_COPY_BYTES = 256 * 2**20  # far larger than any cache
_STEPS: Mapping[str, int] = {"cpu": 1, "cuda": 20}  # a GPU ends one before the host has issued the next
_BURSTS = 5
_INDEX = 8  # bytes of an int64, of which plans consist


@dataclass(frozen=True)
class Rates:
    """Best rates of the machine."""

    macs: float  # multiply-accumulates per second
    bytes: float  # bytes read or written per second

    def or_better(self, other: Rates) -> Rates:
        """The higher value of each rate."""
        return Rates(max(self.macs, other.macs), max(self.bytes, other.bytes))


@dataclass(frozen=True)
class Work:
    """Work of a part in one pass of a batch."""

    macs: float
    bytes: float

    def floor_ms(self, rates: Rates) -> float:
        """Floor of this work in ms, >= 0."""
        return 1e3 * max(self.macs / rates.macs, self.bytes / rates.bytes)

    def bound_by(self, rates: Rates) -> Bound:
        """Which of the two, MACs or bytes, takes longer at these rates."""
        return "MACs" if self.macs / rates.macs > self.bytes / rates.bytes else "bytes"


@dataclass(frozen=True)
class PassShape:
    """Shapes that the work of a pass depends on, besides the MACs of its model."""

    batch: int
    image: int  # values in an image, 3 · H · W
    tokens_in: int  # N before the first block, prefix included
    tokens: tuple[int, ...]  # N after each block
    merged: tuple[int, ...]  # tokens that each block matches and merges; tokens sliced off do not count
    pooled: int  # tokens that the classification head reads
    width: int  # C
    itemsize: int  # bytes of a value of weights and tokens
    params: int  # of the whole model
    method: Method  # the merging method, for its cost of matching


def pass_work(terms: MacTerms, shape: PassShape) -> dict[Part, Work]:
    """Work of every part, summed over the blocks.

    Of a block with n tokens before and n' after it that merges r, with B images, tokens of C values of e bytes and
    keys of K values (all heads together), and weights W:

    ========== ======================== ===================================================================
    part       MACs                     bytes
    ========== ======================== ===================================================================
    attention  B (W n + 2 K n²)         e (2 B n C + W), and where r > 0 the keys e B n K
    matching   B · cost of the method   e B n K for the keys, 8 B (n' + 2 r) for the plan; none where r = 0
    merging    none to speak of         e B (n + n') C and the plan; none where r = 0
    mlp        B W n'                   e (2 B n' C + W)
    rest       B (embedding + head)     e B (image + N C + C · tokens that the head reads) + e · other weights
    ========== ======================== ===================================================================

    Sizes, biases and logits are too few to count; weights of no matmul in a block count as ``rest``.
    """
    batch, item = shape.batch, shape.itemsize
    token = item * shape.width * batch  # bytes of one token of every image
    macs: dict[Part, float] = dict.fromkeys(("attention", "matching", "merging", "mlp"), 0.0)
    moved: dict[Part, float] = dict(macs)
    weights = 0
    before = (shape.tokens_in, *shape.tokens[:-1])
    for block, n, left, r in zip(terms.blocks, before, shape.tokens, shape.merged, strict=True):
        keys = item * batch * n * block.attention_per_pair // 2
        macs["attention"] += batch * (block.attention_per_token * n + block.attention_per_pair * n**2)
        moved["attention"] += 2 * token * n + item * block.attention_per_token
        macs["mlp"] += batch * block.mlp_per_token * left
        moved["mlp"] += 2 * token * left + item * block.mlp_per_token
        weights += block.attention_per_token + block.mlp_per_token
        if r > 0:
            plan = _INDEX * batch * (left + 2 * r)
            moved["attention"] += keys
            choosing = shape.method.cost(n, r, terms.size(block))
            macs["matching"] += batch * choosing
            moved["matching"] += (keys if choosing else 0) + plan
            moved["merging"] += token * (n + left) + plan
    work = {part: Work(macs[part], moved[part]) for part in macs}
    work["rest"] = Work(
        batch * (terms.embed + terms.head + terms.pool_per_token * shape.tokens[-1]),
        item * (batch * shape.image + shape.params - weights) + token * (shape.tokens_in + shape.pooled),
    )
    return work


@dataclass(frozen=True)
class PartProfile:
    """Time of a part of a pass, next to its floor; averaged over all blocks, those that merge nothing included."""

    part: Part
    ms: float  # per pass; 0 where the stage did not run
    ms_per_block: float | None  # None for parts outside the blocks
    percent_of_pass: float
    percent_of_block: float | None
    macs: float  # of the batch
    bytes: float  # least bytes moved
    floor_ms: float
    over_floor: float | None  # ms / floor_ms; None where the floor is 0
    bound_by: Bound | None
    ceiling_ms: float | None  # of the ceiling; None where nothing is merged


def part_profiles(
    times: PassTimes, ceiling: PassTimes | None, work: Mapping[Part, Work], rates: Rates, depth: int
) -> tuple[PartProfile, ...]:
    """Every part's time next to its floor, in the order of ``PARTS``.

    Args:
        times: of the model.
        ceiling: of its ceiling; None where nothing is merged.
        work: of the model, see :func:`pass_work`.
        rates: of the machine.
        depth: number of blocks.
    """
    profiles = []
    for part in PARTS:
        ms, floor, in_block = times.parts[part], work[part].floor_ms(rates), part in IN_BLOCKS
        profiles.append(
            PartProfile(
                part=part,
                ms=ms,
                ms_per_block=ms / depth if in_block else None,
                percent_of_pass=100 * ms / times.total,
                percent_of_block=100 * ms / times.in_blocks if in_block else None,
                macs=work[part].macs,
                bytes=work[part].bytes,
                floor_ms=floor,
                over_floor=ms / floor if floor else None,
                bound_by=work[part].bound_by(rates) if floor else None,
                ceiling_ms=ceiling.parts[part] if ceiling else None,
            )
        )
    return tuple(profiles)


@torch.no_grad()
def measure_rates(device: torch.device, dtype: torch.dtype, clock: Clock) -> Rates:
    """Measure both rates, each as the best of a few bursts, in about a second.

    MACs are those of a matrix product of a shape that suits the device. Bytes are those of a copy of a tensor far
    larger than caches, both read and written.

    Args:
        device: cpu or cuda.
        dtype: of the product.
        clock: times it.

    Raises:
        RuntimeError: out of memory.
    """
    rows, inner, columns = _MATMUL[device.type]
    steps = _STEPS[device.type]
    a = torch.randn(rows, inner, device=device).to(dtype)
    b = torch.randn(inner, columns, device=device).to(dtype)
    out = torch.empty(rows, columns, device=device, dtype=dtype)
    seconds = _best(clock, lambda: torch.mm(a, b, out=out), steps)
    source = torch.ones(_COPY_BYTES, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    copying = _best(clock, lambda: target.copy_(source), steps)
    return Rates(rows * inner * columns / seconds, 2 * _COPY_BYTES / copying)


def _best(clock: Clock, step: Callable[[], object], steps: int) -> float:
    """Seconds of a step in the fastest burst, after a first one as warm-up."""
    clock.burst(step, steps)
    return min(clock.burst(step, steps) for _ in range(_BURSTS)) / steps
