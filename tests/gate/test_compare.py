"""Verdicts on constructed snapshots: every verdict of every tier, and what an exit code means."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_records import LOGITS, accuracy, cell, snapshot, speed, static
from simulated_machine import asked

from tomebench.errors import ConfigError, SpecError
from tomebench.gate.compare import Finding, Limits, compare, confirmed, exit_code
from tomebench.gate.compare_accuracy import MaxDrop
from tomebench.gate.compare_speed import SpeedLimits, noise_floor
from tomebench.gate.records import (
    TIERS,
    Asked,
    CellRecord,
    Speed,
    Tier,
    packed_logits,
)
from tomebench.schema import WITH_OPTIONS, Cell


def only(old: CellRecord, new: CellRecord, tier: Tier, limits: Limits | None = None) -> Finding:
    (found,) = compare(snapshot(old), snapshot(new), [tier], limits or Limits())
    return found


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({}, "tokens, GMACs"),
        ({"tokens": (189, 180)}, "181 -> 180"),
        ({"r_layers": (8, 9)}, "16 -> 17"),
        ({"gmacs": 1.26}, "GMACs 1.25 -> 1.26"),
        ({"params_m": 5.8}, "parameters 5.7 -> 5.8"),
        ({"preprocessing": "crop 1"}, "crop 0.9 -> crop 1"),
        ({"logits": packed_logits(LOGITS + np.array([[1e-3, 0, 0], [0, 0, 0]]))}, "logits by up to 0.00033"),
        ({"logits": packed_logits(LOGITS[:, ::-1])}, "top-1 of 1 of 2"),  # the first keeps its largest in the middle
        ({"shape": (1, 3), "logits": packed_logits(LOGITS[:1])}, "shape"),
    ],
)
def test_static_is_equal_or_worse(changes: dict[str, Any], says: str) -> None:
    found = only(cell(static=static()), cell(static=static(**changes)), "static")
    assert found.verdict == ("worse" if changes else "same")
    assert says in found.detail


def test_static_forgives_rounding_and_refuses_another_input() -> None:
    rounded = static(LOGITS * (1 + 1e-7))
    assert only(cell(static=static()), cell(static=rounded), "static").verdict == "same"
    for other in ({"input": "beef"}, {"weights": "beef"}):
        assert only(cell(static=static()), cell(static=static(**other)), "static").verdict == "incomparable"


def test_what_cannot_be_computed_any_more_is_worse() -> None:
    broken = cell(static_problem="NaN or infinite logits")
    found = only(cell(static=static()), broken, "static")
    assert (found.verdict, found.detail) == ("worse", "NaN or infinite logits")
    assert only(broken, broken, "static").verdict == "missing"  # it never was
    failed = cell(static=static(), problem="out of memory")  # when it was timed, which says nothing about this tier
    assert only(cell(static=static()), failed, "static").verdict == "same"


def answers(n: int, right: int, lost: int = 0, gained: int = 0) -> tuple[np.ndarray, np.ndarray]:
    old = np.arange(n) < right
    new = old.copy()
    new[:lost] = False
    new[right : right + gained] = True
    return old, new


@pytest.mark.parametrize(
    ("lost", "gained", "limit", "verdict"),
    [
        (0, 0, "0", "same"),
        (3, 0, "0.5", "same"),  # 3 of 600 images is half a point
        (6, 0, "0.5", "inconclusive"),  # p = 0.031, one-sided 0.016
        (7, 0, "0.5", "worse"),  # p = 0.016
        (4, 0, "0.5", "inconclusive"),  # p = 0.125
        (4, 0, "4images", "same"),
        (5, 1, "3images", "inconclusive"),
        (30, 29, "0.5", "same"),
        (30, 24, "0.5", "inconclusive"),  # two routes of one model differ like this
        (0, 4, "0.5", "same"),
        (0, 7, "0.5", "better"),
        (12, 0, "5", "worse"),  # within the limit, but surely lost
        (0, 12, "5", "better"),
        (1, 0, "0", "inconclusive"),
    ],
)
def test_accuracy_counts_images(lost: int, gained: int, limit: str, verdict: str) -> None:
    old, new = answers(600, 500, lost, gained)
    limits = Limits(max_drop=MaxDrop.parse(limit))
    found = only(cell(accuracy=accuracy(old)), cell(accuracy=accuracy(new)), "accuracy", limits)
    assert (found.verdict, found.change) == (verdict, gained - lost)
    assert f"{lost} lost and {gained} gained" in found.detail


def test_accuracy_on_other_images_is_incomparable() -> None:
    old = cell(accuracy=accuracy(np.ones(9, bool)))
    for changed in (
        accuracy(np.ones(8, bool)),
        accuracy(np.ones(9, bool), digest="other"),
        accuracy(np.ones(9, bool), complete=False),
    ):
        assert only(old, cell(accuracy=changed), "accuracy").verdict == "incomparable"


@pytest.mark.parametrize(("given", "text"), [(0.5, "0.5"), (0, "0"), (np.float64(2.5), "2.5"), (1e-5, "0.00001")])
def test_a_limit_may_be_a_number(given: float, text: str) -> None:
    assert MaxDrop.parse(given) == MaxDrop.parse(text)


@pytest.mark.parametrize(
    "text",
    ["", "-1", "x", "101", "1.5images", "nan", "3 apples", "1e3", "１", -1, 101.0, float("nan"), float("inf"), True],
)
def test_a_limit_that_is_none_is_refused(text: str | float) -> None:
    with pytest.raises(SpecError, match="--max-drop"):
        MaxDrop.parse(text)


@pytest.mark.parametrize(
    ("ratio", "verdict"), [(1.3, "same"), (1.28, "same"), (1.3 / 1.15, "worse"), (1.3 * 1.15, "better")]
)
def test_speeds_are_compared_as_ratios(ratio: float, verdict: str) -> None:
    found = only(cell(speed=speed(1.3)), cell(speed=speed(ratio, seed=1)), "speed")
    assert found.verdict == verdict
    assert found.quantity == "speed-up over r = 0"


def test_speeds_too_noisy_to_tell_are_inconclusive() -> None:
    noisy = cell(speed=speed(1.3, noise=0.3, rounds=8, seed=3))
    assert only(noisy, cell(speed=speed(1.24, noise=0.3, rounds=8, seed=4)), "speed").verdict == "inconclusive"


@pytest.mark.parametrize(
    ("changed", "says"), [(speed(1.3, rounds=5), "5 rounds"), (speed(1.3, invalid=("AA_FAILED",)), "AA_FAILED")]
)
def test_speeds_of_short_or_invalid_runs_are_inconclusive(changed: Speed, says: str) -> None:
    for old, new in ((changed, speed(1.3)), (speed(1.3), changed)):
        found = only(cell(speed=old), cell(speed=new), "speed")
        assert found.verdict == "inconclusive"
        assert says in found.detail


def test_a_slow_down_shows_among_any_number_of_cells() -> None:
    cells = [cell(r, speed=speed(1.3, seed=r)) for r in range(500)]
    slow = [*cells[:499], cell(499, speed=speed(1.1, seed=499))]
    found = compare(snapshot(*cells), snapshot(*slow), ["speed"], Limits())
    assert [f.verdict for f in found] == ["same"] * 499 + ["worse"]


def test_hostile_times_give_a_verdict_and_no_overflow() -> None:
    tiny, huge = (1e-12,) * 7, (1e6,) * 7
    speeds = [Speed(seconds=a, reference=b, testbed="x") for a, b in ((tiny, huge), (huge, tiny), (tiny, tiny))]
    speeds.append(Speed(seconds=tiny[:4] + huge[:3], reference=huge[:2] + tiny[:5], testbed="x"))
    for old in speeds:
        for new in speeds:
            assert only(cell(speed=old), cell(speed=new), "speed").verdict in (
                "same",
                "worse",
                "better",
                "inconclusive",
            )


def test_many_rounds_are_compared_at_once() -> None:
    long = speed(1.3, rounds=50_000)
    assert only(cell(speed=long), cell(speed=long), "speed").verdict == "same"


@pytest.mark.parametrize("tolerance", [0, -0.1, float("nan"), 10.0])
def test_a_tolerance_that_is_none_is_refused(tolerance: float) -> None:
    with pytest.raises(ConfigError, match="--tolerance"):
        SpeedLimits(tolerance)


def test_a_tier_that_is_none_is_refused() -> None:
    one = snapshot(cell(speed=speed(1.3)))
    with pytest.raises(ConfigError, match="use static, accuracy, speed"):
        compare(one, one, ["sped"], Limits())  # type: ignore[list-item]


def test_images_per_second_need_the_same_testbed() -> None:
    limits = Limits(SpeedLimits(absolute=True))
    slow = speed(1.3, seed=1)
    slow = slow.model_copy(
        update={name: tuple(2 * t for t in getattr(slow, name)) for name in ("seconds", "reference")}
    )
    for there, expected in (("here", "worse"), ("elsewhere", "incomparable")):
        new = cell(speed=slow.model_copy(update={"testbed": there}))
        found = compare(snapshot(cell(speed=speed(1.3))), snapshot(new), ["speed"], limits)
        assert {f.quantity: f.verdict for f in found} == {"speed-up over r = 0": "same", "images per second": expected}


@pytest.mark.parametrize("tier", TIERS)
def test_what_is_not_there_is_missing(tier: Tier) -> None:
    full = cell(static=static(), accuracy=accuracy(np.ones(9, bool)), speed=speed(1.3))
    empty = cell()
    assert only(full, empty, tier).verdict == "missing"
    assert only(empty, full, tier).verdict == "missing"
    found = compare(snapshot(full), snapshot(full.model_copy(update={"asked": asked(9)})), [tier], Limits())
    assert [(f.cell, f.verdict) for f in found] == [("r=8", "missing"), ("r=9", "missing")]
    broken = full.model_copy(update={"problem": "out of memory"})
    if tier != "static":
        assert "out of memory" in only(full, broken, tier).detail


@pytest.mark.parametrize(
    ("field", "value", "tiers"),
    [
        ("model", "other", TIERS),
        ("weights", "random:1", TIERS),
        ("schedule", "decreasing", TIERS),
        ("options", "", TIERS),
        ("dtype", "bf16", ("accuracy", "speed")),
        ("attention", "matmul", ("accuracy", "speed")),
        ("batch_size", 9, ("speed",)),
        ("device", "cuda", ("speed",)),
        ("threads", 1, ("speed",)),
        ("compile", True, ("speed",)),
    ],
)
def test_other_settings_are_incomparable_where_they_matter(field: str, value: object, tiers: tuple[Tier, ...]) -> None:
    parts = {"static": static(), "accuracy": accuracy(np.ones(9, bool)), "speed": speed(1.3)}
    old, new = cell(**parts), cell(**parts, **{field: value})
    for tier in TIERS:
        found = only(old, new, tier)
        assert (found.verdict == "incomparable") == (tier in tiers), tier
        assert (field in found.detail) == (tier in tiers)


def test_the_gate_asks_about_every_field_of_a_cell_and_about_threads() -> None:
    fields = {field.name for field in dataclasses.fields(Cell)} - {*WITH_OPTIONS}  # which are in the options
    assert fields | {"threads"} == set(Asked.model_fields)


def test_nan_where_there_was_accuracy_is_worse() -> None:
    assert only(cell(accuracy=accuracy(np.ones(9, bool))), cell(nonfinite=True), "accuracy").verdict == "worse"


def test_a_tolerance_under_the_noise_floor_is_refused() -> None:
    old, new = snapshot(cell(speed=speed(1.3)), noise_floor=0.08), snapshot(cell(speed=speed(1.3)))
    with pytest.raises(ConfigError, match="noise floor"):
        compare(old, new, ["speed"], Limits())
    assert compare(old, new, ["speed"], Limits(SpeedLimits(tolerance=0.1)))[0].verdict == "same"


def test_the_noise_floor_is_the_outer_end_of_what_two_equal_runs_leave_open() -> None:
    quiet = noise_floor({"r=8": (cell(speed=speed(1.3)), cell(speed=speed(1.3, seed=1)))})
    loud = noise_floor({"r=8": (cell(speed=speed(1.3, noise=0.1)), cell(speed=speed(1.3, noise=0.1, seed=1)))})
    assert isinstance(quiet, float)
    assert isinstance(loud, float)
    assert 0 < quiet < 0.03 < loud


def test_there_is_no_noise_floor_of_a_part_of_a_run() -> None:
    good = (cell(speed=speed(1.3)), cell(speed=speed(1.3)))
    assert noise_floor({"r=8": good, "r=9": (good[0], cell())}) == "r=9 was not timed"
    short = cell(speed=speed(1.3, rounds=5))
    assert "r=9: this run has 5 rounds" in str(noise_floor({"r=8": good, "r=9": (good[0], short)}))
    assert noise_floor({}) == "there are no cells"


@pytest.mark.parametrize(
    ("verdicts", "code"),
    [
        ([], 4),
        (["same"], 0),
        (["same", "better"], 0),
        (["same", "inconclusive"], 4),
        (["same", "incomparable"], 4),
        (["same", "missing"], 4),
        (["worse", "missing", "inconclusive"], 3),
    ],
)
def test_exit_codes(verdicts: list[Any], code: int) -> None:
    assert exit_code([Finding("static", "r=0", verdict, "") for verdict in verdicts]) == code


def test_only_what_is_worse_twice_stays_worse() -> None:
    def found(cell_: str, verdict: Any, tier: Tier = "speed") -> Finding:
        return Finding(tier, cell_, verdict, f"{cell_} {verdict}", "speed-up over r = 0")

    first = [found("r=4", "worse"), found("r=8", "worse"), found("r=9", "worse"), found("r=13", "same")]
    again = [found("r=4", "worse"), found("r=8", "same"), found("r=9", "inconclusive")]
    static_ = found("r=4", "worse", "static")
    result = confirmed([static_, *first], again)
    assert [f.verdict for f in result] == ["worse", "worse", "same", "inconclusive", "same"]
    assert "at first: r=8 worse" in result[2].detail
    for second in ([], [found("r=4", "missing")], [found("r=4", "incomparable")]):
        (still,) = confirmed(first[:1], second)
        assert (still.verdict, still.detail) == ("worse", "r=4 worse; could not be measured again")


@given(st.integers(1, 200), st.data())
def test_a_run_compared_with_itself_is_the_same(n: int, data: st.DataObject) -> None:
    right = np.array(data.draw(st.lists(st.booleans(), min_size=n, max_size=n)))
    one = snapshot(cell(static=static(), accuracy=accuracy(right), speed=speed(1.3)))
    findings = compare(one, one, TIERS, Limits())
    assert {f.verdict for f in findings} == {"same"}
    assert exit_code(findings) == 0
