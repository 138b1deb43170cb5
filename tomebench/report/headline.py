"""The recommendation of an r as a sentence: words for what :mod:`tomebench.report.advice` decides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tomebench.report.advice import Advice, Choice, advise, at_chance, most_lost, unchanged
from tomebench.report.series import interval, name, overhead, points, reach, varying
from tomebench.runs.codes import AA_FAILED, AGAINST, CPU_BUSY, NOISY
from tomebench.runs.row import Row
from tomebench.schema import MAX_DROP
from tomebench.stats.needed import REACH
from tomebench.words import counted

_BIASED = "No speed-up can be stated: two timings of r=0 disagree (AA_FAILED), so run again on a quiet machine"
_GUESSED = (
    "No loss of accuracy can be stated: top-1 at r=0 is that of guessing or of classes in another order "
    "(CHANCE_LEVEL), so check the order of the classes and the preprocessing"
)


@dataclass(frozen=True)
class Answer:
    """The recommended row, if any, with the sentence about it."""

    row: Row | None  # recommended; None: no row is
    text: str  # the sentence: the recommendation, or why there is none and what would settle it
    choice: Choice | Literal["biased", "guessed"]  # its kind; the last two: no valid speed, or no valid top-1
    images: int | None = None  # needed to settle it for the row of the text, if its rates stay as they are
    rounds: int | None = None  # likewise
    processes: int | None = None  # likewise, instead of rounds, where several processes have measured it

    def __str__(self) -> str:
        return self.text


def answer(rows: Sequence[Row], max_drop: float = MAX_DROP) -> Answer | None:
    """The recommendation for a table: row, :func:`sentence`, and data needed; None if there is nothing to compare."""
    if (advice := advise(rows, max_drop)) is None:
        if any(AA_FAILED in row.warnings for row in rows):
            return Answer(None, _BIASED, "biased")
        return Answer(None, _GUESSED, "guessed") if any(at_chance(row) for row in rows) else None
    row = advice.row
    shown = varying(rows)
    label, loss = name(row, shown), points(row.delta_top1, row.delta_top1_lo, row.delta_top1_hi, " points")
    own = row.speedup_vs_r0 is not None and len({(each.model, each.weights, each.img_size) for each in rows}) > 1
    found = f"{label} {_speed(row)}" + " against its own r=0" * own + (f" at {loss}" if loss else "")
    text = _words(advice, found, _basis(row), counted(max_drop, "point"), shown)
    recommended = row if advice.recommended else None
    return Answer(recommended, text, advice.choice, advice.images, advice.rounds, advice.processes)


def sentence(rows: Sequence[Row], max_drop: float = MAX_DROP) -> str | None:
    """The recommendation in words, e.g. ``r=8 is 1.31x faster [1.29, 1.33] at -0.35 points [-0.50, -0.20], ...``.

    It recommends a row, or begins with "Nothing" and says why and, if that is open, how many images or rounds would
    settle it. If the A/A control failed, speeds are invalid, and if top-1 at r = 0 is at chance level, losses are; the
    sentence says that instead.

    Args:
        rows: of one run or several.
        max_drop: largest tolerable loss of top-1 against r = 0, in points.

    Returns:
        None if there is nothing to compare.
    """
    found = answer(rows, max_drop)
    return None if found is None else found.text


def yardsticks(rows: Sequence[Row], max_drop: float = MAX_DROP) -> str | None:
    """A sentence on the same row's speed-up over the unwrapped model, MAC ratio and ceiling; None if not measured."""
    advice = advise(rows, max_drop)
    if advice is None or advice.row.speedup_vs_unwrapped is None:
        return None
    row = advice.row
    measured = (
        f"{row.speedup_vs_unwrapped:.2f}x{interval(row.speedup_vs_unwrapped_lo, row.speedup_vs_unwrapped_hi, '.2f')}"
    )
    text = f"Against the unwrapped model {name(row, varying(rows))} reaches {measured}; its MAC ratio is "
    text += f"{row.mac_ratio:.2f}x" + ("" if row.efficiency is None else f", efficiency {row.efficiency:.2f}")
    if row.speedup_ceiling is None or row.merge_overhead is None:
        return text
    sliced = f"slicing the same tokens off gives {row.speedup_ceiling:.2f}x over r=0"
    return f"{text}; {sliced}, overhead of merging {overhead(row)}"


def _words(advice: Advice, found: str, basis: str, limit: str, shown: Sequence[str]) -> str:
    """Compose the sentence from the row's figures, their basis, the limit, and the settings that name the row."""
    row = advice.row
    same = ""
    if row.agreement is not None and row.delta_top1 is None:
        share = f"{row.agreement:.1f} %{interval(row.agreement_lo, row.agreement_hi, '.1f')} of the images"
        same = f"; {share} keep their class, so it loses "
    match advice.choice:
        case "recommended" if same:
            return f"{found}{basis}{same}{limit} at most"
        case "recommended":
            return f"{found}, surely within {limit}{basis}"
        case "speed only":
            return f"{found}{basis}; accuracy was not evaluated, add --data to see its price"
        case "agreement":
            most = counted(float(f"{most_lost(row, advice.chances):.1f}"), "point")
            needed = "labels would tell"
            if advice.labelled is None or advice.labelled > (row.n_seen or 0):  # and not those of these images
                of = "more images" if advice.labelled is None else f"at least {counted(advice.labelled, 'image')}"
                needed = f"labels of {of} would tell"
            if advice.images is not None:
                needed += f", or {_amount(advice.images, 'images')} if that is how it stays"
            text = f"Nothing can be recommended without labels: at best {found}{basis}{same}up to {most}"
            return f"{text}{_as_one_of(advice)}; {needed}"
        case "no accuracy":
            return f"Nothing can be recommended: {found}{basis}, but its top-1 cannot be compared with that of r=0"
        case "images":
            needed = f"{_images(advice.images, row)} would be needed to show that its loss is within {limit}"
            needed += _as_one_of(advice)
            if advice.sooner is not None:
                other, images = advice.sooner
                needed += f"; {_images(images, other)} for {name(other, shown)}, which {_speed(other)}"
            return f"Nothing can be recommended yet: {found}{basis}, but if that stays so, {needed}"
        case "rounds":
            others = f"every r that is surely faster seems to lose more than {limit}"
            return f"Nothing pays here so far: {others}; {found}{basis}{_to_tell(advice)}"
        case "seems beyond":
            needed = f"{_amount(advice.images, 'images')} would be needed to be sure"
            others = f"every r that is faster seems to lose more than {limit}"
            return f"Nothing pays here so far: {others}; at best {found}{basis}, and if that stays so, {needed}"
        case "beyond":
            return f"Nothing pays here: every r that is faster loses more than {limit}; at best {found}{basis}"
        case "open":
            others = f"no r is surely faster than r=0, and what may be seems to lose more than {limit}"
            return f"Nothing pays here so far: {others}; at best {found}{basis}"
        case "stopped":
            says = "check says how they compare" if AGAINST in row.warnings else "recommend says which to take"
            return f"Rows were stopped once enough was known of them: tomebench {says}"
        case "unfinished":
            rest = "run the same command again, which goes on where it stopped"
            return f"Nothing can be recommended yet: the sweep is unfinished; {rest}"
        case "not faster":
            may_be = row.speedup_vs_r0 is not None and (row.speedup_vs_r0_hi is None or row.speedup_vs_r0_hi > 1)
            nothing = "Nothing pays here so far: no r is surely" if may_be else "Nothing pays here: no r is"
            return f"{nothing} faster than r=0; at best {found}{basis}{_to_tell(advice)}"


def _as_one_of(advice: Advice) -> str:
    """Words for the Bonferroni level: "as one of N rows"; empty for a single row."""
    return f", as one of {counted(advice.chances, 'row')}" if advice.chances > 1 else ""


def _to_tell(advice: Advice) -> str:
    """Words for the rounds or processes that would show whether a row is faster; empty if it surely is not."""
    if advice.rounds is None and advice.processes is None:
        unit = "processes" if (advice.row.processes or 1) > 1 else "rounds"
        slower = advice.row.speedup_vs_r0_hi is not None and advice.row.speedup_vs_r0_hi <= 1
        if slower or advice.row.speedup_vs_r0 is None:
            return ""
        if {NOISY, CPU_BUSY} & {*advice.row.warnings}:
            return ", and the machine was too busy or noisy to tell: run again on a quiet one"
        return f", and more {unit} would hardly show a gain"
    needed = _amount(advice.processes, "processes") if advice.processes else _amount(advice.rounds, "rounds")
    if advice.images is not None:
        needed += f" and {_images(advice.images, advice.row).removeprefix('about ')}"
    return f", and {needed} would be needed to tell"


def _images(number: int | None, row: Row) -> str:
    """Words for the number of images that a row needs."""
    return f"{counted(number, 'image')} or more" if number is not None and unchanged(row) else _amount(number, "images")


def _amount(number: int | None, what: str) -> str:
    return f"over {REACH} times as many {what}" if number is None else f"about {number} {what}"


def _speed(row: Row) -> str:
    value, low, high = row.speedup_vs_r0, row.speedup_vs_r0_lo, row.speedup_vs_r0_hi
    if value is None:
        return f"needs {100 * (1 - 1 / row.mac_ratio):.0f} % fewer MACs than the unwrapped model"
    limits = interval(low, high, ".2f")
    return f"is {value:.2f}x faster{limits}" if low is not None and low > 1 else f"reaches {value:.2f}x{limits}"


def _basis(row: Row) -> str:
    basis = []
    if row.speedup_vs_r0 is not None:
        rounds = counted(row.rounds, "round")
        mean = f"mean of {counted(row.processes or 1, 'process')}, {rounds}"
        basis.append(mean if (row.processes or 1) > 1 else f"median of {rounds} {reach([row])}")
        basis[0] += ", not converged" * (row.status == "unconverged")
    if row.n_seen is not None:
        basis.append(counted(row.n_seen, "image"))
    return f" ({'; '.join(basis)})" if basis else ""
