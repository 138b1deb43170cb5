"""K-means and k-medoids as plainly as they can be written: Python loops over float64, one image at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence

from reduction.groups import Groups, Rows, mean_of

Vector = Sequence[float]


def heaviest(weight: Vector, prefix: int, count: int) -> list[int]:
    """The patches of largest weight, ascending."""
    return sorted(sorted(range(prefix, len(weight)), key=lambda t: (-weight[t], t))[:count])


def assign(rows: Rows, centres: Rows, prefix: int) -> list[list[int]]:
    """Patches of every cluster; one that is empty takes the patch farthest from its centre."""
    distance = {t: [math.dist(rows[t], centre) for centre in centres] for t in range(prefix, len(rows))}
    found: list[list[int]] = [[] for _ in centres]
    for t, each in distance.items():
        found[each.index(min(each))].append(t)
    may_go = []
    for number, cluster in enumerate(found):
        if cluster:
            stays = min(cluster, key=lambda t: (distance[t][number], t))
            may_go += [(-distance[t][number], t, number) for t in cluster if t != stays]
    for cluster in found:
        if not cluster:
            gone = min(may_go)
            may_go.remove(gone)
            found[gone[2]].remove(gone[1])
            cluster.append(gone[1])
    return found


def kmeans(rows: Rows, weight: Vector, r: int, prefix: int, iterations: int) -> Groups:
    centres = [list(rows[t]) for t in heaviest(weight, prefix, len(rows) - prefix - r)]
    for _ in range(iterations):
        found = assign(rows, centres, prefix)
        centres = [mean_of(rows, cluster, weight) for cluster in found]
    kept = {min(cluster, key=lambda t: (-weight[t], t)): cluster for cluster in found}
    return {**{t: [t] for t in range(prefix)}, **{t: kept[t] for t in sorted(kept)}}


def kmedoids(rows: Rows, weight: Vector, r: int, prefix: int, iterations: int, over: str) -> Groups:
    """Clusters by their medoids; ``over``: the sum is over the patches of the cluster, or over all."""
    patches = range(prefix, len(rows))
    medoids = heaviest(weight, prefix, len(patches) - r)
    for _ in range(iterations):
        clusters: dict[int, list[int]] = {medoid: [medoid] for medoid in medoids}
        for t in patches:
            if t not in clusters:
                clusters[min(medoids, key=lambda medoid: math.dist(rows[t], rows[medoid]))].append(t)

        def spread(i: int, cluster: Sequence[int]) -> float:
            if over == "cluster":
                return sum(weight[j] * math.dist(rows[i], rows[j]) ** 2 for j in cluster)
            return weight[i] * sum(math.dist(rows[i], rows[j]) ** 2 for j in patches)

        medoids = [min(group, key=lambda i: (spread(i, group), i)) for group in clusters.values()]
    found = dict(zip(medoids, clusters.values(), strict=True))
    return {**{t: [t] for t in range(prefix)}, **{t: found[t] for t in sorted(found)}}
