"""Lists of r: what can be read, what is refused, and that writing and reading agree."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tomebench.errors import SpecError
from tomebench.rspec import MAX_R, format_r, parse_r


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("0", (0,)),
        ("0..3", (0, 1, 2, 3)),
        ("0..24", tuple(range(25))),
        ("0..24:4", (0, 4, 8, 12, 16, 20, 24)),
        ("0..5:2", (0, 2, 4)),
        ("5..5", (5,)),
        ("0,8,16", (0, 8, 16)),
        ("16,8,0", (16, 8, 0)),
        (" 0..2 , 8 ", (0, 1, 2, 8)),
        ("008", (8,)),
        ("0..4:4096", (0,)),
        ("0" * 6000 + "8", (8,)),
        (f"{MAX_R}", (MAX_R,)),
    ],
)
def test_reads(text: str, values: tuple[int, ...]) -> None:
    assert parse_r(text) == values


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "empty part"),
        ("0,,8", "empty part"),
        ("0,8,", "empty part"),
        ("-1", "negative"),
        ("-3..4", "negative"),
        ("0..-4", "cannot read"),
        ("eight", "cannot read 'eight'"),
        ("8.5", "cannot read"),
        ("0...8", "cannot read"),
        ("0..8:", "cannot read"),
        ("0..8:2:2", "cannot read"),
        ("0-8", "cannot read"),
        ("+8", "cannot read"),
        ("1_0", "cannot read"),
        ("1e3", "cannot read"),
        ("٨", "cannot read"),  # Arabic-Indic digits are digits to Python, not to us
        ("٠..٨", "cannot read"),
        ("8..0", "write 0..8"),
        ("0..8:0", "step"),
        ("8,8", "8 is given twice"),
        ("0..4,3..9", "3 is given twice"),
        (f"{MAX_R + 1}", "more than"),
        (f"0..{MAX_R + 1}", "more than"),
        ("9" * 6000, "more than"),  # more digits than Python converts
        ("0.." + "9" * 6000, "more than"),
        ("9" * 6000 + "..1", "more than"),
        ("0..4:" + "0" * 6000, "step"),
        ("0..4:" + "9" * 6000, "more than"),
        ("x" * 6000, "cannot read"),
    ],
)
def test_refuses_in_one_line(text: str, says: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse_r(text)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


def test_a_long_list_with_repeats_is_refused_quickly() -> None:
    with pytest.raises(SpecError, match="0 is given twice"):
        parse_r(",".join([f"0..{MAX_R}"] * 20))


@given(st.lists(st.integers(0, MAX_R), min_size=1, max_size=30, unique=True))
@example([0, 2, 4])
@example([4, 2, 0])
@example([7])
def test_writing_then_reading_gives_the_same(values: list[int]) -> None:
    assert parse_r(format_r(values)) == tuple(values)


@given(st.integers(0, 60), st.integers(1, 60), st.integers(1, 9))
def test_ranges_are_written_as_ranges(first: int, count: int, step: int) -> None:
    values = tuple(range(first, first + count * step, step))
    text = format_r(values)
    assert parse_r(text) == values
    assert ("," not in text) or count == 2


@given(st.text(alphabet="0123456789.,:- x٣", max_size=20))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        values = parse_r(text)
    except SpecError:
        return
    assert values
    assert len(set(values)) == len(values)
    assert all(0 <= value <= MAX_R for value in values)
