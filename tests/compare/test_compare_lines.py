"""Lines of a comparison: what is a line, what a point, what drops are against, and which speeds can be compared."""

from __future__ import annotations

import random

import numpy as np
import pytest
from compare.made_rows import field, measured, seeds

from tomebench.compare.lines import comparisons
from tomebench.compare.points import OFF_THE_SHELF, Comparison
from tomebench.compare.read import Measured
from tomebench.runs.codes import AA_FAILED, PARTIAL_EVAL


def only(rows: list[Measured]) -> Comparison:
    (found,) = comparisons(rows)
    return found


def shape(comparison: Comparison) -> dict[str, list[str]]:
    return {line.name: [point.label for point in line.points] for line in comparison.lines}


def test_a_line_a_method_without_r_0() -> None:
    found = only(field())
    assert shape(found) == {"tome": ["r=4", "r=8", "r=12"], "greedy": ["r=4", "r=8", "r=12"]}
    assert (found.base.label, found.base.row.r, found.base.top1) == ("r=0", 0, 100.0)
    assert (found.images, found.over, found.setting) == (400, "r=0", "cpu, fp32, batch 2")
    assert [[point.lost for point in line.points] for line in found.lines] == [[0.5, 1.0, 3.0], [0.0, 2.0, 2.0]]
    assert {line.training for line in found.lines} == {OFF_THE_SHELF}


def test_the_order_of_runs_and_rows_has_no_effect() -> None:
    rows = [*field(), *seeds(4, (1,), (2,), (3,)), measured(0, (5,), img_size=160, gmacs=0.6)]
    expected = repr(only(rows))
    for seed in range(5):
        assert repr(only(random.Random(seed).sample(rows, len(rows)))) == expected


def test_a_line_is_named_by_what_its_method_does_not_always_do() -> None:
    rows = [
        measured(0),
        measured(4, options="prop_attn=True"),
        measured(4, method="pitome", options="prop_attn=False"),
        measured(4, method="evit", options="prop_attn=False"),
        measured(4, method="evit", options="prop_attn=True"),
        measured(4, method="mctf", options="metric=q prop_attn=True"),
    ]
    names = ["tome", "pitome", "evit prop_attn=False", "evit prop_attn=True", "mctf metric=q"]
    assert sorted(shape(only(rows))) == sorted(names)


def test_options_schedules_models_and_inputs_are_lines_of_their_own() -> None:
    rows = [
        measured(0),
        measured(4),
        measured(4, options="prop_attn=True metric=q"),
        measured(4, schedule="decreasing"),
        measured(4, schedule="list:" + "4," * 12),
        measured(0, model="vit_small.tag", gmacs=0.7),
        measured(4, model="vit_small.tag", gmacs=0.5),
        measured(4, img_size=160, gmacs=0.4),
        measured(0, img_size=160, gmacs=0.6),
    ]
    assert list(shape(only(rows))) == [
        "tome constant",
        "tome metric=q constant",
        "tome decreasing",
        "tome list:4,4,4,4,4,4,4,4,4,…",
        "tome constant at 160 px",
        "tome constant on vit_small",
        "smaller input",
        "smaller model",
    ]


def test_plain_rivals_are_lines_with_a_grid() -> None:
    rows = [
        measured(0),
        measured(4),
        measured(0, (1,), img_size=192, gmacs=0.9),
        measured(0, (1, 2), img_size=160, gmacs=0.6),
        measured(0, (3,), model="vit_small.tag", gmacs=0.7),
        measured(0, (3, 4), model="vit_small.tag", img_size=160, gmacs=0.3),
    ]
    found = only(rows)
    assert shape(found) == {
        "tome": ["r=4"],
        "smaller input": ["192 px", "160 px"],
        "smaller model": ["vit_small", "vit_small 160 px"],
    }
    assert [line.plain for line in found.lines] == [False, True, True]
    assert found.lines[1].points[1].lost == 0.5


def test_published_weights_are_the_same_at_every_input_size() -> None:
    rows = [
        measured(0, weights="sha256:0123456789abcdef (pretrained)"),
        measured(0, weights="sha256:fedcba9876543210 (pretrained)", img_size=160, gmacs=0.6),
    ]
    assert shape(only(rows)) == {"smaller input": ["160 px"]}


def test_a_larger_input_is_not_called_smaller() -> None:
    small, big = over(1.0, 0.0, "vit_ti_16@224"), over(0.5, name="vit_ti_16@224")
    found = only([measured(0, speed=1.0, **small), measured(0, run="b", speed=1.0, img_size=288, gmacs=2.4, **big)])
    assert shape(found) == {"other input": ["288 px"]}


def test_seeds_are_one_point() -> None:
    """Three seeds are wrong on 2, 4 and 6 of 400 images."""
    found = only([measured(0), *seeds(4, range(2), range(4), range(6))])
    assert shape(found) == {"random-merge": ["r=4"]}
    point = found.lines[0].points[0]
    assert (len(point.rows), point.top1, point.lost) == (3, 99.0, 1.0)
    assert point.spread == pytest.approx((0.5, 98.5, 99.5))
    assert point.drop is not None
    assert point.drop.lost == 4.0
    single = only([measured(0), measured(4, range(4))]).lines[0].points[0]
    assert single.spread is None
    assert single.drop is not None
    assert point.drop.interval.lo > single.drop.interval.lo, "the images that only some seeds lose weigh less"


def test_the_speed_of_seeds_is_their_mean() -> None:
    rows = seeds(4, (), (), speed=1.2)
    rows[1] = measured(4, method="random-merge", options="prop_attn=True seed=1", speed=1.4, half=0.1)
    speed = only([measured(0, speed=1.0, half=0.0), *rows]).lines[0].points[0].speed
    assert speed is not None
    assert speed == pytest.approx((np.sqrt(1.2 * 1.4), np.sqrt(1.18 * 1.3), np.sqrt(1.22 * 1.5)))


def test_settings_are_compared_apart() -> None:
    rows = [*field(), measured(0, dtype="bf16"), measured(4, dtype="bf16")]
    assert [(each.setting, len(each.lines)) for each in comparisons(rows)] == [
        ("cpu, bf16, batch 2", 1),
        ("cpu, fp32, batch 2", 2),
    ]


def test_a_setting_without_r_0_is_not_compared() -> None:
    assert comparisons([measured(4)]) == []


def test_speeds_of_two_runs_without_a_reference_are_not_compared() -> None:
    rows = [*field(), measured(0, speed=1.0, run="b"), measured(4, speed=2.0, run="b", method="kmeans")]
    found = only(rows)
    assert found.over is None
    assert all(point.speed is None for line in found.lines for point in line.points)
    assert found.remarks == (
        "measured speeds cannot be compared: each speed-up is over r=0 of its own run; "
        "measure the runs with one common reference",
    )


def over(value: float, half: float = 0.1, name: str = "vit_ti_16@160") -> dict[str, object]:
    """Speed-up over a reference of this name, which is an alias of the model."""
    ends = {"speedup_vs_reference_lo": value - half, "speedup_vs_reference_hi": value + half}
    return {"speedup_vs_reference": value, "reference": name, **ends}


def test_speeds_over_a_common_reference_are_compared() -> None:
    found = only(
        [
            measured(0, (1,), speed=1.0, **over(0.5)),
            measured(4, speed=1.2, **over(0.6)),
            measured(0, (2, 3), run="b", speed=1.0, img_size=160, gmacs=0.6, **over(1.0, 0.0)),
        ]
    )
    assert (found.over, found.remarks) == ("vit_ti_16@160", ())
    assert found.base.row.img_size == 160, "drops are against r = 0 of the reference, though others have more MACs"
    assert [line.name for line in found.lines] == ["tome at 224 px", "other input"]
    assert found.lines[0].points[0].speed == (0.6, 0.5, 0.7)
    assert found.lines[0].points[0].lost == -0.5


def test_a_run_whose_r_0_is_the_reference_of_others_is_compared_with_them() -> None:
    methods = field()
    inputs = [
        measured(0, run="224px", speed=1.0, half=0.0, **over(1.0, 0.0, "vit_ti_16@224")),
        measured(0, (7,), run="160px", speed=1.0, img_size=160, gmacs=0.6, **over(1.6, name="vit_ti_16@224")),
    ]
    found = only([*methods, *inputs])
    assert (found.over, found.remarks) == ("vit_ti_16@224", ())
    assert shape(found)["smaller input"] == ["160 px"]
    speeds = {line.name: [point.speed and point.speed.value for point in line.points] for line in found.lines}
    assert speeds == {"tome": [1.2, 1.5, 1.9], "greedy": [1.1, 1.3, 1.4], "smaller input": [1.6]}
    assert found.base.speed == (1.0, 1.0, 1.0)
    assert only([*methods, inputs[1]]).over is None, "what the reference is, is not known without it"


def test_a_reference_that_is_in_no_run_is_said() -> None:
    there = over(1.1, name="vit_huge@518")
    found = only([measured(0, speed=1.0, **there), measured(4, speed=1.2, **there)])
    assert found.remarks == (
        "r=0 of the reference vit_huge@518 is in no run; drops are against r=0 of vit_tiny at 224 px",
    )


def test_an_untimed_larger_model_does_not_rename_what_speeds_are_over() -> None:
    found = only([*field(), measured(0, run="b", model="vit_base.tag", gmacs=17.0)])
    assert (found.over, found.base_name) == ("r=0 of vit_tiny at 224 px", "r=0 of vit_base at 224 px")
    assert found.base.speed is None


def test_no_two_lines_or_points_have_one_name() -> None:
    long = "list:" + "4," * 11
    rows = [
        measured(0),
        measured(4, schedule=f"{long}4"),
        measured(4, schedule=f"{long}0"),
        measured(0, model="vit_small.one", gmacs=0.7),
        measured(0, model="vit_small.two", gmacs=0.7),
        measured(0, weights="sha256:0123456789", gmacs=1.25),
        measured(4, weights="sha256:0123456789", schedule=f"{long}4"),
    ]
    found = shape(only(rows))
    assert len(found) == 3 + 1
    assert sorted(found["other model"]) == ["vit_small.one", "vit_small.two", "vit_tiny.tag sha256:0123456"]
    assert {f"tome {long}4", f"tome {long}0", f"tome {long}4 on vit_tiny.tag sha256:0123456"} < {*found}


def test_sizes_in_attention_are_named_where_one_method_has_both() -> None:
    """Methods differ in whether they count sizes by default."""
    plain = "prop_attn=false"
    rows = [measured(0), measured(4), measured(4, method="evit", options=plain)]
    assert list(shape(only(rows))) == ["tome", "evit"]
    both = list(shape(only([*rows, measured(4, options=plain)])))
    assert both == ["tome prop_attn=True", "tome prop_attn=false", "evit"]


def test_of_a_cell_in_two_runs_the_evaluated_one_is_taken() -> None:
    timed = [measured(r, None, run="a", speed=1 + r / 10) for r in (0, 4)]
    evaluated = [measured(0, run="b"), measured(4, (1, 2), run="b")]
    found = only([*timed, *evaluated])
    assert found.base.top1 == 100
    assert found.lines[0].points[0].lost == 0.5


def test_other_preprocessing_is_another_setting() -> None:
    other = "preprocessing=tome prop_attn=True"
    rows = [measured(0), measured(4), measured(0, (1,), options=other), measured(4, (1, 2), options=other)]
    found = comparisons(rows)
    assert [each.setting for each in found] == ["cpu, fp32, batch 2", "cpu, fp32, batch 2, preprocessing=tome"]
    assert [each.lines[0].points[0].lost for each in found] == [0.0, 0.25]


def test_an_invalid_speed_is_none() -> None:
    found = only([measured(0, speed=1.0), measured(4, speed=1.2), measured(8, speed=1.4, warnings=(AA_FAILED,))])
    assert [point.speed is not None for point in found.lines[0].points] == [True, False]


def test_failed_cells_and_repeated_ones_are_left_out() -> None:
    rows = [measured(0), measured(4), measured(8, None, status="oom"), measured(12, warnings=("SAME_AS_R8",))]
    found = only(rows)
    assert shape(found) == {"tome": ["r=4"]}
    assert found.remarks[0] == "1 cell could not be measured, and is left out"


def test_top_1_is_of_the_images_that_all_rows_have() -> None:
    """The second run has seen half of the list, where the first is wrong on fewer images."""
    found = only([measured(0), measured(4, (1, 300)), measured(4, (1, 2), run="b", method="greedy", n=200)])
    assert found.images == 200
    assert [line.points[0].top1 for line in found.lines] == [99.5, 99.0]
    assert "top-1 is of the 200 images that all rows have, of up to 400" in found.remarks


def test_an_evaluation_that_is_not_over_is_said() -> None:
    rows = [measured(0, warnings=(PARTIAL_EVAL,)), measured(4, warnings=(PARTIAL_EVAL,))]
    assert only(rows).remarks[0] == "a run is not evaluated on all of its images yet; the same sweep goes on"


def test_runs_that_do_not_agree_about_r_0_are_said() -> None:
    found = only([measured(0), measured(4), measured(0, (7,), run="b")])
    assert "runs do not agree about r=0 of vit_tiny.tag: they had other arithmetic" in found.remarks


def test_rows_without_answers_have_the_drop_that_they_count() -> None:
    counts = {"top1_lost": 5, "top1_gained": 1, "n_seen": 400, "mcnemar_p": 0.2}
    found = only([measured(0, None), measured(4, None, **counts)])
    point = found.lines[0].points[0]
    assert (point.right, point.lost) == (None, 1.0)
