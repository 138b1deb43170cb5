"""Every choice of the paper as slowly and plainly as it can be written: Python loops over float64, one image at a time.

The oracle of the tests of options. Nothing here is shared with the package, but for which patches are drawn at random.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

Vector = Sequence[float]
Rows = Sequence[Vector]


def dot(a: Vector, b: Vector) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def metric(heads: Sequence[Rows], how: str) -> list[list[float]]:
    """[heads][N][d] -> one row for each token: the mean of the heads, or one after the other."""
    tokens = range(len(heads[0]))
    if how == "concat":
        return [[value for head in heads for value in head[token]] for token in tokens]
    return [[sum(head[t][c] for head in heads) / len(heads) for c in range(len(heads[0][0]))] for t in tokens]


def scores(rows: Rows, i: int, others: Sequence[int], distance: str) -> dict[int, float]:
    """How alike token i is to each of the others."""
    if distance == "euclidean":
        return {j: -math.dist(rows[i], rows[j]) for j in others}
    if distance == "cosine":
        lengths = [math.sqrt(dot(row, row)) or 1.0 for row in rows]
        return {j: dot(rows[i], rows[j]) / (lengths[i] * lengths[j]) for j in others}
    products = {j: dot(rows[i], rows[j]) for j in others}
    if distance == "dot":
        return products
    powers = {j: math.exp(value / math.sqrt(len(rows[i]))) for j, value in products.items()}
    return {j: value / sum(powers.values()) for j, value in powers.items()}


def bipartite(rows: Rows, r: int, prefix: int, distance: str, in_a: Sequence[int]) -> list[list[int]]:
    """Groups in the order of the output, of each the token that stays first."""
    in_b = [t for t in range(prefix, len(rows)) if t not in in_a]
    best = {}
    for i in in_a:
        found = scores(rows, i, in_b, distance)
        best[i] = max(((value, -j) for j, value in found.items()))
    movers = sorted(in_a, key=lambda i: (-best[i][0], i))[:r]
    groups = {t: [t] for t in [*range(prefix), *(i for i in in_a if i not in movers), *in_b]}
    for i in movers:
        groups[-best[i][1]].append(i)
    return list(groups.values())


def greedy(rows: Rows, r: int, prefix: int, distance: str) -> list[list[int]]:
    free, groups = list(range(prefix, len(rows))), {t: [t] for t in range(len(rows))}
    everybody = range(prefix, len(rows))
    for _ in range(r):
        pairs = [(scores(rows, i, everybody, distance)[j], -i, -j) for i in free for j in free if i < j]
        _, i, j = max(pairs)
        groups[-i].extend(groups.pop(-j))
        free = [t for t in free if t not in (-i, -j)]
    return list(groups.values())


def attention(queries: Sequence[Rows], keys: Sequence[Rows], size: Vector, of: Sequence[int]) -> list[float]:
    """What every token receives from the queries of the tokens ``of``, averaged over them and over heads."""
    n, total = len(keys[0]), [0.0] * len(keys[0])
    for q, k in zip(queries, keys, strict=True):
        for i in of:
            powers = [size[j] * math.exp(dot(q[i], k[j]) / math.sqrt(len(q[i]))) for j in range(n)]
            for j in range(n):
                total[j] += powers[j] / sum(powers) / len(of) / len(keys)
    return total


def kmeans(rows: Rows, weight: Vector, r: int, prefix: int, iterations: int) -> list[list[int]]:
    """A cluster keeps the token it started from."""
    patches = range(prefix, len(rows))
    seeds = sorted(sorted(patches, key=lambda t: (-weight[t], t))[: len(patches) - r])
    centres = [list(rows[seed]) for seed in seeds]

    def assign() -> list[list[int]]:
        clusters = [[seed] for seed in seeds]
        for t in patches:
            if t not in seeds:
                distances = [math.dist(rows[t], centre) for centre in centres]
                clusters[distances.index(min(distances))].append(t)
        return clusters

    for _ in range(iterations):
        for slot, members in enumerate(assign()):
            total = sum(weight[t] for t in members)
            centres[slot] = [sum(weight[t] * rows[t][c] for t in members) / total for c in range(len(rows[0]))]
    return [[t] for t in range(prefix)] + assign()


def prune(scores: Vector, r: int, prefix: int) -> list[list[int]]:
    """Only the patches with the highest scores stay."""
    patches = sorted(range(prefix, len(scores)), key=lambda t: (-scores[t], t))
    return [[t] for t in [*range(prefix), *sorted(patches[: len(patches) - r])]]


def combine(groups: Sequence[Sequence[int]], x: Rows, size: Vector, how: str) -> tuple[list[list[float]], list[float]]:
    """What each group becomes, and how many patches it stands for."""
    rows = []
    for group in groups:
        members = group if how != "keep" else group[:1]
        weights = [size[t] if how == "weighted" else 1.0 for t in members]
        if how == "max":
            rows.append([max(x[t][c] for t in members) for c in range(len(x[0]))])
        else:
            rows.append([dot(weights, [x[t][c] for t in members]) / sum(weights) for c in range(len(x[0]))])
    return rows, [sum(size[t] for t in group) for group in groups]
