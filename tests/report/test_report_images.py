"""Runs over different images: the table says which, and nothing joins or compares what is about different ones."""

import dataclasses

import pytest
from report_rows import accuracy, make_row, make_sweep, speed

from tomebench.report import figures
from tomebench.report.conditions import compact_conditions, conditions
from tomebench.report.series import varying
from tomebench.report.text import detail_table, display_table, sentence


def about(rows, dataset, digest, **changes):
    return [dataclasses.replace(row, dataset=dataset, dataset_digest=digest, **changes) for row in rows]


ONE = about(make_sweep(), "digits (partial: 300 of 1797 images)", "a1" * 32)
OTHER = about(make_sweep(), "imagenetv2", "b2" * 32, n_seen=10000)


def joined(rows):
    """The digests of the rows that each line of the figure goes through."""
    shown, with_accuracy = figures._shown(rows)
    axes = figures._draw(rows, shown, with_accuracy, ()).axes[0]
    at = {(x, y): row.dataset_digest for row in shown for x, y in [(figures._x(row), figures._y(row))]}
    lines = [list(zip(*line.get_data(), strict=True)) for line in axes.lines if line.get_alpha() == 0.45]
    return [{at[point] for point in line} for line in lines if len(line) > 1]


def column(rows, table, head):
    headers, cells = table(rows)
    return [row[headers.index(head)] for row in cells]


def test_joined_sees_a_line_between_different_images():
    mixed = [dataclasses.replace(row, dataset_digest=digest) for row, digest in zip(make_sweep(), "abcdd", strict=True)]
    whole = [dataclasses.replace(row, dataset_digest="a") for row in mixed]
    assert joined(whole) == [{"a"}]
    unaware = dict.fromkeys(["dataset_digest"], None)
    with pytest.MonkeyPatch.context() as patch:  # a figure that does not know about images
        patch.setattr(figures, "varying", lambda rows: varying([dataclasses.replace(row, **unaware) for row in rows]))
        assert joined(mixed) == [{*"abcdd"}]
    assert joined(mixed) == [{"d"}]


def test_a_column_says_which_images_and_no_line_joins_them():
    rows = [*ONE, *about(OTHER, "imagenetv2", "b2" * 32, top1=50.0)]
    for table in (display_table, detail_table):  # the second has a column for how many were seen, too
        assert column(rows, table, "data") == ["digits"] * 5 + ["imagenetv2"] * 5
    assert joined(rows) == [{"a1" * 32}, {"b2" * 32}]
    assert column(rows, display_table, "Δ vs r=0 [95%]") == column(ONE, display_table, "Δ vs r=0 [95%]") * 2
    assert "data" not in display_table(ONE)[0]
    assert sentence(rows, 5.0).split(" is ")[0] in ("digits r=8", "imagenetv2 r=8")


@pytest.mark.parametrize(
    ("other", "head", "names"),
    [
        ({"dataset": "digits", "n_seen": 1797}, "data seen", ["digits 300", "digits 1797"]),
        ({"dataset": "digits"}, "data digest", ["digits a1a1a1a1", "digits b2b2b2b2"]),
    ],
)
def test_lists_of_one_data_set_are_told_apart_by_the_shortest_that_does(other, head, names):
    rows = [*ONE, *about(OTHER, **{"dataset": "digits", "digest": "b2" * 32, "n_seen": 300, **other})]
    assert column(rows, display_table, head) == [names[0]] * 5 + [names[1]] * 5


def test_a_row_that_was_not_evaluated_is_about_none():
    timed = make_row(8, **speed(1.3))
    assert column([*ONE, *OTHER, timed], display_table, "data")[-1] == "-"
    assert "data" not in display_table([*ONE, timed])[0]  # which is no other list


def test_the_conditions_count_each_list_on_its_own():
    both = [*ONE, *OTHER]
    line = next(line for line in conditions(both) if line.startswith("images: "))
    assert line.startswith("images: digits (partial: 300 of 1797 images), 300 seen; imagenetv2, 10000 seen, crop ")
    assert "300 images of digits (partial: 300 of 1797 images) and 10000 images of imagenetv2" in compact_conditions(
        both
    )
    short = make_row(8, **(accuracy(100, n=120) | {"dataset_digest": "a1" * 32}))
    assert ", 300 seen, " in next(line for line in conditions([*ONE, short]) if line.startswith("images: "))
