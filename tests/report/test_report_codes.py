"""Codes in brief: every one fits a line of 80 columns, and has a mark of its own."""

from typing import get_args

import pytest
from report_rows import make_row, speed

from tomebench.report.codes import brief_lines, notes, short_notes
from tomebench.report.conditions import compact_conditions
from tomebench.report.narrow import Step, before, without
from tomebench.runs.codes import CODES
from tomebench.schema import Status


def rows_with(code: str):
    status = code if code in ("failed", "oom", "nonfinite", "unconverged") else "ok"
    return [make_row(0), make_row(8, status=status, warnings=() if status == code else (code,))]


@pytest.mark.parametrize("code", [*CODES, "SAME_AS_R16"])
def test_every_code_fits_a_line_and_is_named(code):
    ((mark, line),) = brief_lines(rows_with(code), 78)
    assert len(line) <= 78
    assert code in line.partition(":")[0]
    assert short_notes(rows_with(code)) == ["", mark]
    assert len(mark) <= 9


def test_every_mark_is_of_one_code():
    assert len({about.mark for about in CODES.values()}) == len(CODES)


def test_every_code_says_when_it_holds_or_is_a_status():
    assert {code for code, about in CODES.items() if not (about.of_row or about.of_run)} == {*get_args(Status)} - {"ok"}


def test_the_gravest_come_first_and_rows_are_named_where_there_is_room():
    rows = [make_row(r, warnings=("DRIFT", "NOISY", "PARTIAL_EVAL")) for r in (0, 8)]
    wide = [line for _, line in brief_lines(rows, 78)]
    assert [line.split()[0] for line in wide] == ["PARTIAL_EVAL", "DRIFT", "NOISY"]
    assert wide[1].startswith("DRIFT (every row): ")
    assert brief_lines(rows, 30)[1][1].startswith("DRIFT: ")


def test_what_every_row_has_is_left_out_of_short_notes():
    rows = [make_row(0, warnings=("NOISY",)), make_row(8, status="unconverged", warnings=("NOISY",), **speed(1.3))]
    assert short_notes(rows) == ["", "unc"]
    assert short_notes(rows[1:]) == ["unc noisy"]
    assert notes(rows[1]) == "±1.6 %, unconverged, noisy"


def test_an_error_is_shown_where_it_fits():
    rows = [make_row(8, status="failed", error="RuntimeError: no kernel")]
    assert brief_lines(rows, 78)[0][1] == "failed (r = 8): could not be measured; RuntimeError: no kernel"
    assert brief_lines(rows, 35)[0][1] == "failed: RuntimeError: no kernel"
    assert brief_lines(rows, 24)[0][1] == "failed: could not be measured"


def test_compact_conditions():
    assert compact_conditions([make_row()], "my/best.pth.tar").startswith("vit_tiny with best.pth.tar, ")
    assert compact_conditions([]) == ""
    assert compact_conditions([make_row()]) == (
        "vit_tiny.tag, random weights, 224 px, tome, cpu, fp32, batch 2, no images, speed within one process"
    )
    timed_apart = compact_conditions([make_row(), make_row(8, processes=3)])
    assert timed_apart.endswith(", no images, speed within one process or between 3 processes")
    gone_on = [make_row(sessions=1), make_row(8, sessions=2)]
    assert compact_conditions(gone_on).endswith(", no images, speed of 1 to 2 processes taken as one")
    assert compact_conditions(gone_on[1:]).endswith(", no images, speed of 2 processes taken as one")
    assert compact_conditions([make_row(rounds=0)]).endswith(", no images")
    both = compact_conditions([make_row(), make_row(8, dtype="bf16", schedule="decreasing", compile=True)])
    assert "dtype varies" in both
    assert "compiled" in both


def test_a_step_shortens_or_leaves_out_its_column_alone():
    table = (["r", "img/s ±", "notes"], [["0", "1 ±2", ""], ["8", "3", ""]])
    assert Step("img/s ±", "img/s", before(" ±"))(table) == (["r", "img/s", "notes"], [["0", "1", ""], ["8", "3", ""]])
    assert without("r")(table) == (["img/s ±", "notes"], [["1 ±2", ""], ["3", ""]])
    assert Step("notes", "notes")(table)[0] == ["r", "img/s ±"], "there is nothing in it"
    assert without("p50 ms")(table) == table
