"""Figure of a sweep: speed-up against top-1 with intervals, MAC ratio and ceiling, as a PNG.

matplotlib is optional, and used through its objects only, so that no global state changes. The same rows and the same
matplotlib give the same bytes.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tomebench.extras import is_installed
from tomebench.report.advice import Advice, advise
from tomebench.report.escape import clean
from tomebench.report.series import group, half_width, is_baseline, model_name, varying
from tomebench.rspec import format_r
from tomebench.runs.codes import AA_FAILED
from tomebench.runs.row import Row
from tomebench.schema import MAX_DROP

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Style = dict[str, Any]

logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it warns a user without home folder about its font cache
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Okabe and Ito's palette, told apart with any kind of colour vision."""
MARKERS = ("o", "s", "^", "D", "v", "P")
GREY = "#6b6b6b"
_SIZE_INCHES, DPI = (8.0, 5.0), 150
_LABEL_WIDTH, _LABEL_HEIGHT = 27.0, 11.0  # of "r=16", in points: no two labels may come closer
MARKER_SIZE = 5.0
BAR: Style = {"fmt": "none", "elinewidth": 1.1, "capsize": 3.0, "alpha": 0.6, "zorder": 2}

_CEILING: Style = {"color": "black", "linewidth": 1.0, "linestyle": "-.", "zorder": 1}


def speed_accuracy_figure(
    rows: Sequence[Row], path: Path, conditions: Sequence[str] = (), max_drop: float = MAX_DROP
) -> str | None:
    """Write a PNG: speed-up against top-1 with 95 % bars, or, where nothing was evaluated, r against speed-up.

    The MAC ratio of each row is drawn beside it, and the ceiling, where it was timed, as a line. Rows without speed-up
    or (with accuracy) without top-1 are left out and named below the figure.

    Args:
        rows: rows of one run or several; each combination of settings is a series of its own.
        path: file to write.
        conditions: lines for the small print.
        max_drop: largest tolerable loss in points; the row that is recommended by it is labelled in bold.

    Returns:
        None if the file was written, else one line with the reason why there is no figure.

    Raises:
        OSError: the file cannot be written.
    """
    if not is_installed("matplotlib"):
        return "no figure: matplotlib is not installed; install it with: pip install 'tomebench[report]'"
    shown, accuracy = _shown(rows)
    if not shown:
        return "no figure: no row has a speed-up against r = 0"
    figure = _draw(rows, shown, accuracy, conditions, max_drop)
    figure.savefig(path, format="png", dpi=DPI, metadata={"Software": None})
    return None


def _shown(rows: Sequence[Row]) -> tuple[list[Row], bool]:
    timed = [row for row in rows if row.speedup_vs_r0 is not None and row.status in ("ok", "unconverged")]
    both = [row for row in timed if row.top1 is not None]
    return (both, True) if any(not is_baseline(row) for row in both) else (timed, False)


def _draw(
    rows: Sequence[Row],
    shown: Sequence[Row],
    accuracy: bool,
    conditions: Sequence[str],
    max_drop: float = MAX_DROP,
) -> Figure:
    from matplotlib.ticker import MaxNLocator

    print_lines = _small_print(rows, shown, conditions)
    figure, axes = new_axes(bottom=0.12 + 0.027 * len(print_lines))
    for number, (label, members) in enumerate(group(shown, varying(rows)).items()):
        style = {"color": COLOURS[number % len(COLOURS)], "marker": MARKERS[number % len(MARKERS)]}
        (_accuracy_series if accuracy else _speed_series)(axes, members, label, style)
    _legend(axes, shown, accuracy)
    axes.set_title(_title(rows), fontsize=11, loc="left", parse_math=False)
    if accuracy:
        axes.set_xlabel("speed-up over r = 0")
        axes.set_ylabel("top-1 accuracy (%)")
        axes.xaxis.set_major_formatter("{x:g}x")
        _label_points(axes, shown, advise(shown, max_drop))
    else:
        axes.set_xlabel("r, tokens merged per layer")
        axes.set_ylabel("speed-up over r = 0")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.yaxis.set_major_formatter("{x:g}x")
    for number, line in enumerate(reversed(print_lines)):
        figure.text(0.012, 0.014 + 0.027 * number, line, fontsize=6.2, color=GREY, parse_math=False)
    return figure


def new_axes(*, bottom: float) -> tuple[Figure, Axes]:
    """A figure with one pair of axes; ``bottom`` is their height above its edge, as a fraction."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=_SIZE_INCHES, dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.09, bottom, 0.885, 0.93 - bottom))
    axes.grid(visible=True, color="#e4e4e4", linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return figure, axes


def _accuracy_series(axes: Axes, rows: Sequence[Row], label: str, style: Style) -> None:
    """Draw speed-up against top-1; vertical bars are paired intervals of the difference to r = 0."""
    xs, ys = [_x(row) for row in rows], [_y(row) for row in rows]
    between = [x for row in rows for x in (_x(row), row.mac_ratio, math.nan)]  # NaN ends the line of each row
    axes.plot(between, [y for y in ys for _ in range(3)], color=GREY, linewidth=0.7, linestyle=":", zorder=1)
    axes.plot([row.mac_ratio for row in rows], ys, color=GREY, linestyle="none", marker="|", markersize=8, zorder=1)
    for row in rows:
        if is_baseline(row):
            axes.axhline(_y(row), color=style["color"], linewidth=0.7, linestyle="--", alpha=0.5, zorder=0)
    sliced = [(row.speedup_ceiling, _y(row)) for row in rows if row.speedup_ceiling is not None]
    axes.plot([x for x, _ in sliced], [y for _, y in sliced], **_CEILING)
    axes.errorbar(
        xs, ys, xerr=_bars(rows, "speedup_vs_r0"), yerr=_bars(rows, "delta_top1"), **BAR, ecolor=style["color"]
    )
    _curve(axes, rows, xs, ys, label, style)


def _speed_series(axes: Axes, rows: Sequence[Row], label: str, style: Style) -> None:
    """Draw speed-up over r, with the MAC ratio as a curve."""
    rows = sorted(rows, key=lambda row: row.r)
    xs, ys = [row.r for row in rows], [_x(row) for row in rows]
    axes.plot(xs, [row.mac_ratio for row in rows], color=GREY, linewidth=1.2, linestyle="--", zorder=1)
    sliced = [(row.r, row.speedup_ceiling) for row in rows if row.speedup_ceiling is not None]
    axes.plot([x for x, _ in sliced], [y for _, y in sliced], **_CEILING)
    axes.errorbar(xs, ys, yerr=_bars(rows, "speedup_vs_r0"), **BAR, ecolor=style["color"])
    _curve(axes, rows, xs, ys, label, style)


def _curve(axes: Axes, rows: Sequence[Row], xs: Sequence[float], ys: Sequence[float], label: str, style: Style) -> None:
    """Draw a faint line through the points; markers are hollow where r was clamped."""
    axes.plot(xs, ys, color=style["color"], linewidth=1.0, alpha=0.45, zorder=2)
    label = short(f" {plain(label)}" if label else "measured, 95 % intervals", 60)  # a leading "_" hides a label
    axes.plot([], [], linestyle="none", markersize=MARKER_SIZE, label=label, **style)
    for clamped, face in ((False, style["color"]), (True, "white")):
        points = [(x, y) for row, x, y in zip(rows, xs, ys, strict=True) if row.clamped == clamped]
        look: Style = {"linestyle": "none", "markersize": MARKER_SIZE, "markerfacecolor": face, **style}
        axes.plot([x for x, _ in points], [y for _, y in points], zorder=3, **look)


def _legend(axes: Axes, rows: Sequence[Row], accuracy: bool) -> None:
    """Draw the legend; entries that all series share come last, once."""
    common: Style = {"color": GREY, "marker": "o", "markerfacecolor": "white", "markersize": MARKER_SIZE}
    if any(row.clamped for row in rows):
        axes.plot([], [], linestyle="none", label="r lowered by the cap", **common)
    if any(row.speedup_ceiling is not None for row in rows):
        axes.plot([], [], label="slicing ceiling: what the hardware gives", **_CEILING)
    mac: Style = {"marker": "|", "markersize": 8, "linestyle": ":"} if accuracy else {"linestyle": "--"}
    axes.plot([], [], color=GREY, label="MAC ratio: what counting promises", **mac)
    for text in axes.legend(loc="best", fontsize=8, frameon=False).get_texts():
        text.set_parse_math(False)


def _label_points(axes: Axes, rows: Sequence[Row], advice: Advice | None) -> None:
    """Write r beside markers: of the recommended row, the first, the last, and all others that fit without overlap."""
    first = [advice.row] if advice else []
    taken: list[tuple[float, float]] = []
    axes.margins(x=0.05, y=0.08)
    axes.autoscale_view()  # distances on the page need the final limits
    for row in [*first, rows[0], rows[-1], *rows]:
        x, y = axes.transData.transform((_x(row), _y(row))) * 72 / DPI
        if all(abs(x - a) > _LABEL_WIDTH or abs(y - b) > _LABEL_HEIGHT for a, b in taken):
            taken.append((x, y))
            weight = "bold" if advice and advice.recommended and row is advice.row else "normal"
            look: Style = {"textcoords": "offset points", "fontsize": 8, "fontweight": weight, "zorder": 4}
            axes.annotate(f"r={row.r}", (_x(row), _y(row)), (5, 5), **look)


def _title(rows: Sequence[Row]) -> str:
    models = list(dict.fromkeys(plain(model_name(row.model, row.weights)) for row in rows))
    return short(f"Token merging: {models[0] if len(models) == 1 else f'{len(models)} models'}", 90)


def _small_print(rows: Sequence[Row], shown: Sequence[Row], conditions: Sequence[str]) -> list[str]:
    lines = []
    kept = {id(row) for row in shown}
    left_out = [row for row in rows if id(row) not in kept]
    if left_out:
        reasons = ", ".join(dict.fromkeys(row.status if row.status != "ok" else "not measured" for row in left_out))
        lines.append(f"left out: r = {format_r(sorted({row.r for row in left_out})).replace(',', ', ')} ({reasons})")
    if any(AA_FAILED in row.warnings for row in shown):
        lines.append("do not use these speeds: the A/A control failed, the timing is biased")
    if any(half_width(row) is None for row in shown if not is_baseline(row)):
        lines.append("no bar: fewer than 6 rounds give no interval")
    return [short(line, 190) for line in (*lines, *map(plain, conditions))]


def short(text: str, limit: int) -> str:
    """Text cut to a number of characters."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def plain(text: str) -> str:
    """Text in characters that matplotlib's font has (Latin, Δ, …); others become ``?``."""
    return "".join(c if ord(c) < 0x250 or c in "Δ…" else "?" for c in clean(text))


def _x(row: Row) -> float:
    return float(row.speedup_vs_r0 or 0)


def _y(row: Row) -> float:
    return float(row.top1 or 0)


def _bars(rows: Sequence[Row], field: str) -> list[list[float]]:
    """Lengths of the 95 % error bars, [below, above]: 0 where there is no interval, and for r = 0 itself."""
    bars: list[list[float]] = [[], []]
    for row in rows:
        value, low, high = (getattr(row, field + end) for end in ("", "_lo", "_hi"))
        known = not (is_baseline(row) or value is None or low is None or high is None)
        bars[0].append(max(0.0, value - low) if known else 0.0)
        bars[1].append(max(0.0, high - value) if known else 0.0)
    return bars
