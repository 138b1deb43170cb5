"""Each question on made-up rows whose answers are known; properties of the front, of targets and of Holm's p-values."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from compare.made_rows import field, measured, seeds
from hypothesis import given
from hypothesis import strategies as st

from tomebench.compare.lines import comparisons
from tomebench.compare.paired_tests import least_difference, paired_tests
from tomebench.compare.points import Comparison
from tomebench.compare.questions import Question, answers, parse_match
from tomebench.compare.read import Measured
from tomebench.compare.views import View, find_line, front, match_cost, match_drop
from tomebench.errors import InputError, SpecError
from tomebench.stats import mcnemar, paired_delta


def only(rows: list[Measured]) -> Comparison:
    (found,) = comparisons(rows)
    return found


def chosen(view: View) -> dict[str, str | None]:
    return {entry.line.name: entry.point and entry.point.label for entry in view.entries}


# --- equal accuracy


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        (0.0, {"tome": None, "greedy": "r=4"}),
        (0.5, {"tome": "r=4", "greedy": "r=4"}),
        (1.0, {"tome": "r=8", "greedy": "r=4"}),
        (2.0, {"tome": "r=8", "greedy": "r=12"}),
        (3.0, {"tome": "r=12", "greedy": "r=12"}),
    ],
)
def test_the_fastest_point_within_the_drop(limit: float, expected: dict[str, str | None]) -> None:
    assert chosen(match_drop(only(field()), limit)) == expected


@pytest.mark.parametrize("lost", range(1, 60))
def test_a_drop_of_just_the_limit_is_within(lost: int) -> None:
    """7 of 1000 images are 0.7 points, whatever 100 * 0.007 is in binary."""
    found = only([measured(0, n=1000), measured(4, range(lost), n=1000)])
    assert chosen(match_drop(found, lost / 10)) == {"tome": "r=4"}


def test_a_grid_that_does_not_reach_it_names_its_least_drop() -> None:
    entry, _ = match_drop(only(field()), 0.0).entries
    assert (entry.verdict, entry.nearest and entry.nearest.label, entry.nearest and entry.nearest.lost) == (
        "beyond",
        "r=4",
        0.5,
    )


def test_too_few_images_say_how_many_are_needed() -> None:
    """Four of 400 lost is 1 point, with an interval up to 2.5: no number of images shows it to be within 1."""
    one, two = match_drop(only(field()), 1.0).entries
    assert (one.verdict, one.images) == ("too few images", None)
    assert (two.verdict, two.images) == ("within", None), "no image of 400 changes, which is within 0.95 points"
    half = match_drop(only(field()), 0.75).entries
    assert [entry.verdict for entry in half] == ["too few images", "too few images"]
    asked = half[0].images
    assert asked is not None
    lost = round(2 * asked / 400)
    assert -100 * paired_delta(lost, 0, asked).interval.lo <= 0.75
    assert half[1].images == 509


def test_an_interval_that_reaches_a_little_further_is_not_sure() -> None:
    entry = match_drop(only([measured(0), measured(4, range(8))]), 2.5).entries[0]
    assert entry.verdict == "open"


def test_without_times_the_least_macs_decide() -> None:
    rows = [measured(0), measured(4), measured(8, (1,)), measured(12, range(40))]
    assert chosen(match_drop(only(rows), 1.0)) == {"tome": "r=8"}


def test_a_line_without_top_1_says_so() -> None:
    rows = [measured(0), measured(4), measured(4, None, method="greedy")]
    assert [entry.verdict for entry in match_drop(only(rows), 2.0).entries] == ["within", "not measured"]


# --- equal cost


def test_equal_tokens_are_those_of_the_compared_method() -> None:
    found = only(field())
    view = match_cost(found, "tokens", found.lines[0], 0.05)
    assert [(e.line.name, e.target and e.target.value, e.point and e.point.label) for e in view.entries] == [
        ("tome", 157, "r=4"),
        ("greedy", 157, "r=4"),
        ("tome", 117, "r=8"),
        ("greedy", 117, "r=8"),
        ("tome", 77, "r=12"),
        ("greedy", 77, "r=12"),
    ]
    versus = [entry.versus and (entry.versus.lost, entry.versus.gained) for entry in view.entries]
    assert versus == [None, (0, 2), None, (8, 4), None, (0, 4)]


def test_what_is_not_near_enough_is_no_answer() -> None:
    """At 1.5x the nearest of greedy is 1.4x, 6.7 % off."""
    found = only(field())
    view = match_cost(found, "speed", found.lines[0], 0.05, [1.5])
    assert chosen(view) == {"tome": "r=8", "greedy": None}
    missing = view.entries[1]
    assert (missing.nearest and missing.nearest.label, missing.target and missing.target.off) == (
        "r=12",
        pytest.approx(-0.1 / 1.5),
    )
    assert missing.versus is None
    wider = match_cost(found, "speed", found.lines[0], 0.07, [1.5])
    assert chosen(wider) == {"tome": "r=8", "greedy": "r=12"}


def test_macs_of_a_rival_are_matched_too() -> None:
    rows = [*field(), measured(0, range(20), img_size=160, gmacs=0.84)]
    found = only(rows)
    view = match_cost(found, "gmacs", found.lines[0], 0.05, [0.85])
    assert chosen(view) == {"tome": "r=8", "greedy": "r=8", "smaller input": "160 px"}


@given(st.floats(0.1, 3.0), st.floats(0.0, 0.3))
def test_no_point_is_interpolated_and_none_is_nearer(target: float, tolerance: float) -> None:
    found = only(field())
    for entry in match_cost(found, "gmacs", found.lines[0], tolerance, [target]).entries:
        off = min(abs(point.row.gmacs - target) / target for point in entry.line.points)
        assert (entry.point is not None) == (off <= tolerance)
        shown = entry.point or entry.nearest
        assert shown is not None
        assert abs(shown.row.gmacs - target) / target == off


# --- the front


def test_the_front_of_the_field() -> None:
    entries = front(only(field())).entries
    assert [(e.line.name, e.point and e.point.label, e.dominated_by and e.dominated_by[1].label) for e in entries] == [
        ("tome", "r=12", None),
        ("tome", "r=8", None),
        ("greedy", "r=12", "r=8"),
        ("greedy", "r=8", "r=8"),
        ("tome", "r=4", None),
        ("greedy", "r=4", None),
        ("none", "r=0", "r=4"),
    ]


@given(st.lists(st.tuples(st.integers(0, 8), st.integers(10, 16)), min_size=1, max_size=15))
def test_no_member_of_the_front_is_dominated_and_every_other_is(drawn: list[tuple[int, int]]) -> None:
    rows = [measured(r + 1, range(wrong), speed=speed / 10, n=20) for r, (wrong, speed) in enumerate(drawn)]
    entries = front(only([measured(0, speed=1.0, n=20), *rows])).entries
    values = {id(e): (e.point.speed.value, e.point.top1) for e in entries if e.point and e.point.speed}
    assert len(entries) == len(drawn) + 1

    def dominates(a: tuple[float, float | None], b: tuple[float, float | None]) -> bool:
        return a != b and a[0] >= b[0] and (a[1] or 0) >= (b[1] or 0)

    members = [values[id(entry)] for entry in entries if entry.dominated_by is None]
    assert not any(dominates(a, b) for a, b in itertools.product(members, repeat=2))
    for entry in entries:
        if entry.dominated_by is not None:
            speed = entry.dominated_by[1].speed
            assert speed is not None
            assert dominates((speed.value, entry.dominated_by[1].top1), values[id(entry)])


def test_the_front_is_of_macs_where_a_line_has_no_times() -> None:
    rows = [*field(), measured(14, method="kmeans")]
    entries = front(only(rows)).entries
    assert (entries[0].line.name, entries[0].dominated_by) == ("kmeans", None)
    assert len(entries) == 8


# --- tests


def test_the_p_values_of_the_field() -> None:
    found = only(field())
    view = paired_tests(found, found.lines[0])
    versus = [entry.versus for entry in view.entries if entry.versus is not None]
    assert [(each.lost, each.gained) for each in versus] == [(0, 2), (8, 4), (0, 4)]
    p = [mcnemar(0, 2), mcnemar(8, 4), mcnemar(0, 4)]
    assert [each.p for each in versus] == p
    assert p[2] < p[1] < p[0]
    assert [entry.holm for entry in view.entries] == [2 * p[1], 2 * p[1], 3 * p[2]]


@given(st.lists(st.integers(0, 40), min_size=2, max_size=8))
def test_holm_keeps_the_order_and_never_lowers(wrong: list[int]) -> None:
    rows = [measured(r + 1, range(count), method="greedy", n=60) for r, count in enumerate(wrong)]
    base = [measured(r + 1, (), n=60) for r in range(len(wrong))]
    found = only([measured(0, n=60), *rows, *base])
    pairs = sorted((e.versus.p, e.holm) for e in paired_tests(found, found.lines[0]).entries if e.versus)
    adjusted = [holm for _, holm in pairs if holm is not None]
    assert adjusted == sorted(adjusted)
    assert all(p <= holm <= 1 for p, holm in pairs if holm is not None)


def test_other_tokens_and_other_models_are_not_tested() -> None:
    rows = [
        measured(0),
        measured(4),
        measured(4, method="greedy", tokens=(177, 150), tokens_out=150),
        measured(4, method="topk", tokens=(190, 157)),  # as many in the end, by another schedule
        measured(4, model="vit_small.tag", gmacs=0.5),
        measured(0, model="vit_small.tag", gmacs=0.7),
    ]
    found = only(rows)
    assert found.lines[0].name == "tome"
    assert paired_tests(found, found.lines[0]).entries == ()


def test_means_over_seeds_are_tested_by_shares() -> None:
    found = only([measured(0), measured(4), *seeds(4, range(6), range(6, 12))])
    (entry,) = paired_tests(found, found.lines[0]).entries
    assert entry.versus is not None
    assert (entry.versus.lost, entry.versus.p) == (6.0, pytest.approx(2 / 2**12))


def test_the_least_difference_that_means_something() -> None:
    """Two rows that differ on 30 of 400 images: 10 against 20 is p = 0.1, 9 against 21 p = 0.04."""
    found = only([measured(0), measured(4, range(15)), measured(4, range(15, 30), method="greedy")])
    assert least_difference(paired_tests(found, found.lines[0])) == (30, 12)
    assert mcnemar(9, 21) <= 0.05 < mcnemar(10, 20)
    same = only([measured(0), measured(4), measured(4, method="greedy")])
    assert least_difference(paired_tests(same, same.lines[0])) is None


# --- questions


@pytest.mark.parametrize(
    ("text", "question"),
    [
        ("drop=0.5", Question("drop", 0.5)),
        ("drop=0", Question("drop", 0.0)),
        ("tokens", Question("tokens", None)),
        ("tokens=80", Question("tokens", 80)),
        ("gmacs=0.9", Question("gmacs", 0.9)),
        ("speed", Question("speed", None)),
    ],
)
def test_matches_are_read(text: str, question: Question) -> None:
    assert parse_match(text) == question


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "use drop=X, tokens, gmacs or speed"),
        ("drop", "how many points may be lost"),
        ("drop=", "points of top-1 from 0 to 100"),
        ("drop=101", "points of top-1 from 0 to 100"),
        ("drop=nan", "cannot read 'nan'"),
        ("tokens=0", "a number above 0"),
        ("tokens=1e-320", "a number above 0"),
        ("speed=inf", "a number above 0"),
        ("gmacs=-1", "a number above 0"),
        ("speed=fast", "cannot read 'fast'"),
        ("latency=3", "use drop=X"),
    ],
)
def test_what_is_no_match_is_refused(text: str, says: str) -> None:
    with pytest.raises(SpecError, match=says):
        parse_match(text)


def test_the_default_asks_each_question_once() -> None:
    views = [view for _, view in answers(comparisons(field()))]
    assert [(view.kind, view.limit) for view in views] == [
        ("drop", 0.5),
        ("drop", 1.0),
        ("tokens", None),
        ("gmacs", None),
        ("speed", None),
        ("front", None),
    ]
    targets = {view.kind: {entry.target.value for entry in view.entries if entry.target} for view in views}
    assert (targets["tokens"], targets["speed"]) == ({117.0}, {1.5}), "where tome loses at most 1 point"


def test_a_single_line_is_compared_with_r_0_only() -> None:
    assert [view.kind for _, view in answers(comparisons(field()[:4]))] == ["drop", "drop", "front"]


def test_without_images_costs_are_compared() -> None:
    rows = [measured(0, None), *(measured(r, None, method=m) for r in (4, 8) for m in ("tome", "greedy"))]
    assert [view.kind for _, view in answers(comparisons(rows))] == ["tokens", "gmacs"]
    for asked in ({"questions": [Question("drop", 1.0)]}, {"pareto": True}, {"tests": True}):
        with pytest.raises(InputError, match="no run has top-1 of r = 0 and others; sweep with --data"):
            answers(comparisons(rows), **asked)
    with pytest.raises(InputError, match="measured speeds cannot be compared: they were not timed"):
        answers(comparisons(rows), [Question("speed", None)])


def test_nothing_to_compare_is_said() -> None:
    for rows in ([measured(0)], [measured(4)]):
        with pytest.raises(InputError, match="there is nothing to compare"):
            answers(comparisons(rows))


def test_lines_are_found_by_name_or_method() -> None:
    lines = only([*field(), measured(4, options="prop_attn=True metric=q")]).lines
    assert find_line(lines, None).name == "tome"
    assert find_line(lines, "greedy").name == "greedy"
    assert find_line(lines, "tome metric=q").name == "tome metric=q"
    with pytest.raises(SpecError, match="--against 'gredy': no such line in these runs; did you mean 'greedy'"):
        find_line(lines, "gredy")
    with pytest.raises(SpecError, match="there are tome, tome metric=q, greedy"):
        find_line(lines, "xyz")
    rival = only([*field(), measured(0, img_size=160, gmacs=0.6)]).lines
    assert find_line(rival, "smaller input").plain
    with pytest.raises(SpecError, match="--against '': no such line"):
        find_line(rival, "")


def test_another_method_can_be_compared_with() -> None:
    ((_, view),) = answers(comparisons(field()), [Question("tokens", None)], against="greedy")
    assert view.against is not None
    assert view.against.name == "greedy"
    assert [entry.versus is None for entry in view.entries] == [False, True] * 3


def test_a_method_of_one_setting_only_leaves_the_other_out() -> None:
    rows = [*field(), measured(0, dtype="bf16"), measured(4, dtype="bf16")]
    found = answers(comparisons(rows), [Question("tokens", None)], against="greedy")
    assert [comparison.setting for comparison, _ in found] == ["cpu, fp32, batch 2"]


def test_points_are_on_the_same_images() -> None:
    point = only(field()).lines[0].points[0]
    assert point.right is not None
    assert np.flatnonzero(point.right.right == 0).tolist() == [0, 1]
