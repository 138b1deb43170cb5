"""One sentence a person can act on, and the rule that picks the row it is about.

Usable rows have status ok or unconverged, come from a run whose A/A control held, are not r = 0 and not a duplicate of
a smaller r. With accuracy, among the rows that are faster than r = 0:

1. the fastest whose loss is surely within ``TOLERANCE`` points: at the lower end of its interval, and by the
   Clopper-Pearson bound on the images lost (the paired interval alone is narrow when few images differ);
2. if there is none, the fastest whose loss itself is within it, and the sentence says what is left open;
3. if there is none, the row that loses least, and the sentence says that every r loses more.

Without accuracy it is the fastest row that the cap did not change. If nothing is faster, the sentence says so about the
fastest row. If nothing was timed, "faster" is replaced by the MAC ratio.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from tomebench.measure.validity import AA_FAILED, INVALID
from tomebench.report.series import interval, is_baseline, name, overhead, points, varying
from tomebench.schema import Row
from tomebench.stats import clopper_pearson
from tomebench.words import are, counted

TOLERANCE = 1.0
"""Loss of top-1 against r = 0, in points, up to which a row may be recommended."""

_BIASED = "No speed-up can be stated: two timings of r=0 disagree (AA_FAILED)"

Choice = Literal["sure", "likely", "none within", "not faster", "speed only"]


def headline(rows: Sequence[Row]) -> tuple[Row, Choice] | None:
    """The row to talk about and why it was chosen (see the module's rule); None if no row can be compared."""
    usable = [row for row in rows if _usable(row)]
    if any(row.speedup_vs_r0 is not None for row in usable):
        usable = [row for row in usable if row.speedup_vs_r0 is not None]
    evaluated = [row for row in usable if row.delta_top1 is not None]
    if not evaluated:
        free = [row for row in usable if not row.clamped] or usable
        return (max(free, key=_gain), "speed only") if free else None
    faster = [row for row in evaluated if _gain(row) > 1]
    if not faster:
        return max(evaluated, key=_gain), "not faster"
    sure = [row for row in faster if _surely_within(row)]
    likely = [row for row in faster if _delta(row) >= -TOLERANCE]
    if sure or likely:
        return max(sure or likely, key=_gain), "sure" if sure else "likely"
    return max(faster, key=lambda row: (_delta(row), _gain(row))), "none within"


def sentence(rows: Sequence[Row]) -> str | None:
    """The headline row in words, e.g. ``r=8 is 1.31x faster [1.29, 1.33] at -0.35 points [-0.50, -0.20] (...)``.

    If the A/A control failed there is no speed to speak of, and the sentence says that instead. None if there is
    nothing to compare.
    """
    if (found := headline(rows)) is None:
        biased = any(AA_FAILED in row.warnings for row in rows)
        return f"{_BIASED}, so run again on a quiet machine" if biased else None
    row, choice = found
    text = f"{name(row, varying(rows))} {_speed(row)}"
    if change := points(row.delta_top1, row.delta_top1_lo, row.delta_top1_hi, " points"):
        text += f" at {change}"
    basis = []
    if row.speedup_vs_r0 is not None:
        basis.append(
            f"median of {counted(row.rounds or 0, 'round')}" + ", not converged" * (row.status == "unconverged")
        )
    if row.n_seen is not None:
        basis.append(counted(row.n_seen, "image"))
    return text + (f" ({'; '.join(basis)})" if basis else "") + _caveat(row, choice)


def yardsticks(rows: Sequence[Row]) -> str | None:
    """The headline row against the unwrapped model and its MAC ratio; None where that was not measured."""
    found = headline(rows)
    if found is None or found[0].speedup_vs_unwrapped is None:
        return None
    row = found[0]
    measured = (
        f"{row.speedup_vs_unwrapped:.2f}x{interval(row.speedup_vs_unwrapped_lo, row.speedup_vs_unwrapped_hi, '.2f')}"
    )
    text = f"Against the unwrapped model {name(row, varying(rows))} reaches {measured}; its MAC ratio is "
    text += f"{row.mac_ratio:.2f}x" + ("" if row.efficiency is None else f", efficiency {row.efficiency:.2f}")
    if row.speedup_ceiling is None or row.merge_overhead is None:
        return text
    sliced = f"slicing the same tokens off gives {row.speedup_ceiling:.2f}x over r=0"
    return f"{text}; {sliced}, overhead of merging {overhead(row)}"


def _usable(row: Row) -> bool:
    excluded = any(code in INVALID or code.startswith("SAME_AS_R") for code in row.warnings)
    return row.status in ("ok", "unconverged") and not is_baseline(row) and not excluded


def _gain(row: Row) -> float:
    return row.mac_ratio if row.speedup_vs_r0 is None else row.speedup_vs_r0


def _surely_within(row: Row) -> bool:
    if row.delta_top1_lo is None or row.delta_top1_lo < -TOLERANCE or not row.n_seen:
        return False
    lost = max(0, round(-_delta(row) * row.n_seen / 100))
    return 100 * clopper_pearson(lost, row.n_seen).hi <= TOLERANCE


def _delta(row: Row) -> float:
    return row.delta_top1 if row.delta_top1 is not None else float("-inf")


def _speed(row: Row) -> str:
    value, low, high = row.speedup_vs_r0, row.speedup_vs_r0_lo, row.speedup_vs_r0_hi
    if value is None:
        return f"needs {100 * (1 - 1 / row.mac_ratio):.0f} % fewer MACs than the unwrapped model"
    limits = interval(low, high, ".2f")
    if low is not None and high is not None and low <= 1 <= high:
        return f"is not measurably faster than r=0: {value:.2f}x{limits}"
    return f"is {value:.2f}x faster{limits}" if value > 1 else f"is slower than r=0: {value:.2f}x{limits}"


def _caveat(row: Row, choice: Choice) -> str:
    low, high = row.delta_top1_lo, row.delta_top1_hi
    wide = low is not None and high is not None and high - low > TOLERANCE
    coarse = wide or 100 * clopper_pearson(0, row.n_seen or 1).hi > TOLERANCE
    match choice:
        case "speed only":
            return "; accuracy was not evaluated, add --data to see its price"
        case "none within" if coarse and high is not None and high >= -TOLERANCE:
            return f"; every r loses more than {TOLERANCE:g} point, but {_too_few(row)} to be sure"
        case "none within":
            return f"; every r that is faster loses more than {TOLERANCE:g} point"
        case "likely" if coarse:
            return f"; {_too_few(row)} to tell whether the loss stays within {TOLERANCE:g} point"
        case "likely":
            return f"; the loss may exceed {TOLERANCE:g} point"
    return ""


def _too_few(row: Row) -> str:
    seen = row.n_seen or 0
    return f"{counted(seen, 'image')} {are(seen)} too few"
