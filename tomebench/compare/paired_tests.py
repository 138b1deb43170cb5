"""Tests between methods on the same images at the same r, with Holm's correction over all of them."""

from __future__ import annotations

import dataclasses
from statistics import median

from tomebench.compare.points import Comparison, Line, between
from tomebench.compare.views import Entry, View
from tomebench.runs.row import Row
from tomebench.stats import LEVEL, holm, mcnemar


def paired_tests(comparison: Comparison, against: Line) -> View:
    """Every line against one, at each r at which both leave as many tokens after every block, of one model and input.

    The p-value of two single rows is McNemar's exact one; that of means over seeds is of the exact sign-flip test of
    each image's share of right seeds. Holm's correction is over all tests of the view.
    """
    others = [(line, point) for line in comparison.lines if line is not against for point in line.points]
    entries = [
        Entry(line, point, versus=versus)
        for base in against.points
        for line, point in others
        if _alike(base.row) == _alike(point.row) and (versus := between(base, point)) is not None
    ]
    adjusted = holm([entry.versus.p for entry in entries if entry.versus is not None])
    found = (dataclasses.replace(entry, holm=p) for entry, p in zip(entries, adjusted, strict=True))
    return View("tests", tuple(found), against=against)


def _alike(row: Row) -> tuple[object, ...]:
    return (row.model, row.weights, row.img_size, row.r, row.tokens)


def least_difference(view: View) -> tuple[int, int] | None:
    """Images on which two methods of a view differ, as the median, and the least difference that this shows to exist.

    The second is of a single exact test, without correction; None where no images differ, or too few for any.
    """
    differing = [round(e.versus.lost + e.versus.gained) for e in view.entries if e.versus is not None]
    usual = round(median(differing)) if differing else 0
    shown = (d for d in range(usual % 2, usual + 1, 2) if mcnemar((usual - d) // 2, (usual + d) // 2) <= 1 - LEVEL)
    least = next(shown, None)
    return None if least is None else (usual, least)
