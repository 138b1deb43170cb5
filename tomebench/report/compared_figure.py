"""Figure of a comparison, a line a method: speed-up, or GMACs where speeds cannot be compared, against top-1; a PNG."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from tomebench.compare.points import Comparison, Line, Point
from tomebench.compare.views import front_is_timed
from tomebench.extras import is_installed
from tomebench.report.figures import BAR, COLOURS, DPI, GREY, MARKER_SIZE, MARKERS, Style, new_axes, plain, short
from tomebench.schema import OFF_THE_SHELF
from tomebench.stats import ShareDelta
from tomebench.words import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def compared_figure(comparison: Comparison) -> bytes | str:
    """Draw a comparison: points with 95 % bars, those of top-1 being paired intervals of the drop.

    Methods are drawn through, plain rivals dashed; the base is a black cross, and the dashed level its top-1. It is of
    measured speed where the front is (:func:`~tomebench.compare.views.front_is_timed`), so that no line is missing.

    Returns:
        The PNG, or one line with the reason why there is no figure.
    """
    if not is_installed("matplotlib"):
        return "no figure: matplotlib is not installed; install it with: pip install 'tomebench[report]'"
    timed = front_is_timed(comparison)
    lines = [(line, found) for line in comparison.lines if (found := _drawn(line, timed))]
    if not lines:
        return "no figure: no line has top-1" + (" and a speed-up" if timed else "")
    figure, axes = new_axes(bottom=0.15)
    for number, (line, drawn) in enumerate(lines):
        _line(axes, line, drawn, number, timed)
    base = comparison.base
    if base.top1 is not None and (x := _x(base, timed)) is not None:
        axes.axhline(base.top1, color=GREY, linewidth=0.7, linestyle="--", alpha=0.6, zorder=0)
        axes.plot(x, base.top1, "kx", markersize=MARKER_SIZE + 2, label=plain(comparison.base_name), zorder=4)
    axes.set_xlabel(plain(f"speed-up over {comparison.over}") if timed else "GMACs of one image, fewer to the right")
    if timed:
        axes.xaxis.set_major_formatter("{x:g}x")
    else:
        axes.invert_xaxis()
    axes.set_ylabel("top-1 accuracy (%)")
    axes.set_title(short(plain(f"Methods at equal conditions: {comparison.setting}"), 90), fontsize=11, loc="left")
    for text in axes.legend(loc="best", fontsize=8, frameon=False).get_texts():
        text.set_parse_math(False)
    said = f"{counted(comparison.images, 'image')}; 95 % intervals, those of top-1 paired with {comparison.base_name}"
    figure.text(0.012, 0.02, short(plain(said), 190), fontsize=6.2, color=GREY, parse_math=False)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=DPI, metadata={"Software": None})
    return file.getvalue()


class _Drawn(NamedTuple):
    point: Point
    drop: ShareDelta
    x: float
    y: float


def _drawn(line: Line, timed: bool) -> list[_Drawn]:
    """Points that have both coordinates."""
    found = []
    for point in line.points:
        x, y = _x(point, timed), point.top1
        if x is not None and y is not None and point.drop is not None:
            found.append(_Drawn(point, point.drop, x, y))
    return found


def _x(point: Point, timed: bool) -> float | None:
    if not timed:
        return point.row.gmacs
    return None if point.speed is None else point.speed.value


def _line(axes: Axes, line: Line, drawn: Sequence[_Drawn], number: int, timed: bool) -> None:
    colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number // len(COLOURS) % len(MARKERS)]
    trained = "" if line.training == OFF_THE_SHELF else f", {line.training}"
    label = f" {short(plain(line.name), 60)}{trained}"  # a leading "_" hides a label
    look: Style = {"color": colour, "marker": marker, "markersize": MARKER_SIZE, "linewidth": 1.2, "zorder": 3}
    axes.plot([at.x for at in drawn], [at.y for at in drawn], "--" if line.plain else "-", label=label, **look)
    for at in drawn:
        ends, delta = at.drop.interval, at.drop.delta
        axes.errorbar(at.x, at.y, yerr=[[100 * (delta - ends.lo)], [100 * (ends.hi - delta)]], ecolor=colour, **BAR)
        speed = at.point.speed if timed else None
        if speed is not None and speed.lo is not None and speed.hi is not None:
            reach = [[max(0.0, speed.value - speed.lo)], [max(0.0, speed.hi - speed.value)]]
            axes.errorbar(at.x, at.y, xerr=reach, ecolor=colour, **BAR)
    for at in (drawn[0], drawn[-1])[: len(drawn)]:
        axes.annotate(plain(at.point.label), (at.x, at.y), (5, 5), textcoords="offset points", fontsize=7, color=colour)
