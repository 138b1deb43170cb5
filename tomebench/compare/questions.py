"""The questions of a comparison: read from the command line, chosen by default, and answered one by one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

from tomebench.compare.paired_tests import paired_tests
from tomebench.compare.points import Comparison, Line, Point
from tomebench.compare.views import VALUES, Cost, View, find_line, front, match_cost, match_drop
from tomebench.errors import InputError, SpecError

DROPS = (0.5, 1.0)
"""Points of top-1 that may be lost, where nothing else is asked."""
_COSTS: tuple[Cost, ...] = ("tokens", "gmacs", "speed")


What = Literal["drop", "tokens", "gmacs", "speed"]
_WHAT: tuple[What, ...] = get_args(What)


class Question(NamedTuple):
    """What is to be equal, and the value that it is to have; None: all values of the compared method."""

    what: What
    value: float | None


def parse_match(text: str) -> Question:
    """Read a value of ``--match``: ``drop=0.5``, ``tokens``, ``tokens=80``, ``gmacs=0.9`` or ``speed=1.5``.

    Raises:
        SpecError: it is none of them, or the number cannot be.
    """
    name, equals, number = text.partition("=")
    given = f"--match {text[:40]!r}"
    if (what := next((each for each in _WHAT if each == name), None)) is None:
        raise SpecError(f"{given}: use drop=X, tokens, gmacs or speed, with =N for one value")
    if not equals:
        if what == "drop":
            raise SpecError(f"{given}: how many points may be lost? write drop=0.5")
        return Question(what, None)
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    least, most = (0.0, 100.0) if what == "drop" else (1e-6, 1e6)
    if not least <= value <= most:  # nor if it is no number
        unit = "points of top-1 from 0 to 100" if what == "drop" else "a number above 0"
        raise SpecError(f"{given}: cannot read {number[:20]!r}; {what}= takes {unit}")
    return Question(what, value)


def answers(
    comparisons: Sequence[Comparison],
    questions: Sequence[Question] = (),
    *,
    pareto: bool = False,
    tests: bool = False,
    against: str | None = None,
    tolerance: float = 0.05,
) -> list[tuple[Comparison, View]]:
    """Answer questions of every comparison; without any, those of the default.

    Args:
        comparisons: of one setting each.
        questions: what is to be equal.
        pareto: the front, too.
        tests: the paired tests, too.
        against: name of the line that others are compared with; by default the first.
        tolerance: largest distance of a point from a value, as a fraction.

    Raises:
        InputError: there is nothing to compare, no such line, or what a question needs was not measured.
    """
    lines = [line for each in comparisons for line in each.lines]
    if not lines:
        raise InputError("there is nothing to compare: no r = 0, or no other row; name runs of several values of r")
    chosen = {id(each): _against(each, lines, against) for each in comparisons}
    found: list[tuple[Comparison, View]] = []
    for each in comparisons:
        line = chosen[id(each)]
        if line is not None:
            views = _asked(each, line, questions, pareto, tests, tolerance)
            if not (questions or pareto or tests):
                views = _default(each, line, tolerance)
            found += [(each, view) for view in views]
    if missing := [text for text in _missing(comparisons, questions, pareto, tests) if text]:
        raise InputError(missing[0])
    if not found:
        raise InputError("there is nothing to compare: one method without top-1; add runs, or sweep with --data")
    return found


def _against(comparison: Comparison, lines: Sequence[Line], name: str | None) -> Line | None:
    """Line that others are compared with; None where only another setting has it."""
    wanted = find_line(lines, name)  # raises where none has it
    if name is None:
        return comparison.lines[0] if comparison.lines else None
    own = [line for line in comparison.lines if (line.name, line.method) == (wanted.name, wanted.method)]
    return own[0] if own else None


def _missing(comparisons: Sequence[Comparison], questions: Sequence[Question], pareto: bool, tests: bool) -> list[str]:
    """What questions need that no run has, with what to do about it."""
    accuracy = pareto or tests or any(question.what == "drop" for question in questions)
    speed = any(question.what == "speed" for question in questions)
    no_top1 = "no run has top-1 of r = 0 and others; sweep with --data, or ask for --match tokens, gmacs or speed"
    why = "measured speeds cannot be compared: they were not timed, or have no common reference; ask for --match gmacs"
    return [
        no_top1 if accuracy and not any(each.evaluated for each in comparisons) else "",
        why if speed and all(each.over is None for each in comparisons) else "",
    ]


def _asked(
    comparison: Comparison, against: Line, questions: Sequence[Question], pareto: bool, tests: bool, tolerance: float
) -> list[View]:
    views = []
    for question in questions:
        if question.what == "drop":
            views += [match_drop(comparison, question.value or 0.0)] * comparison.evaluated
        elif question.what != "speed" or comparison.over is not None:
            targets = None if question.value is None else [question.value]
            views.append(match_cost(comparison, question.what, against, tolerance, targets))
    if pareto and comparison.evaluated:
        views.append(front(comparison))
    if tests and comparison.evaluated:
        views.append(paired_tests(comparison, against))
    return views


def _default(comparison: Comparison, against: Line, tolerance: float) -> list[View]:
    """Each question once: at the drops of ``DROPS``, and at the costs that the compared method has at the last.

    A single line is at no costs of others.
    """
    views = [match_drop(comparison, limit) for limit in DROPS] if comparison.evaluated else []
    typical = _typical(views[-1] if views else None, against)
    for cost in _COSTS if len(comparison.lines) > 1 else ():
        if (value := VALUES[cost](typical)) is not None:
            views.append(match_cost(comparison, cost, against, tolerance, [value]))
    return [*views, front(comparison)] if comparison.evaluated else views


def _typical(view: View | None, against: Line) -> Point:
    """Point of the compared method in a view, else its nearest to that; without a view, the middle of its grid."""
    for entry in view.entries if view else ():
        if entry.line is against and (found := entry.point or entry.nearest) is not None:
            return found
    return against.points[len(against.points) // 2]
