"""Parts of one sweep come together to one table; what is missing or disagrees is said."""

from __future__ import annotations

from dataclasses import replace

import pytest
from report_rows import BASE, make_row

from tomebench.report.parts import are_parts, joined

CONFIG = {"model": "m", "r": "0..4", "budget": "none"}


def part(cells: str, **changes):
    return {**CONFIG, "cells": cells, **changes}


@pytest.mark.parametrize(
    ("configs", "together"),
    [
        ([part("1/2"), part("2/2")], True),
        ([part("2/3"), part("1/3")], True),
        ([part("1/2")], False),
        ([CONFIG, part("2/2")], False),
        ([part("1/2"), part("1/2")], False),
        ([part("1/2"), part("2/3")], False),
        ([part("1/2"), part("2/2", model="other")], False),
    ],
)
def test_what_are_parts_of_one_sweep(configs, together):
    assert are_parts(configs) is together


def test_rows_come_in_order_of_r_with_one_baseline():
    rows = [[BASE, make_row(4), make_row(2)], [BASE, make_row(3), make_row(1)]]
    table, notes = joined(rows, [part("1/2"), part("2/2")])
    assert [row.r for row in table] == [0, 1, 2, 3, 4]
    assert notes == ["r = 0 is that of part 1/2; each speed-up is over the r = 0 of its own part"]


def test_missing_parts_and_another_baseline_are_said():
    other = replace(BASE, top1_correct=(BASE.top1_correct or 0) + 1)
    _, notes = joined([[BASE], [other]], [part("1/4"), part("3/4")])
    assert notes[1:] == [
        "the parts do not agree about r = 0: they had other images, weights or arithmetic",
        "parts that are not here: 2/4, 4/4",
    ]
