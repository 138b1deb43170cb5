"""How often anytime intervals hold the truth, how wide they are, and what a race saves, with a known truth.

``python tests/racing_simulated.py`` prints every figure beside its goal, in about half an hour; the suite holds a
shorter form to looser bounds. Intervals are tested against the worst stop there is: at the image after which one is
furthest off.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from statistics_simulated import Figure

from tomebench import stats
from tomebench.compare.read import read_runs
from tomebench.runs.goal import Goal
from tomebench.runs.race_facts import half
from tomebench.runs.racing import Race, Runner, Until, choose, stages
from tomebench.stats import LEVEL, Differences, anytime

SIZES = (2000, 50_000)
DISCORDANT = (0.001, 0.003, 0.01, 0.03, 0.1)
LOST = (0.5, 0.75, 1.0)
COUNTS = (  # lost and gained of 400 ImageNet images at r = 1 to 24, as this counts them of a folder of them:
    # tomebench sweep --model deit_tiny_patch16_224 --checkpoint FILE --data DIR --r 0..24 --budget none
    (2, 4), (3, 3), (3, 2), (4, 2), (6, 2), (6, 3), (6, 4), (5, 2), (6, 4), (7, 5), (9, 5), (12, 3),
    (10, 7), (18, 5), (15, 6), (26, 7), (27, 8), (41, 7), (39, 4), (57, 10), (66, 7), (89, 10), (95, 9), (121, 5),
)  # fmt: skip
STORED = Path(__file__).parents[1] / "results" / "every_method_deit_ti.keep" / "methods"
_ALIKE = 0.6
"""Share of the images on which cells fail together: nested in r, as neighbours are."""
_BATCH = 50
_ENOUGH = 500
"""Paths of a kind from which on its own coverage is told."""


def drawn(n: int, discordant: float, lost: float, rng: np.random.Generator) -> Differences:
    """Paired differences of images in general."""
    shares = [discordant * lost, 1 - discordant, discordant * (1 - lost)]
    return rng.choice(np.array([-1, 0, 1], dtype=np.int8), n, p=shares)


def worst_in_general(differences: Differences, mean: float) -> float:
    """Largest logarithm of the capital against the true mean, at any image, on either side."""
    most = -np.inf
    for side, truth in ((differences, mean), (-differences, -mean)):
        changed = np.flatnonzero(side)
        at = np.unique(np.concatenate([changed, np.maximum(changed - 1, 0), [len(side) - 1]]))
        lost, gained = (np.cumsum(each)[at].astype(np.float64)[:, None] for each in (side < 0, side > 0))
        capital = anytime._capital(lost, gained, at[:, None] + 1.0 - lost - gained, truth)
        most = max(most, float(capital.max()))
    return most


def worst_of_the_set(differences: Differences) -> float:
    """The same against the true sum of a set, all of whose images the differences are, in the order drawn."""
    total, most = len(differences), -np.inf
    for side in (differences, -differences):
        before = np.concatenate([[0], np.cumsum(side, dtype=np.int64)])[:-1]
        means = (int(side.sum(dtype=np.int64)) - before) / (total - np.arange(total))
        gains = ((side - means) / np.maximum(1 + means, 1e-9))[:, None]
        capital = anytime._mixed(np.cumsum(np.log1p(anytime._BETS * gains), axis=0))
        most = max(most, float(capital.max()))
    return most


def coverage(paths: int, sizes: Sequence[int] = SIZES) -> list[Figure]:
    """Share of paths on which an interval holds the truth at every stop, the worst over kinds of path."""
    found = []
    for n in sizes:
        for what, of_set in (("images in general", False), ("this set", True)):
            kinds = [(d, lost) for d in DISCORDANT for lost in LOST]
            each = max(20, round(paths * (0.75 if n == min(SIZES) else 0.25) / len(kinds)))
            worst, all_held = 1.0, 0
            for number, (discordant, lost) in enumerate(kinds):
                rng = np.random.default_rng([n, number, of_set])
                held = 0
                for _ in range(each):
                    path = drawn(n, discordant, lost, rng)
                    mean = discordant * (1 - 2 * lost)
                    most = worst_of_the_set(path) if of_set else worst_in_general(path, mean)
                    held += most < anytime._needed(LEVEL)
                all_held, worst = all_held + held, min(worst, held / each)
            name = f"{what}, {n} images, all stops together"
            drawn_in_all = each * len(kinds)
            found.append(Figure(f"{name}, all kinds of path", all_held / drawn_in_all, 0.95, draws=drawn_in_all))
            if each >= _ENOUGH:
                found.append(Figure(f"{name}, the worst kind", worst, 0.95, draws=each))
    return found


def widths(paths: int) -> list[Figure]:
    """Mean width of the anytime interval of images in general, over that of the interval of a fixed number."""
    found = []
    for n in SIZES:
        ratios = []
        for number, (discordant, lost) in enumerate((d, lost) for d in DISCORDANT for lost in LOST):
            rng = np.random.default_rng([n, number])
            widest = []
            for _ in range(max(3, paths // 200)):
                path = drawn(n, discordant, lost, rng)
                fixed = stats.paired_interval(int((path < 0).sum()), int((path > 0).sum()), n)
                wide = stats.anytime_interval(path)
                widest.append((wide.hi - wide.lo) / (fixed.hi - fixed.lo))
            ratios.append(float(np.mean(widest)))
        found.append(Figure(f"width over that of a fixed number, {n} images, the largest", max(ratios), most=1.7))
    return found


def rates() -> npt.NDArray[np.float64]:
    """Shares lost and gained at r = 1 to 24: a smooth curve through the counts of real images; [24, 2]."""
    r = np.arange(1, len(COUNTS) + 1)
    lost, gained = np.array(COUNTS, dtype=np.float64).T
    smooth = [np.polyfit(r, np.log(each), degree, w=np.sqrt(each)) for each, degree in ((lost, 2), (gained, 1))]
    return np.array([np.exp(np.polyval(each, r)) / 400 for each in smooth]).T


def cells(n: int, rng: np.random.Generator) -> list[Differences]:
    """Differences of 24 cells from r = 0 on the same images."""
    shared, found = rng.random(n), []
    for lost, gained in rates():
        at = np.where(rng.random(n) < _ALIKE, shared, rng.random(n))
        found.append((np.where(at > 1 - gained, 1, 0) - np.where(at < lost, 1, 0)).astype(np.int8))
    return found


def raced(differences: Sequence[Differences], goal: Goal, until: Until) -> tuple[str, int]:
    """Run a race: the cell that it chooses, and image passes, of r = 0 and of its estimate, too."""
    n = len(differences[0])
    total = half(n) if until == "recommended" else n
    seen = dict.fromkeys(range(len(differences)), 0)
    at = [min(batches * _BATCH, total) for batches in stages(total, _BATCH)]
    known: dict[tuple[str, int, bool], bool | None] = {}
    while True:
        runners = [Runner(f"{i:02}", 1 + i / 20, "", float(i), each[: seen[i]]) for i, each in enumerate(differences)]
        race = Race(runners, total, goal, until, LEVEL, known)
        keys = race.next()
        if not keys:
            break
        for i in map(int, keys):
            seen[i] = next(stage for stage in at if stage > seen[i])
    chosen = choose(race)
    assert chosen is not None
    passes = sum(seen.values()) + max(seen.values())
    return chosen[0].key, passes + (2 * (n - total) if until == "recommended" else 0)


def saved(resamplings: int, n: int = 50_000, limit: float = 1.0) -> list[Figure]:
    """How often a race chooses what all images would, and its share of their passes."""
    found = []
    goal = Goal(limit)
    for until, most in (("decided", 0.25), ("recommended", 0.1)):
        same, passes = 0, 0.0
        for number in range(resamplings):
            each = cells(n, np.random.default_rng(number))
            total = half(n) if until == "recommended" else n
            whole = [Runner(f"{i:02}", 1 + i / 20, "", float(i), own[:total]) for i, own in enumerate(each)]
            every = choose(Race(whole, total, goal, "recommended", LEVEL))
            assert every is not None
            key, own = raced(each, goal, until)  # type: ignore[arg-type]
            same += key == every[0].key
            passes += own / (n * (len(each) + 1)) / resamplings
        what = f"{until}, {n} images, 25 cells, limit {limit:g}"
        found.append(Figure(f"{what}: chooses as all images do", same / resamplings, 0.95, draws=resamplings))
        asked = most if limit == 1.0 else 1.0  # at closer limits cells are closer to each other, too
        found.append(Figure(f"{what}: share of the image passes", passes, most=asked))
    return found


def on_real_images(orders: int) -> list[Figure]:
    """The same on the stored predictions of 400 real images: DeiT-Ti at r = 4, 8, 12 and 16, in as many orders."""
    measured, _ = read_runs([STORED])
    base = next(each for each in measured if each.row.r == 0 and each.right is not None)
    merged = [each for each in measured if each.row.method == "tome" and each.row.r and each.right is not None]
    merged.sort(key=lambda each: each.row.r)
    apart = [each.right.astype(np.int8) - base.right for each in merged]  # type: ignore[union-attr]
    found = []
    for limit in (1.0, 3.0):
        passes, same = 0.0, 0
        for number in range(orders):
            order = np.random.default_rng(number).permutation(len(base.right))  # type: ignore[arg-type]
            key, own = raced([each[order] for each in apart], Goal(limit), "recommended")
            total = half(len(order))
            whole = [Runner(f"{i:02}", 1 + i / 20, "", float(i), each[order[:total]]) for i, each in enumerate(apart)]
            every = choose(Race(whole, total, Goal(limit), "recommended", LEVEL))
            assert every is not None
            same += key == every[0].key
            passes += own / (len(order) * (len(apart) + 1)) / orders
        what = f"recommended, 400 real images, 5 cells, limit {limit:g}"
        found.append(Figure(f"{what}: chooses as all images do", same / orders, 0.95, draws=orders))
        found.append(Figure(f"{what}: share of the image passes", passes))
    return found


ALL: list[tuple[Callable[[int], list[Figure]], int, int]] = [
    (coverage, 20_000, 600),
    (widths, 20_000, 400),
    (saved, 100, 3),
    (functools.partial(saved, limit=0.5), 100, 3),
    (on_real_images, 100, 5),
]
"""Simulations, how often they draw in full, and in the suite."""


def main() -> int:
    """Print all figures; 1 if one misses its goal."""
    figures = [figure for simulate, often, _ in ALL for figure in simulate(often)]
    for figure in figures:
        print(figure, flush=True)
    return int(not all(figure.holds() for figure in figures))


if __name__ == "__main__":
    sys.exit(main())
