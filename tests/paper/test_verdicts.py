"""What counts as reproduced: by hand, and where exactly a verdict turns."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tomebench.paper.verdicts import (
    Counted,
    Printed,
    judge_gmacs,
    judge_tokens,
    judge_top1,
    paper_tokens,
    tolerance,
)
from tomebench.reduction.schedule import parse_schedule, token_trace

WHOLE = 50_000


def top1(reported: float, step: float, correct: int, dtype: str = "fp32", seen: int = WHOLE, whole: bool = True) -> str:
    return judge_top1(Printed(reported, step), WHOLE, Counted(correct, seen, whole), dtype).verdict


@pytest.mark.parametrize(("dtype", "images"), [("fp32", 25), ("tf32", 75), ("bf16", 75), ("fp16", 75)])
def test_tolerance(dtype: str, images: int) -> None:
    assert tolerance(dtype, WHOLE) == images
    assert tolerance(dtype, 599) == 1
    assert tolerance(dtype, 10_000) == images // 5


@pytest.mark.parametrize(
    ("reported", "step", "dtype", "last"),
    [
        (81.41, 0.01, "fp32", 40_705 + 2 + 25),  # 81.41 % stands for 40 702.5 to 40 707.5 images
        (81.41, 0.01, "bf16", 40_705 + 2 + 75),
        (79.3, 0.1, "fp32", 39_650 + 25 + 25),
        (79.3, 0.1, "fp16", 39_650 + 25 + 75),
    ],
)
def test_where_top1_stops_being_reproduced(reported: float, step: float, dtype: str, last: int) -> None:
    middle = round(reported * WHOLE / 100)
    for sign in (1, -1):
        assert top1(reported, step, middle + sign * (last - middle), dtype) == "reproduced"
        assert top1(reported, step, middle + sign * (last - middle + 1), dtype) == "differs"


def test_fewer_images_are_partial_whatever_they_say() -> None:
    assert top1(81.41, 0.01, 250, seen=300) == "partial data"
    assert top1(81.41, 0.01, 40_705, whole=False) == "partial data"  # other labels, or another list of as many
    found = judge_top1(Printed(81.41, 0.01), WHOLE, Counted(250, 300, False), "fp32")
    assert found.detail == "300 images, reported on 50000: 83.33 % right here"
    assert judge_top1(Printed(81.41, 0.01), WHOLE, None, "fp32").verdict == "not measured"


def test_a_difference_is_said_in_images() -> None:
    found = judge_top1(Printed(82.6, 0.01), WHOLE, Counted(41_200, WHOLE, True), "fp32")
    assert (found.verdict, found.images) == ("differs", -100)
    assert found.detail == ("41200 of 50000 right, -100 images (-0.20 points), more than the 25 that may differ")


@pytest.mark.parametrize(
    ("reported", "step", "gmacs", "norms", "verdict"),
    [
        (61.6, 0.1, 61.55, 0.05, "reproduced"),
        (167.4, 0.1, 167.295, 0.107, "reproduced"),  # as the paper counts: 167.40
        (167.4, 0.1, 167.295, 0.05, "differs"),
        (0.9, 0.1, 0.77, 0.002, "differs"),  # another r
        (0.9, 0.1, 0.951, 0.002, "differs"),
        (0.118, 0.001, 0.1178, 0.0, "reproduced"),
        (0.118, 0.001, 0.1163, 0.0005, "differs"),
    ],
)
def test_costs_are_compared_as_printed(reported, step, gmacs, norms, verdict) -> None:
    assert judge_gmacs(Printed(reported, step), gmacs, norms).verdict == verdict


def test_tokens_of_the_paper_by_hand() -> None:
    """ViT-L at 384 pixels and r = 25 ends with 8 tokens; ViT-B at 224 and r = 16 with 11, not 5."""
    assert paper_tokens(577, 1, 25, "constant", 24)[-1] == 8
    assert paper_tokens(197, 1, 16, "constant", 12)[-2:] == [21, 11]
    assert paper_tokens(197, 1, 8, "decreasing", 12)[:3] == [181, 167, 154]
    assert paper_tokens(197, 1, 0, "constant", 12) == [197] * 12
    assert paper_tokens(9, 1, 2, "decreasing", 1) == [7]


@given(
    st.integers(2, 600), st.integers(0, 4), st.integers(0, 60), st.sampled_from(["constant", "decreasing"]),
    st.integers(1, 32),
)  # fmt: skip
def test_the_rule_is_that_of_schedules(patches: int, prefix: int, r: int, schedule: str, depth: int) -> None:
    asked = parse_schedule(schedule).r_layers(r, depth)
    trace = token_trace(asked, patches + prefix, prefix)
    assert tuple(paper_tokens(patches + prefix, prefix, r, schedule, depth)) == trace.tokens


def test_which_block_differs_is_said() -> None:
    assert judge_tokens([10, 8], [10, 8], [10, 8]).verdict == "reproduced"
    planned = judge_tokens([10, 8], [10, 7], [10, 8])
    assert (planned.verdict, planned.detail) == ("differs", "7 after block 2 in the plan, 8 by the paper")
    seen = judge_tokens([10, 8], [10, 8], [9, 8])
    assert (seen.verdict, seen.detail) == ("differs", "9 after block 1 in a pass, 10 by the paper")


def test_numbers_are_shown_as_they_were_printed() -> None:
    assert [str(Printed(*each)) for each in ((85.3, 0.01), (79.3, 0.1), (0.118, 0.001), (263, 1.0))] == [
        "85.30",
        "79.3",
        "0.118",
        "263",
    ]
