"""The views of ``tomebench compare`` as plain strings: a heading that says the question, a table, notes below it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tomebench.compare.paired_tests import least_difference
from tomebench.compare.points import Comparison, Point
from tomebench.compare.views import VALUES, Cost, Entry, Verdict, View, front_is_timed
from tomebench.report.escape import clean
from tomebench.report.narrow import Step, Table, before, without
from tomebench.report.series import interval, points
from tomebench.schema import OFF_THE_SHELF
from tomebench.stats import ShareDelta
from tomebench.stats.needed import REACH
from tomebench.stats.shares import LEAST_P
from tomebench.words import counted, noun

WORDS = ("method", "training", "point", "dominated by", "note")
"""Columns that hold words."""
KEYS = ("method", "point")
"""Columns that are repeated where a table is shown in parts."""
_COSTS: dict[Cost, tuple[str, str]] = {
    "tokens": ("tokens", "equal tokens after the last block"),
    "gmacs": ("GMACs", "equal MACs"),
    "speed": ("speed-up", "equal measured speed"),
}
_NARROWER = (
    without("over seeds"),
    without("top-1"),
    Step("note"),  # the lines below say it in full
    without("off"),
    without("tokens"),
    without("GMACs"),
    Step("speed-up [95%]", "speed-up", before(" ["), lost="the interval of the speed-up"),
    without("speed-up"),
)


@dataclass(frozen=True)
class Section:
    """One table with its question, ready to be written."""

    title: str
    table: Table
    notes: tuple[str, ...]
    axis: str = ""  # column that stays however narrow the screen is

    @property
    def steps(self) -> tuple[Step, ...]:
        """Steps that make the table narrower, in order: method, training, point, drop and difference always stay."""
        return tuple(step for step in _NARROWER if step.head != self.axis)


def section(comparison: Comparison, view: View, *, several: bool = False) -> Section:
    """Lay out a view.

    Args:
        comparison: that the view is of.
        view: the answer to one question.
        several: name the setting in the heading, since there are several comparisons.
    """
    setting = f" ({clean(comparison.setting)})" if several else ""
    columns = _COLUMNS[view.kind](comparison, view)
    rows = [list(cells) for cells in zip(*columns.values(), strict=True)]
    kept = [place for place, head in enumerate(columns) if head == "method" or any(row[place] for row in rows)]
    heads = list(columns)
    table = [heads[place] for place in kept], [[row[place] or _blank(heads[place]) for place in kept] for row in rows]
    axis = "GMACs" if view.kind == "front" and not front_is_timed(comparison) else ""
    return Section(_question(comparison, view) + setting, table, tuple(_notes(comparison, view)), axis)


def _blank(head: str) -> str:
    return "" if head in ("note", "over seeds") else "-"


def _question(comparison: Comparison, view: View) -> str:
    """The question that a table answers."""
    fastest = "fastest" if comparison.over is not None else "least MACs"
    if view.kind == "drop":
        limit = counted(view.limit or 0, "point")
        return f"At equal accuracy: {fastest} with a drop of at most {limit}, {_images(comparison)}"
    against = clean(view.against.name) if view.against else ""
    if view.kind == "front":
        axis = "measured speed" if front_is_timed(comparison) else "MACs"
        return f"The front of {axis} and top-1, {_images(comparison)}"
    if view.kind == "tests":
        return f"The same images at the same r: each line against {against}, {_images(comparison)}"
    over = f", over {clean(comparison.over or '')}" if view.kind == "speed" else ""
    targets = {entry.target.value for entry in view.entries if entry.target is not None}
    value = f" ({_value(view.kind, targets.pop())}{over})" if len(targets) == 1 else over
    return f"At {_COSTS[view.kind][1]}{value}: the nearest point within {100 * (view.tolerance or 0):g} %"


def _images(comparison: Comparison) -> str:
    """Number of images; the largest where rows were stopped, each after images of its own."""
    stopped = any(point.stopped for line in comparison.lines for point in line.points)
    return f"up to {counted(comparison.images, 'image')}" if stopped else counted(comparison.images, "image")


def _lines(view: View) -> dict[str, list[str]]:
    shown = [*(entry.line for entry in view.entries), *([view.against] if view.against else [])]
    several = any(line.training != OFF_THE_SHELF for line in shown)
    return {
        "method": [clean(entry.line.name) for entry in view.entries],
        "training": [entry.line.training if several else "" for entry in view.entries],
        "point": ["" if entry.point is None else clean(entry.point.label) for entry in view.entries],
    }


def _of(view: View, text: Callable[[Point], str]) -> list[str]:
    """A text of every point; empty where there is none."""
    return ["" if entry.point is None else text(entry.point) for entry in view.entries]


def _figures(comparison: Comparison, view: View) -> dict[str, list[str]]:
    columns = {
        "tokens": _of(view, _tokens),
        "GMACs": _of(view, lambda point: gmacs(point.row.gmacs)),
    }
    if comparison.over is not None:
        columns["speed-up [95%]"] = _of(view, speed)
    if any(entry.point is not None and entry.point.stopped for entry in view.entries):
        columns["images"] = _of(view, lambda point: "" if point.right is None else str(len(point.right.right)))
    columns["top-1"] = _of(view, lambda point: "" if point.top1 is None else f"{point.top1:.2f}")
    columns["over seeds"] = _of(view, seeds)
    columns["drop [95%]"] = _of(view, lambda point: "" if point.drop is None else drop(point.drop))
    return columns


def _tokens(point: Point) -> str:
    """Text of the tokens after the last block; with padding, in brackets the mean that is left without."""
    mean = point.row.tokens_out_mean
    return str(point.row.tokens_out) + (f" ({mean:.1f})" if mean is not None else " (padded)" * point.row.padded)


def gmacs(value: float) -> str:
    """Text of GMACs with three digits, two decimals at least."""
    return f"{value:.2f}" if value >= 1 else f"{value:.3g}"


def speed(point: Point) -> str:
    """Text of a speed-up with its interval; empty where it was not timed."""
    found = point.speed
    if found is None:
        return ""
    exact = found.lo == found.hi  # r = 0 over itself
    return f"{found.value:.2f}x{'' if exact else interval(found.lo, found.hi, '.2f')}"


def seeds(point: Point) -> str:
    """Standard deviation and range of top-1 over seeds; empty for a single row."""
    if point.spread is None:
        return ""
    deviation, least, most = point.spread
    return f"±{deviation:.2f}, {least:.1f}..{most:.1f}"


def drop(found: ShareDelta) -> str:
    """Text of the points of top-1 that are lost, with their paired interval."""
    return points(*_drop(found)).replace("+", "")


def _drop(found: ShareDelta) -> tuple[float, float, float]:
    ends = found.interval
    return -100 * found.delta, -100 * ends.hi, -100 * ends.lo


def _difference(found: ShareDelta | None) -> str:
    if found is None:
        return ""
    ends = found.interval
    return points(100 * found.delta, 100 * ends.lo, 100 * ends.hi)


def _drop_columns(comparison: Comparison, view: View) -> dict[str, list[str]]:
    notes = [_BRIEF.get(entry.verdict or "", "") for entry in view.entries]
    return _lines(view) | _figures(comparison, view) | {"note": notes}


_BRIEF = {"beyond": "not reached", "open": "not sure", "too few images": "too few images", "not measured": "no top-1"}


def _accuracy_notes(view: View) -> list[str]:
    """What is to be known of answers at equal accuracy, a line for each kind of doubt."""
    found: dict[Verdict | None, list[str]] = {}
    for entry in view.entries:
        near = entry.nearest
        about = f" ({_needed(entry)})" if entry.verdict in ("open", "too few images") else ""
        if near is not None and near.drop is not None:
            about = f" (least drop {drop(near.drop)} at {clean(near.label)})"
        found.setdefault(entry.verdict, []).append(clean(entry.line.name) + about)
    said: dict[Verdict, str] = {
        "beyond": "the grid does not reach it: {}",
        "too few images": "too few images for {}: the interval of the drop is wider than the question; that many are "
        "needed if rates stay",
        "open": "not sure for {}: the interval of the drop goes beyond; that many images would tell if rates stay",
        "not measured": "no top-1: {}",
    }
    return [text.format(", ".join(found[verdict])) for verdict, text in said.items() if verdict in found]


def _needed(entry: Entry) -> str:
    return f"over {REACH} times as many" if entry.images is None else f"about {entry.images}"


def _cost_columns(comparison: Comparison, view: View) -> dict[str, list[str]]:
    assert view.kind in ("tokens", "gmacs", "speed")
    head, _ = _COSTS[view.kind]
    targets = [entry.target for entry in view.entries]
    written = ["" if target is None else _value(view.kind, target.value) for target in targets]
    several = len({target.value for target in targets if target is not None}) > 1
    columns = ({f"at {head}": written} if several else {}) | _lines(view)
    offs = ["" if entry.point is None or entry.target is None else _off(entry.target.off) for entry in view.entries]
    columns["off"] = offs
    columns |= _figures(comparison, view)
    if view.against is not None:
        columns["difference [95%]"] = [_difference(entry.versus) for entry in view.entries]
    columns["note"] = ["" if entry.point is not None else "not reached" for entry in view.entries]
    return columns


def _value(cost: Cost, value: float) -> str:
    return {"tokens": f"{value:g}", "gmacs": gmacs(value), "speed": f"{value:.2f}x"}[cost]


def _off(off: float | None) -> str:
    return "" if off is None else f"{100 * off:+.1f} %" if round(1000 * off) else "0 %"


def _cost_note(cost: Cost, entry: Entry) -> str:
    if entry.point is not None:
        return ""
    if entry.nearest is None or entry.target is None:
        return "no valid speed"
    value = VALUES[cost](entry.nearest)
    near = f"{_value(cost, value or 0)} at {clean(entry.nearest.label)}"
    return f"grid does not reach {_value(cost, entry.target.value)}: nearest {near}, {_off(entry.target.off)}"


def _front_columns(comparison: Comparison, view: View) -> dict[str, list[str]]:
    by = [entry.dominated_by for entry in view.entries]
    named = ["" if each is None else clean(f"{each[0].name} {each[1].label}") for each in by]
    return _lines(view) | _figures(comparison, view) | {"dominated by": named}


def _tests_columns(comparison: Comparison, view: View) -> dict[str, list[str]]:
    found = [entry.versus for entry in view.entries]
    return {
        **_lines(view),
        "tokens": _of(view, _tokens),
        "lost": ["" if each is None else f"{each.lost:.3g}" for each in found],
        "gained": ["" if each is None else f"{each.gained:.3g}" for each in found],
        "difference [95%]": [_difference(each) for each in found],
        "p": ["" if each is None else _p(each.p) for each in found],
        "p, Holm": ["" if entry.holm is None else f"{entry.holm:.2g}" for entry in view.entries],
    }


def _p(value: float) -> str:
    return f"<{LEAST_P:g}" if value == LEAST_P else f"{value:.2g}"


_COLUMNS: dict[str, Callable[[Comparison, View], dict[str, list[str]]]] = {
    "drop": _drop_columns,
    "tokens": _cost_columns,
    "gmacs": _cost_columns,
    "speed": _cost_columns,
    "front": _front_columns,
    "tests": _tests_columns,
}


def _notes(comparison: Comparison, view: View) -> list[str]:
    """What stands below the table of a view."""
    against = clean(view.against.name) if view.against else ""
    if view.kind == "front":
        said = "the front is of the values as measured: neighbours may be closer than their intervals tell"
        pairs = [(line, point) for line in comparison.lines for point in line.points if front_is_timed(comparison)]
        apart = [clean(f"{line.name} {each.label}") for line, each in pairs if each.right and each.speed is None]
        return [said, *([f"no valid speed, so not in it: {', '.join(apart)}"] if apart else [])]
    if view.kind == "drop":
        untimed = [e.line.name for e in view.entries if e.point is not None and e.point.speed is None]
        by_macs = (
            [f"no valid speed, so by least MACs: {clean(', '.join(untimed))}"] if comparison.over and untimed else []
        )
        return [*_accuracy_notes(view), *by_macs]
    if view.kind != "tests":
        kind = view.kind
        notes = [f"{clean(e.line.name)}: {text}" for e in view.entries if (text := _cost_note(kind, e))]
        differs = any(entry.versus is not None for entry in view.entries)
        return [*[f"difference: top-1 in points minus that of {against}, on the same images"] * differs, *notes]
    if not view.entries:
        return ["no other line has rows of the same r and tokens"]
    stopped = any(entry.point is not None and entry.point.stopped for entry in view.entries)
    notes = [
        f"lost and gained: images right with {against} only and with the other only; p of McNemar's exact test, for "
        "means over seeds of the exact sign-flip test of each image's share of right seeds"
        f"{', where rows were stopped one that holds whenever one stops' if stopped else ''}; Holm over "
        f"{counted(len(view.entries), 'test')}"
    ]
    if (least := least_difference(view)) is not None:
        usual, images = least
        notes.append(
            f"two lines differ on {usual} {noun(usual, 'image')} here, as the median: then a difference under {images} "
            "means nothing, before Holm"
        )
    return notes


def legend(comparison: Comparison) -> str:
    """What the columns of all tables mean, in one line."""
    said = ["GMACs: without those of the method itself", "intervals are 95 %, each for itself"]
    if comparison.evaluated:
        said.insert(0, f"drop: points of top-1 lost against {clean(comparison.base_name)}, on the same images")
    if comparison.over is not None:
        said.insert(0, f"speed-up: paired, over {clean(comparison.over)}")
    if any(point.row.padded for line in comparison.lines for point in line.points):
        said.append("tokens, GMACs and speed are with padding, where in brackets stands the mean left without")
    return "; ".join(said)
