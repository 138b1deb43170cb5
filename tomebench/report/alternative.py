"""A line on the best alternative among the methods of one table, at equal accuracy."""

from __future__ import annotations

from collections.abc import Sequence

from tomebench.compare.lines import comparisons
from tomebench.compare.points import Point
from tomebench.compare.read import Measured
from tomebench.compare.views import Entry, match_drop
from tomebench.report.compared import drop, gmacs, speed
from tomebench.report.escape import clean
from tomebench.runs.row import Row
from tomebench.schema import MAX_DROP
from tomebench.words import counted


def best_alternative(rows: Sequence[Row], max_drop: float = MAX_DROP) -> str | None:
    """Which method besides the first is best at equal accuracy, e.g. ``best alternative to A at 1 point: B r=8, ...``.

    It is the one whose fastest row (without times, the one of least MACs) among those that lose at most ``max_drop``
    points as measured is the fastest; figures of both stand beside each other. A trained method is no alternative to
    one off the shelf, nor the other way round. It is no recommendation: intervals of the drop may reach further.

    Args:
        rows: of one run, or of several that were timed with one reference.
        max_drop: largest loss of top-1 against r = 0, in points.

    Returns:
        None where there is nothing to compare with, no top-1, or more than one setting.
    """
    if len({row.method for row in rows if row.r}) < 2:
        return None
    found = comparisons([Measured(row, row.run) for row in rows])
    if len(found) != 1 or not found[0].evaluated:
        return None
    first, *others = match_drop(found[0], max_drop).entries
    others = [entry for entry in others if entry.line.training == first.line.training]
    if not others:
        return None
    reached = [(entry, entry.point) for entry in others if entry.point is not None]
    text = f"best alternative to {clean(first.line.name)} at {counted(max_drop, 'point')}"
    if not reached:
        return f"{text}: none, all others lose more"
    best, point = max(reached, key=lambda pair: _gain(pair[1]))
    return f"{text}: {_figures(best, point)}; {_figures(first, first.point)}"


def _gain(point: Point) -> tuple[float, float]:
    return (0.0 if point.speed is None else point.speed.value, -point.row.gmacs)


def _figures(entry: Entry, point: Point | None) -> str:
    name = clean(entry.line.name)
    if point is None:
        return f"{name} loses more at every r"
    cost = speed(point) or f"{gmacs(point.row.gmacs)} GMACs"
    lost = "" if point.drop is None else f", drop {drop(point.drop)}"
    return f"{name} {clean(point.label)} {cost}{lost}"
