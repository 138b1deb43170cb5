"""Which row the sentence is about, and what it admits."""

import dataclasses

import pytest
from report_rows import accuracy, make_row, make_sweep, speed, with_ceiling

from tomebench.report.headline import headline, sentence, yardsticks
from tomebench.schema import Row


def row(r: int, gain: float, loss: float | None = None, half: float = 0.1, **changes: object) -> Row:
    """``gain`` times as fast, ``loss`` points worse plus or minus ``half``."""
    fields = speed(gain)
    if loss is not None:
        fields |= accuracy(250, half=half) | {"n_seen": 50_000}
        fields |= {"delta_top1": -loss, "delta_top1_lo": -loss - half, "delta_top1_hi": -loss + half}
    return make_row(r, **{"mac_ratio": 1 + r / 20, **fields, **changes})


def said(*rows: Row) -> str:
    """The sentence of a sweep that also has r = 0."""
    text = sentence([make_row(**speed(1.0, None), **accuracy(250)), *rows])
    assert text is not None
    return text


def test_said_fails_when_there_is_nothing_to_say():
    with pytest.raises(AssertionError):
        said()


def test_golden():
    assert said(row(4, 1.1, 0.1), row(8, 1.31, 0.35, 0.15), row(12, 1.6, 2.0)) == (
        "r=8 is 1.31x faster [1.29, 1.33] at -0.35 points [-0.50, -0.20] (median of 12 rounds; 50000 images)"
    )


def test_a_sure_row_wins_over_a_faster_one_that_may_lose_more():
    assert said(row(4, 1.1, 0.1), row(8, 1.3, 0.95, 0.2)).startswith("r=4 ")


def test_too_few_images_to_tell():
    text = said(row(4, 1.1, 0.3, 1.5), row(8, 1.3, 0.7, 1.5), row(12, 1.5, 2.0, 1.5))
    assert text.startswith("r=8 is 1.30x faster")
    assert text.endswith("; 50000 images are too few to tell whether the loss stays within 1 point")


def test_agreement_on_few_images_proves_little():
    """A paired interval is as narrow as the images that differ are few; how many there are decides what it proves."""
    for n, told in ((20, False), (300, False), (599, True), (50_000, True)):
        text = said(row(8, 1.3, 0.0, 0.0, n_seen=n))
        assert text.endswith("too few to tell whether the loss stays within 1 point") != told


def test_images_lost_count_against_the_limit():
    # 4 of 599 lost: the true loss can be 1.7 points although the paired interval ends at 0.67.
    fields = {"delta_top1": -0.67, "delta_top1_lo": -0.67, "delta_top1_hi": 0.14, "n_seen": 599}
    assert said(row(8, 1.4, 0.67, **fields)).endswith("; the loss may exceed 1 point")


def test_a_narrow_interval_across_the_limit():
    assert said(row(8, 1.3, 0.95, 0.1)).endswith("; the loss may exceed 1 point")


def test_every_row_loses_more():
    text = said(row(8, 1.3, 2.0), row(12, 1.6, 3.0))
    assert text.startswith("r=8 is 1.30x faster [1.28, 1.32] at -2.00 points")
    assert text.endswith("; every r that is faster loses more than 1 point")
    assert said(row(8, 1.3, 2.0, 3.0)).endswith("50000 images are too few to be sure")


def test_nothing_is_faster():
    assert said(row(4, 0.9, 0.0), row(8, 0.95, 0.1)).startswith("r=8 is slower than r=0: 0.95x [0.93, 0.97] at -0.10")
    assert said(row(8, 1.01, 0.1)).startswith("r=8 is not measurably faster than r=0: 1.01x [0.99, 1.03] at")


def test_without_accuracy_the_fastest_row_under_the_cap():
    rows = [make_row(**speed(1.0, None)), row(8, 1.3), row(15, 1.7), row(16, 1.8, clamped=True)]
    assert sentence(rows) == (
        "r=15 is 1.70x faster [1.68, 1.72] (median of 12 rounds); "
        "accuracy was not evaluated, add --data to see its price"
    )
    assert (sentence([rows[0], rows[3]]) or "").startswith("r=16 ")


@pytest.mark.parametrize(
    "changes", [{"status": s} for s in ("failed", "oom", "nonfinite")] + [{"warnings": ("SAME_AS_R8",)}]
)
def test_rows_that_are_not_results_are_never_praised(changes):
    assert said(row(8, 1.3, 0.1), row(12, 1.6, 0.1, **changes)).startswith("r=8 ")


def test_unconverged_and_few_rounds_are_said():
    assert "(median of 12 rounds, not converged; 50000 images)" in said(row(8, 1.3, 0.1, status="unconverged"))
    few = dataclasses.replace(row(8, 1.3, 0.1), speedup_vs_r0_lo=None, speedup_vs_r0_hi=None, rounds=4)
    assert said(few).startswith("r=8 is 1.30x faster at -0.10 points [-0.20, 0.00] (median of 4 rounds; 50000 images)")


def test_a_biased_run_has_no_speed_up():
    rows = [dataclasses.replace(r, warnings=(*r.warnings, "AA_FAILED")) for r in make_sweep()]
    assert "no speed-up can be stated" in (sentence(rows) or "").lower()
    assert yardsticks(rows) is None
    other = row(8, 1.2, 0.1, dtype="bf16")  # of a run whose control held
    assert (sentence([*rows, other]) or "").startswith("bf16 r=8 is 1.20x faster")


def test_untimed_rows_speak_of_macs():
    fields = accuracy(250) | {"mac_ratio": 1.25}
    rows = [make_row(**accuracy(250)), make_row(8, **fields)]
    assert sentence(rows) == (
        "r=8 needs 20 % fewer MACs than the unwrapped model at 0.00 points [-0.15, +0.15] (300 images)"
        "; 300 images are too few to tell whether the loss stays within 1 point"
    )


def test_nothing_to_compare():
    assert sentence([]) is None
    assert sentence([make_row(**speed(1.0))]) is None
    assert yardsticks([]) is None
    assert headline([make_row(8, status="oom")]) is None


def test_a_list_schedule_of_zero_mean_is_not_the_baseline():
    assert sentence([row(0, 1.02, schedule="list:1,0,0")]) is not None


def test_the_varying_setting_is_named():
    text = sentence([row(8, 1.3, 0.1), row(8, 1.5, 0.1, dtype="bf16")])
    assert (text or "").startswith("bf16 r=8 is 1.50x faster")


def test_yardsticks_golden():
    assert yardsticks(make_sweep()) == (
        "Against the unwrapped model r=8 reaches 1.28x [1.26, 1.30]; its MAC ratio is 1.34x, efficiency 0.96"
    )


def test_yardsticks_name_the_ceiling_where_it_was_timed():
    sliced = "; slicing the same tokens off gives 1.33x over r=0, overhead of merging +2.0 % [+1.0, +3.0]"
    assert yardsticks(with_ceiling()) == yardsticks(make_sweep()) + sliced
