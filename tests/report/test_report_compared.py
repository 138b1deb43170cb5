"""Tables of a comparison on made-up rows: golden text, markdown, LaTeX, csv, the figure, and the best alternative."""

from __future__ import annotations

import csv
import dataclasses
import io
import shutil
from pathlib import Path

import pytest
from compare.made_rows import field, measured, seeds
from latex_document import compiles, document

from tomebench.compare.lines import comparisons
from tomebench.compare.paired_tests import paired_tests
from tomebench.compare.questions import answers
from tomebench.compare.read import Measured
from tomebench.compare.views import View, front, match_cost, match_drop
from tomebench.report.alternative import best_alternative
from tomebench.report.compared import Section, legend, section
from tomebench.report.compared_figure import compared_figure
from tomebench.report.compared_formats import FIELDS, about, csv_text, latex_text, markdown_text, records
from tomebench.runs.codes import AA_FAILED

(FIELD,) = comparisons(field())


def text(found: Section) -> list[str]:
    """A table as lines, cells between bars."""
    heads, rows = found.table
    return ["|".join(line) for line in (heads, *rows)]


def of(view: View) -> Section:
    return section(FIELD, view)


def test_equal_accuracy() -> None:
    found = of(match_drop(FIELD, 0.75))
    assert found.title == "At equal accuracy: fastest with a drop of at most 0.75 points, 400 images"
    assert text(found) == [
        "method|point|tokens|GMACs|speed-up [95%]|top-1|drop [95%]|note",
        "tome|r=4|157|1.05|1.20x [1.18, 1.22]|99.50|0.50 [-0.46, 1.80]|too few images",
        "greedy|r=4|157|1.05|1.10x [1.08, 1.12]|100.00|0.00 [-0.95, 0.95]|too few images",
    ]
    assert found.notes == (
        "too few images for tome (about 4600), greedy (about 509): the interval of the drop is wider than the "
        "question; that many are needed if rates stay",
    )


def test_what_the_grid_does_not_reach() -> None:
    found = of(match_drop(FIELD, 0.0))
    assert text(found)[1] == "tome|-|-|-|-|-|-|not reached"
    assert found.notes[0] == "the grid does not reach it: tome (least drop 0.50 [-0.46, 1.80] at r=4)"


def test_equal_speed() -> None:
    found = of(match_cost(FIELD, "speed", FIELD.lines[0], 0.05, [1.5]))
    assert found.title == "At equal measured speed (1.50x, over r=0): the nearest point within 5 %"
    assert text(found) == [
        "method|point|off|tokens|GMACs|speed-up [95%]|top-1|drop [95%]|note",
        "tome|r=8|0 %|117|0.85|1.50x [1.48, 1.52]|99.00|1.00 [0.04, 2.54]|",
        "greedy|-|-|-|-|-|-|-|not reached",
    ]
    assert found.notes == ("greedy: grid does not reach 1.50x: nearest 1.40x at r=12, -6.7 %",)


def test_equal_tokens_at_every_point_of_the_first_method() -> None:
    found = of(match_cost(FIELD, "tokens", FIELD.lines[0], 0.05))
    assert found.title == "At equal tokens after the last block: the nearest point within 5 %"
    assert [line.rpartition("|")[2] for line in text(found)] == [
        "difference [95%]",
        "-",
        "+0.50 [-0.46, +1.80]",
        "-",
        "-1.00 [-3.03, +0.81]",
        "-",
        "+1.00 [+0.04, +2.54]",
    ]
    assert found.notes == ("difference: top-1 in points minus that of tome, on the same images",)


def test_the_front_names_what_dominates() -> None:
    found = of(front(FIELD))
    assert found.title == "The front of measured speed and top-1, 400 images"
    assert [line.split("|")[0] + " " + line.rpartition("|")[2] for line in text(found)][1:] == [
        "tome -",
        "tome -",
        "greedy tome r=8",
        "greedy tome r=8",
        "tome -",
        "greedy -",
        "none greedy r=4",
    ]


def test_the_tests_say_which_they_are() -> None:
    found = of(paired_tests(FIELD, FIELD.lines[0]))
    assert text(found) == [
        "method|point|tokens|lost|gained|difference [95%]|p|p, Holm",
        "greedy|r=4|157|0|2|+0.50 [-0.46, +1.80]|0.5|0.78",
        "greedy|r=8|117|8|4|-1.00 [-3.03, +0.81]|0.39|0.78",
        "greedy|r=12|77|0|4|+1.00 [+0.04, +2.54]|0.12|0.37",
    ]
    assert "p of McNemar's exact test" in found.notes[0]
    assert "sign-flip test of each image's share of right seeds" in found.notes[0]
    assert found.notes[0].endswith("Holm over 3 tests")


def test_the_spread_over_seeds_stands_beside_the_mean() -> None:
    (found,) = comparisons([measured(0), *seeds(4, range(2), range(4), range(6))])
    shown = section(found, match_drop(found, 1.0))
    heads, (row,) = shown.table
    assert row[heads.index("top-1")] == "99.00"
    assert row[heads.index("over seeds")] == "±0.50, 98.5..99.5"
    assert shown.title == "At equal accuracy: least MACs with a drop of at most 1 point, 400 images"


def test_trained_methods_are_told_apart_at_any_width() -> None:
    rows = [*field(), measured(8, (1,), speed=1.4, method="dynamicvit", training="trained")]
    (found,) = comparisons(rows)
    for view in (match_drop(found, 1.0), front(found), paired_tests(found, found.lines[-1])):
        shown = section(found, view)
        heads, lines = shown.table
        assert {line[heads.index("training")] for line in lines} >= {"off-the-shelf"}
        assert not any(step.head == "training" for step in shown.steps)
    assert "training" not in of(match_drop(FIELD, 1.0)).table[0]


def test_padding_is_said_beside_the_tokens() -> None:
    padded = {"padded": True, "tokens_out_mean": 61.25}
    (found,) = comparisons([*field(), measured(8, (1,), speed=1.4, method="ats", **padded)])
    heads, lines = section(found, match_cost(found, "tokens", found.lines[0], 0.05, [117])).table
    assert [line[heads.index("tokens")] for line in lines] == ["117", "117", "117 (61.2)"]
    assert "with padding, where in brackets stands the mean left without" in legend(found)
    assert "padding" not in legend(FIELD)
    record = next(each for each in records([(found, match_drop(found, 1.0))]) if each["method"] == "ats")
    assert (record["tokens_out"], record["tokens_out_mean"]) == (117, 61.25)


def test_the_front_says_what_is_not_in_it() -> None:
    (found,) = comparisons([*field(), measured(16, (1,), speed=2.0, warnings=(AA_FAILED,))])
    assert section(found, front(found)).notes[1:] == ("no valid speed, so not in it: tome r=16",)


def test_the_legend_says_against_what() -> None:
    assert legend(FIELD) == (
        "speed-up: paired, over r=0; drop: points of top-1 lost against r=0 of vit_tiny at 224 px, on the same images; "
        "GMACs: without those of the method itself; intervals are 95 %, each for itself"
    )


def test_several_settings_are_named() -> None:
    found = comparisons([*field(), measured(0, dtype="bf16"), measured(4, dtype="bf16")])
    shown = section(found[1], match_drop(found[1], 1.0), several=True)
    assert shown.title.endswith("400 images (cpu, fp32, batch 2)")
    assert about(found)[0].partition(": ")[0] == "cpu, bf16, batch 2"


def test_markdown_has_a_heading_a_question() -> None:
    views = [view for _, view in answers([FIELD])]
    written = markdown_text([of(view) for view in views], about([FIELD], ["a remark | of_it"]))
    assert written.count("\n## ") == len(views) == 6
    assert "| tome   | r=8   |" in written
    assert written.endswith("- a remark \\| of_it\n- cpu, fp32, batch 2\n")


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex with booktabs")
def test_latex_compiles(tmp_path: Path) -> None:
    sections = [of(view) for _, view in answers([FIELD])]
    assert compiles(document(latex_text(sections, about([FIELD]))), tmp_path)


def test_latex_has_a_table_a_question() -> None:
    sections = [of(view) for _, view in answers([FIELD])]
    written = latex_text(sections, about([FIELD]))
    assert written.count(r"\begin{table*}") == written.count(r"\end{table*}") == len(sections)
    assert all(rf"\caption{{{each.title.partition(':')[0]}" in written for each in sections)


def test_csv_has_a_line_an_entry_with_full_precision() -> None:
    views = answers([FIELD])
    lines = list(csv.DictReader(io.StringIO(csv_text(views))))
    assert len(lines) == sum(len(view.entries) for _, view in views)
    assert tuple(lines[0]) == FIELDS
    first = next(line for line in lines if line["question"] == "drop" and line["method"] == "tome")
    assert (float(first["limit"]), first["point"], float(first["speedup"]), float(first["drop"])) == (
        0.5,
        "r=4",
        1.2,
        0.5,
    )
    assert all(record.keys() == {*FIELDS} for record in records(views))


def test_names_are_no_formulas_and_no_markup() -> None:
    (found,) = comparisons([measured(0), measured(4, method="=1+1|x")])
    views = answers([found])
    assert "'=1+1|x" in csv_text(views)
    assert "=1+1\\|x" in markdown_text([section(found, view) for _, view in views], [])


# --- figure


def png(found: bytes | str) -> bytes:
    assert isinstance(found, bytes)
    assert found.startswith(b"\x89PNG")
    return found


def test_the_same_comparison_is_the_same_figure() -> None:
    pytest.importorskip("matplotlib")
    (again,) = comparisons(field()[::-1])
    assert png(compared_figure(FIELD)) == png(compared_figure(again))


def test_rivals_and_untimed_rows_are_drawn_too() -> None:
    pytest.importorskip("matplotlib")
    (found,) = comparisons([measured(0), measured(4, (1,)), measured(0, (2,), img_size=160, gmacs=0.6)])
    png(compared_figure(found))


def test_without_top_1_there_is_no_figure() -> None:
    pytest.importorskip("matplotlib")
    (found,) = comparisons([measured(0, None), measured(4, None)])
    assert compared_figure(found) == "no figure: no line has top-1"


# --- the best alternative


def counted(each: Measured) -> Measured:
    lost = 400 - (each.row.top1_correct or 0)
    counts = {"top1_lost": lost, "top1_gained": 0, "mcnemar_p": 1.0}
    return dataclasses.replace(each, row=dataclasses.replace(each.row, **counts))


ROWS = [counted(each).row for each in field()]


@pytest.mark.parametrize(
    ("max_drop", "says"),
    [
        (1.0, "best alternative to tome at 1 point: greedy r=4 1.10x [1.08, 1.12], drop 0.00 [-0.95, 0.95]; "
              "tome r=8 1.50x [1.48, 1.52], drop 1.00 [0.04, 2.54]"),
        (0.0, "best alternative to tome at 0 points: greedy r=4 1.10x [1.08, 1.12], drop 0.00 [-0.95, 0.95]; "
              "tome loses more at every r"),
    ],
)  # fmt: skip
def test_the_best_alternative_stands_beside_the_first_method(max_drop: float, says: str) -> None:
    assert best_alternative(ROWS, max_drop) == says


def test_where_all_others_lose_more_it_says_so() -> None:
    rows = [row for row in ROWS if (row.method, row.r) != ("greedy", 4)]
    assert best_alternative(rows, 1.0) == "best alternative to tome at 1 point: none, all others lose more"


def test_one_method_has_no_alternative() -> None:
    assert best_alternative(ROWS[:4]) is None
    trained = [dataclasses.replace(row, training="trained") if row.method == "greedy" else row for row in ROWS]
    assert best_alternative(trained) is None, "a trained method is none to one off the shelf"
    assert (
        best_alternative([measured(0, None).row, measured(4, None).row, measured(4, None, method="greedy").row]) is None
    )
