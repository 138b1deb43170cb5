"""Verdicts on reproduction of top-1, GMACs and tokens, each within what printed digits and rounding allow.

Top-1 is compared as a number of images on the same images as reported, costs as they are printed. Speed depends on the
hardware, so a speed-up is shown beside the reported one and the ratio of MACs, without a verdict.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tomebench.words import counted, noun

TOLERANCE = {"fp32": 25, "half": 75}
"""Images of 50 000 by which a faithful reproduction may differ, by dtype; tf32 rounds as half precision does."""
EVALUATIONS = {"top1_imagenet1k_val": 50_000, "top1_digits": 599}
"""Number of images that reported top-1 was counted on, by ``Reported.metric``."""

Verdict = Literal["reproduced", "differs", "partial data", "not measured"]


@dataclass(frozen=True)
class Finding:
    """Verdict on one reported quantity."""

    quantity: Literal["model", "top-1", "GMACs", "tokens"]
    verdict: Verdict
    detail: str
    images: int | None = None  # number classified right here, minus the number that the reported top-1 stands for


@dataclass(frozen=True)
class Printed:
    """A number with the precision at which it was printed."""

    value: float
    step: float  # one unit of its last digit

    def __str__(self) -> str:
        return f"{self.value:.{self.decimals}f}"

    @property
    def decimals(self) -> int:
        """Number of digits after the point."""
        return max(0, round(-math.log10(self.step)))


@dataclass(frozen=True)
class Counted:
    """Number of images classified right."""

    correct: int
    seen: int
    whole: bool  # all images of the set count: none is missing, no other labels are used


def tolerance(dtype: str, images: int) -> int:
    """Number of images by which a faithful reproduction may differ: in proportion to 50 000, at least one."""
    return math.ceil(TOLERANCE["fp32" if dtype == "fp32" else "half"] * images / 50_000)


def judge_top1(reported: Printed, images: int, measured: Counted | None, dtype: str) -> Finding:
    """Compare top-1 as a number of images.

    Args:
        reported: in %, as printed; any number that rounds to it counts as equal.
        images: number of images it was counted on.
        measured: count of the run; None if it was not measured.
        dtype: of the run.
    """
    if measured is None:
        return Finding("top-1", "not measured", "top-1 was not measured")
    if measured.seen != images or not measured.whole:
        other = "" if measured.seen != images else "another list, or with other labels: "
        share = f"{other}{counted(measured.seen, 'image')}, reported on {images}"
        return Finding("top-1", "partial data", f"{share}: {100 * measured.correct / measured.seen:.2f} % right here")
    low, high = ((reported.value + half * reported.step / 2) * images / 100 for half in (-1, 1))
    off = measured.correct - reported.value * images / 100
    beyond = max(low - measured.correct, measured.correct - high, 0.0)
    limit = tolerance(dtype, images)
    right = f"{measured.correct} of {images} right"
    detail = f"{right}, {off:+.0f} {noun(abs(round(off)), 'image')} ({100 * off / images:+.2f} points)"
    if beyond <= limit + 1e-9:
        return Finding("top-1", "reproduced", f"{detail}; {limit} may differ", round(off))
    return Finding("top-1", "differs", f"{detail}, more than the {limit} that may differ", round(off))


def judge_gmacs(reported: Printed, gmacs: float, norms: float) -> Finding:
    """Compare costs at their printed precision; the paper's counter adds five operations per channel of a LayerNorm.

    Args:
        reported: as printed, with or without operations of LayerNorms.
        gmacs: multiply-accumulates of the matmuls, 1e9.
        norms: operations of all LayerNorms, 1e9.
    """
    half = 0.5001 * reported.step
    same = gmacs - half <= reported.value <= gmacs + norms + half
    detail = f"{gmacs:.{reported.decimals + 1}f} GMACs, reported {reported}"
    return Finding("GMACs", "reproduced" if same else "differs", detail)


def judge_tokens(paper: Sequence[int], planned: Sequence[int], seen: Sequence[int]) -> Finding:
    """Compare the number of tokens after every block.

    Args:
        paper: by the paper's rule.
        planned: resolved tokens of the cell.
        seen: tokens that a pass through the merged model leaves.
    """
    for name, found in (("the plan", planned), ("a pass", seen)):
        for block, (expected, here) in enumerate(zip(paper, found, strict=True), start=1):
            if expected != here:
                return Finding("tokens", "differs", f"{here} after block {block} in {name}, {expected} by the paper")
    return Finding("tokens", "reproduced", f"{counted(seen[-1], 'token')} after the last block")


SCHEDULES = ("constant", "decreasing")
"""Schedules of r over the layers that the paper has."""


def paper_tokens(tokens: int, prefix: int, r: int, schedule: str, depth: int) -> list[int]:
    """Tokens after each block by the paper's rule: at most half of the patches can go in a block.

    Args:
        tokens: before the first block, prefix included.
        prefix: tokens that stay.
        r: tokens per layer; with the decreasing schedule 2r in the first and 0 in the last, in equal steps.
        schedule: one of SCHEDULES.
        depth: blocks.
    """
    left = []
    for block in range(depth):
        wanted = r if schedule == "constant" or depth == 1 else 2 * r * (depth - 1 - block) // (depth - 1)
        tokens -= min(wanted, (tokens - prefix) // 2)
        left.append(tokens)
    return left
