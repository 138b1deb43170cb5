"""A latency staircase in words, as a table and as a figure."""

from __future__ import annotations

import io
from collections.abc import Sequence
from itertools import pairwise
from statistics import median

import numpy as np

from tomebench.extras import is_installed
from tomebench.report.figures import COLOURS, DPI, GREY, new_axes, plain, short
from tomebench.runs.stairs import Stair
from tomebench.stats import LEVEL
from tomebench.stats.counts import binomial_cdf
from tomebench.words import counted

MOST = 5
"""Steps that are named."""


def quartiles(each: Stair) -> tuple[float, float]:
    """Ends of the middle half of the rounds of a block."""
    low, high = np.percentile(each.block, (25, 75))
    return float(low), float(high)


def _surely_slower(one: Stair, other: Stair, comparisons: int) -> bool:
    """Whether one takes longer in so many rounds that none of as many comparisons would by chance: a sign test at 5 %.

    Rounds are paired, since a machine that slows down slows both.
    """
    not_longer = sum(a <= b for a, b in zip(one.block, other.block, strict=True))
    return binomial_cdf(not_longer, len(one.block), 0.5) * comparisons <= 1 - LEVEL


def steps(found: Sequence[Stair]) -> list[tuple[Stair, Stair]]:
    """Neighbours between which a block becomes much slower than by its tokens: the largest jumps, by their size.

    A jump counts where it surely is one, and is at least three times what as many tokens cost on average.
    """
    if len(found) < 3:
        return []
    slope = (found[-1].ms - found[0].ms) / (found[-1].tokens - found[0].tokens)
    jumps = [
        (low, high)
        for low, high in pairwise(found)
        if _surely_slower(high, low, len(found) - 1) and high.ms - low.ms > 3 * slope * (high.tokens - low.tokens)
    ]
    return sorted(jumps, key=lambda pair: pair[0].ms - pair[1].ms)[:MOST]


def slower_with_fewer(found: Sequence[Stair]) -> list[tuple[Stair, Stair]]:
    """Numbers of tokens at which a block surely takes longer than at a larger number, each with the fastest such."""
    slower, pairs = [], len(found) * (len(found) - 1) // 2
    for at, each in enumerate(found):
        more = [other for other in found[at + 1 :] if _surely_slower(each, other, pairs)]
        if more:
            slower.append((each, min(more, key=lambda other: other.ms)))
    return slower


def sentence(found: Sequence[Stair]) -> str:
    """What the staircase looks like."""
    last, first = found[-1], found[0]
    middle = min(found, key=lambda each: abs(each.tokens - last.tokens / 2))
    text = f"A block takes {last.ms:.3g} ms at {counted(last.tokens, 'token')}, {middle.ms:.3g} at {middle.tokens}"
    text += f" and {first.ms:.3g} at {first.tokens}"
    jumps = steps(found)
    if not jumps:
        return f"{text}; no step between neighbours stands out"
    said = ", ".join(f"{high.tokens} to {low.tokens} (-{100 * (1 - low.ms / high.ms):.0f} %)" for low, high in jumps)
    return f"{text}; the largest steps, in tokens: {said}"


def warning(found: Sequence[Stair]) -> str | None:
    """Where fewer tokens surely take longer; None where they do nowhere."""
    slower = slower_with_fewer(found)
    if not slower:
        return None
    each, other = max(slower, key=lambda pair: pair[0].ms / pair[1].ms)
    more = f"at {len(slower)} of {len(found)} numbers of tokens a block surely takes longer than at a larger one"
    return f"{more}: {each.ms:.3g} ms at {each.tokens}, {other.ms:.3g} at {other.tokens}"


def figure(title: str, found: Sequence[Stair]) -> bytes | str:
    """Draw a staircase: the block with the range of its rounds, its attention and its MLP.

    Returns:
        The PNG, or one line with the reason why there is no figure.
    """
    if not is_installed("matplotlib"):
        return "no figure: matplotlib is not installed; install it with: pip install 'tomebench[report]'"
    drawing, axes = new_axes(bottom=0.13)
    x = [each.tokens for each in found]
    low, high = zip(*(quartiles(each) for each in found), strict=True)
    axes.fill_between(x, low, high, color=COLOURS[0], alpha=0.2, linewidth=0)
    for number, (name, values) in enumerate(
        (
            ("block", [each.ms for each in found]),
            ("attention", [median(each.attention) for each in found]),
            ("MLP", [median(each.mlp) for each in found]),
        )
    ):
        axes.step(x, values, where="mid", color=COLOURS[number], linewidth=1.2, label=name)
    axes.set_xlabel("tokens")
    axes.set_ylabel("ms of a block")
    axes.set_ylim(bottom=0)
    axes.set_title(short(plain(title), 95), fontsize=11, loc="left")
    axes.legend(loc="upper left", fontsize=8, frameon=False)
    drawing.text(0.012, 0.02, "medians over rounds; shaded: the middle half of them", fontsize=6.2, color=GREY)
    file = io.BytesIO()
    drawing.savefig(file, format="png", dpi=DPI, metadata={"Software": None})
    return file.getvalue()
