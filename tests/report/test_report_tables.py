"""The text formats: exact numbers, inert text."""

import csv
import dataclasses
import io
import json

import pytest
from hypothesis import given, settings
from report_rows import any_row, make_row, make_sweep

from tomebench.report.tables import csv_text, jsonl_text, markdown_table
from tomebench.runs.row import COLUMNS

NASTY = ["=HYPERLINK(1,2)", "a|b<script>", "::error::x", "\x1b[31m", "x\n::error::y", "##[error]z"]


def cells(text: str) -> dict[str, str]:
    """The only data line of a csv text, by column."""
    (line,) = csv.DictReader(io.StringIO(text, newline=""))
    return line


def test_cells_refuses_two_lines():
    with pytest.raises(ValueError, match="unpack"):
        cells(csv_text(make_sweep()))


def test_csv_numbers_are_exact_and_untouched():
    line = cells(csv_text([make_row(8, delta_top1=-0.1 - 0.2, gmacs=1 / 3, compile=True, tokens=(189, 181))]))
    assert line["delta_top1"] == "-0.30000000000000004"
    assert line["gmacs"] == "0.3333333333333333"
    assert (line["r"], line["compile"], line["tokens"], line["top1"]) == ("8", "True", "189 181", "")


@pytest.mark.parametrize("name", NASTY)
def test_text_is_inert_in_csv(name):
    text = csv_text([make_row(model=name, error=name, dataset=name)])
    assert text.isprintable() is False  # newlines end the two lines ...
    assert text.count("\n") == 2
    assert text.replace("\n", "").isprintable()  # ... and nothing else is a control
    line = cells(text)
    assert not line["model"].startswith(("=", "+", "-", "@"))
    assert not any(part.lstrip().startswith("::") for part in text.splitlines())
    assert "##[" not in text


@pytest.mark.parametrize("name", NASTY)
def test_text_is_faithful_and_inert_in_json(name):
    text = jsonl_text([make_row(model=name)])
    assert json.loads(text)["model"] == name
    assert text.count("\n") == 1
    assert text.strip().isprintable()
    assert text.isascii()
    assert "##[" not in text


@given(any_row())
@settings(max_examples=40, deadline=None)
def test_json_lines_read_back(row):
    loaded = json.loads(jsonl_text([row]))
    assert list(loaded) == [column.name for column in COLUMNS]
    for name, value in loaded.items():
        expected = getattr(row, name)
        assert value == (list(expected) if isinstance(expected, tuple) else expected)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_json_never_holds_nan(value):
    with pytest.raises(ValueError, match="not JSON compliant"):
        jsonl_text([make_row(top1=value)])


@pytest.mark.parametrize("name", NASTY)
def test_a_markdown_table_keeps_its_shape(name):
    text = markdown_table(["model", "r", "notes"], [[name, "8", name], ["x", "0", ""]])
    lines = text.splitlines()
    assert len(lines) == 4
    for line in lines:
        assert line.replace("\\|", "").count("|") == 4
        assert line.startswith("|")
        assert "<" not in line
        assert line.isprintable()


def test_markdown_golden():
    assert markdown_table(["r", "notes"], [["0", ""], ["16", "cap"]]) == (
        "|   r | notes |\n"
        "| --: | ----- |\n"
        "|   0 |       |\n"
        "|  16 | cap   |\n"
    )  # fmt: skip


def test_no_rows():
    assert csv_text([]).count("\n") == 1
    assert jsonl_text([]) == ""


def test_one_json_line_per_row():
    rows = make_sweep()
    assert [json.loads(line)["r"] for line in jsonl_text(rows).splitlines()] == [row.r for row in rows]
    assert len(dataclasses.fields(rows[0])) == len(COLUMNS)  # no field of a row without a column
