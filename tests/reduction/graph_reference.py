"""Clustering of tokens as slowly and plainly as it can be written: Python loops over float64, one image at a time.

The oracle of the tests of graph-cut and atc. Nothing here is shared with the package.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

Vector = Sequence[float]
Matrix = list[list[float]]


def dot(a: Vector, b: Vector) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def cosines(rows: Sequence[Vector]) -> Matrix:
    """Cosine of every row with every other; of a row of zeros 0."""
    lengths = [math.sqrt(dot(row, row)) or 1.0 for row in rows]
    return [
        [dot(a, b) / (la * lb) for b, lb in zip(rows, lengths, strict=True)]
        for a, la in zip(rows, lengths, strict=True)
    ]


def agglomerate(rows: Sequence[Vector], r: int, linkage: str) -> list[list[int]]:
    """Clusters after r joins, each ascending, by their first patch; linkages by their definition over all pairs."""
    likeness = cosines(rows)
    clusters = [[patch] for patch in range(len(rows))]
    summary = {"average": lambda values: sum(values) / len(values), "single": max, "complete": min}[linkage]
    for _ in range(r):
        found = {
            (one, other): summary([likeness[i][j] for i in clusters[one] for j in clusters[other]])
            for one, other in itertools.combinations(range(len(clusters)), 2)
        }
        one, other = max(found, key=lambda pair: (found[pair], -pair[0], -pair[1]))
        clusters[one] = sorted(clusters[one] + clusters[other])
        del clusters[other]
    return clusters


def eigen(symmetric: Matrix) -> tuple[list[float], Matrix]:
    """Eigenvalues, descending, and an eigenvector of each, by Jacobi's rotations."""
    n = len(symmetric)
    a = [list(row) for row in symmetric]
    v = [[float(i == j) for j in range(n)] for i in range(n)]
    for _ in range(60):
        if sum(a[i][j] ** 2 for i in range(n) for j in range(n) if i != j) < 1e-30:
            break
        for p, q in itertools.combinations(range(n), 2):
            angle = math.atan2(2 * a[p][q], a[q][q] - a[p][p]) / 2
            c, s = math.cos(angle), math.sin(angle)
            for k in range(n):
                a[k][p], a[k][q] = c * a[k][p] - s * a[k][q], s * a[k][p] + c * a[k][q]
                v[k][p], v[k][q] = c * v[k][p] - s * v[k][q], s * v[k][p] + c * v[k][q]
            for k in range(n):
                a[p][k], a[q][k] = c * a[p][k] - s * a[q][k], s * a[p][k] + c * a[q][k]
    order = sorted(range(n), key=lambda i: -a[i][i])
    return [a[i][i] for i in order], [[v[k][i] for k in range(n)] for i in order]


class Cut:
    """Spectral cut into k clusters by ``width`` eigenvectors; ``margin``: how nearly a decision went the other way."""

    def __init__(self, rows: Sequence[Vector], k: int, iterations: int, width: int) -> None:
        t = len(rows)
        weight = [
            [1.0 if i == j else max(value, 0.0) for j, value in enumerate(row)] for i, row in enumerate(cosines(rows))
        ]
        degree = [sum(row) for row in weight]
        values, vectors = eigen([[weight[i][j] / math.sqrt(degree[i] * degree[j]) for j in range(t)] for i in range(t)])
        self.margin = values[width - 1] - values[width]
        points = [[vector[patch] for vector in vectors[:width]] for patch in range(t)]
        lengths = [math.sqrt(dot(point, point)) for point in points]
        self._decide(min(lengths))
        self.points = [
            [value / max(length, 1e-12) for value in point] for point, length in zip(points, lengths, strict=True)
        ]
        likeness = [max((dot(self.points[i], self.points[j]) for j in range(i)), default=-math.inf) for i in range(t)]
        order = sorted(range(t), key=lambda i: (likeness[i], i))
        self._decide(likeness[order[k]] - likeness[order[k - 1]])
        self.seeds = sorted(order[:k])
        centres = [self.points[seed] for seed in self.seeds]
        for _ in range(iterations):
            centres = [
                [sum(self.points[patch][c] for patch in members) / len(members) for c in range(width)]
                for members in self._assigned(centres)
            ]
        self.groups = self._assigned(centres)

    def _decide(self, difference: float) -> None:
        self.margin = min(self.margin, difference)

    def _assigned(self, centres: Matrix) -> list[list[int]]:
        clusters = [[seed] for seed in self.seeds]
        for patch, point in enumerate(self.points):
            if patch not in self.seeds:
                distances = [math.dist(point, centre) ** 2 for centre in centres]
                nearest = sorted(distances)
                if len(nearest) > 1:
                    self._decide(nearest[1] - nearest[0])
                clusters[distances.index(nearest[0])].append(patch)
        return clusters


def means(groups: Sequence[Sequence[int]], x: Sequence[Vector], size: Vector) -> tuple[Matrix, list[float]]:
    """Mean by size of each group, and its size."""
    sizes = [sum(size[token] for token in group) for group in groups]
    rows = [
        [sum(size[token] * x[token][c] for token in group) / total for c in range(len(x[0]))]
        for group, total in zip(groups, sizes, strict=True)
    ]
    return rows, sizes
