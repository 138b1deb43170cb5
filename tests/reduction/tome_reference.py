"""Token merging as slowly and plainly as it can be written: Python loops over float64, one image at a time.

The oracle of the tests of matching and merging. Nothing here is shared with the package.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

Vector = Sequence[float]


def unit(row: Vector) -> list[float]:
    """A row divided by its length; a row of zeros stays one."""
    length = math.sqrt(sum(value * value for value in row))
    return [value / length if length > 0 else 0.0 for value in row]


def similarities(metric: Sequence[Vector], prefix: int) -> dict[int, dict[int, float]]:
    """Cosine similarity of every free token in A (even positions) with every free token in B (odd positions)."""
    rows = [unit(row) for row in metric]
    free = range(prefix, len(rows))
    return {
        i: {j: sum(a * b for a, b in zip(rows[i], rows[j], strict=True)) for j in free if j % 2 == 1}
        for i in free
        if i % 2 == 0
    }


def match(metric: Sequence[Vector], r: int, prefix: int) -> list[list[int]]:
    """Groups of tokens in the order of the output; the first of each group is the token that stays.

    Args:
        metric: N rows of d numbers.
        r: tokens to remove; at most half of the tokens that are not prefix tokens are.
        prefix: tokens at the front that never move and are never merged into.
    """
    n = len(metric)
    r = min(r, (n - prefix) // 2)
    if r == 0:
        return [[token] for token in range(n)]
    best: dict[int, tuple[float, int]] = {}  # free token in A -> (highest similarity, where it is found first)
    for i, scores in similarities(metric, prefix).items():
        for j in sorted(scores):
            if i not in best or scores[j] > best[i][0]:
                best[i] = (scores[j], j)
    movers = sorted(best, key=lambda i: (-best[i][0], i))[:r]
    rest_of_a = [i for i in sorted(best) if i not in movers]
    all_of_b = [j for j in range(prefix, n) if j % 2 == 1]
    groups = {token: [token] for token in [*range(prefix), *rest_of_a, *all_of_b]}
    for i in sorted(movers):
        groups[best[i][1]].append(i)
    return list(groups.values())


def merge(groups: Sequence[Sequence[int]], x: Sequence[Vector], size: Vector) -> tuple[list[list[float]], list[float]]:
    """Size-weighted mean and sum of sizes of every group: N rows of C numbers -> one row for each group."""
    rows, sizes = [], []
    for group in groups:
        total = sum(size[token] for token in group)
        rows.append([sum(size[t] * x[t][c] for t in group) / total for c in range(len(x[0]))])
        sizes.append(total)
    return rows, sizes
