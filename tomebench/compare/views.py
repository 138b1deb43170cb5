"""Views of a comparison, one a question: equal accuracy, equal tokens, equal MACs, equal measured speed, and the front.

A view chooses among grid points and never interpolates; what a line lacks is in its entry. Pure functions.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from tomebench.compare.points import Comparison, Line, Point, between
from tomebench.errors import SpecError
from tomebench.stats import ShareDelta

Cost = Literal["tokens", "gmacs", "speed"]
Kind = Literal["drop", "tokens", "gmacs", "speed", "front", "tests"]
Verdict = Literal[
    "within",  # the whole interval of the drop is within the limit
    "open",  # the drop is, its interval is not
    "too few images",  # as "open", and the interval reaches further than the limit is wide
    "beyond",  # no point of the line keeps the limit
    "not measured",  # the line has no top-1
]

VALUES: Mapping[Cost, Callable[[Point], float | None]] = {
    "tokens": lambda point: point.row.tokens_out,
    "gmacs": lambda point: point.row.gmacs,
    "speed": lambda point: None if point.speed is None else point.speed.value,
}
"""What each question about costs holds equal."""


class Target(NamedTuple):
    """A value that points are to be near, and the distance of the nearest."""

    value: float
    off: float | None  # distance of the nearest point, as a fraction of the value; None where there is no point


@dataclass(frozen=True)
class Entry:
    """What a view says of one line, or of one point of it."""

    line: Line
    point: Point | None  # None: no point of the line answers the question
    nearest: Point | None = None  # the one that comes nearest, where none does
    verdict: Verdict | None = None
    images: int | None = None  # needed to show that the drop is within the limit; None where no number of them would
    target: Target | None = None
    versus: ShareDelta | None = None  # top-1 against that of the compared method, at the same question
    holm: float | None = None  # p-value of ``versus``, adjusted for all tests of the view
    dominated_by: tuple[Line, Point] | None = None


@dataclass(frozen=True)
class View:
    """The answer to one question."""

    kind: Kind
    entries: tuple[Entry, ...]
    limit: float | None = None  # largest drop, in points
    against: Line | None = None  # with which others are compared
    tolerance: float | None = None  # largest distance from a target, as a fraction


def find_line(lines: Sequence[Line], name: str | None) -> Line:
    """The line of a name, or the first of a method; without a name the first.

    Raises:
        SpecError: there is none; the message lists all.
    """
    if name is None:
        return lines[0]
    for matches in (lambda line: line.name == name, lambda line: line.method == name and not line.plain):
        if found := [line for line in lines if matches(line)]:
            return found[0]
    names = [line.name for line in lines]
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(names)}"
    raise SpecError(f"--against {name[:60]!r}: no such line in these runs; {hint}")


def match_drop(comparison: Comparison, limit: float) -> View:
    """At equal accuracy: of every line the fastest point that loses at most ``limit`` points of top-1.

    Where measured speeds cannot be compared, the point of least MACs.
    """
    return View("drop", tuple(_within(line, limit) for line in comparison.lines), limit)


def _within(line: Line, limit: float) -> Entry:
    known = [(point, point.drop) for point in line.points if point.drop is not None]
    if not known:
        return Entry(line, None, verdict="not measured")
    kept = [(point, drop) for point, drop in known if (point.lost or 0.0) <= limit]
    if not kept:
        nearest, _ = max(known, key=lambda pair: pair[1].delta)
        return Entry(line, None, nearest, "beyond")
    timed = [pair for pair in kept if pair[0].speed is not None]
    point, drop = max(timed or kept, key=lambda pair: (VALUES["speed"](pair[0]) or 0.0, -pair[0].row.gmacs))
    worst = -100 * drop.interval.lo
    if worst <= limit:
        return Entry(line, point, verdict="within")
    narrow = worst + 100 * drop.delta <= limit
    return Entry(line, point, verdict="open" if narrow else "too few images", images=drop.images_to_accept(limit / 100))


def match_cost(
    comparison: Comparison, cost: Cost, against: Line, tolerance: float, targets: Sequence[float] | None = None
) -> View:
    """At equal tokens, MACs or measured speed: of every line the point nearest to each target.

    Args:
        comparison: with its lines.
        cost: what is to be equal.
        against: line whose points are the targets by default, and with whose top-1 that of the others is compared.
        tolerance: largest distance from a target, as a fraction of it.
        targets: values of the cost.
    """
    value = VALUES[cost]
    if targets is None:
        targets = [each for point in against.points if (each := value(point)) is not None]
    entries = []
    for target in dict.fromkeys(targets):
        base = _near(against, value, target, tolerance).point
        for line in comparison.lines:
            found = _near(line, value, target, tolerance)
            versus = None if line is against else between(base, found.point)
            entries.append(Entry(line, found.point, found.nearest, target=found.target, versus=versus))
    return View(cost, tuple(entries), against=against, tolerance=tolerance)


def _near(line: Line, value: Callable[[Point], float | None], target: float, tolerance: float) -> Entry:
    known = [(point, found) for point in line.points if (found := value(point)) is not None]
    if not known:
        return Entry(line, None, target=Target(target, None))
    nearest, found = min(known, key=lambda pair: (abs(pair[1] - target), pair[1]))
    off = (found - target) / target
    if abs(off) > tolerance:
        return Entry(line, None, nearest, target=Target(target, off))
    return Entry(line, nearest, target=Target(target, off))


def front_is_timed(comparison: Comparison) -> bool:
    """Whether the front is one of measured speed: speeds can be compared, and every line with top-1 has some."""
    lines = [line for line in comparison.lines if any(point.right is not None for point in line.points)]
    return comparison.over is not None and all(any(point.speed for point in line.points) for line in lines)


def front(comparison: Comparison) -> View:
    """The Pareto front: points than which none is as fast and as accurate, and better in one; then those it dominates.

    Unless :func:`front_is_timed`, fewer MACs take the place of speed. Entries are in order of speed; a dominated one
    names the most accurate point of the front that dominates it.
    """
    base = Line("none", (comparison.base,), plain=True)
    pairs = [(line, point) for line in (base, *comparison.lines) for point in line.points if point.right is not None]
    timed = front_is_timed(comparison)
    if timed:
        pairs = [(line, point) for line, point in pairs if point.speed is not None]

    def gain(point: Point) -> float:
        return point.speed.value if timed and point.speed is not None else -point.row.gmacs

    def loss(point: Point) -> float:  # not top-1: rows may have been stopped, each on images of its own
        return point.lost or 0.0

    ordered = sorted(pairs, key=lambda pair: (-gain(pair[1]), loss(pair[1])))
    kept: list[tuple[Line, Point]] = []
    entries = []
    for line, point in ordered:
        better = [
            other
            for other in kept
            if loss(other[1]) <= loss(point) and (gain(other[1]), loss(other[1])) != (gain(point), loss(point))
        ]
        if better:
            entries.append(Entry(line, point, dominated_by=min(better, key=lambda pair: loss(pair[1]))))
        else:
            kept.append((line, point))
            entries.append(Entry(line, point))
    return View("front", tuple(entries))
