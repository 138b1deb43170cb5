"""What the sentence says in each case; which row it is about is tested with the advice."""

import dataclasses

import pytest
from demo_rows import demo
from report_rows import accuracy, make_row, make_sweep, speed, with_ceiling

from tomebench.report.headline import answer, sentence, yardsticks
from tomebench.report.text import display_table
from tomebench.runs.codes import CHANCE_LEVEL
from tomebench.runs.row import Row
from tomebench.schema import MAX_DROP
from tomebench.stats import paired_delta, paired_interval


def row(r: int, gain: float, loss: float | None = None, half: float = 0.1, n: int = 50_000, **changes: object) -> Row:
    """``gain`` times as fast, about ``loss`` points worse plus or minus about ``half``, on ``n`` images."""
    fields = speed(gain)
    if loss is not None:
        fewer = round(loss * n / 100)
        changed = max(abs(fewer), round((half * n / 196) ** 2 + fewer**2 / n))
        lost, gained = (changed + fewer) // 2, (changed - fewer) // 2
        delta = paired_delta(lost, gained, n)
        fields |= accuracy(250) | {"n_seen": n, "top1_lost": lost, "top1_gained": gained}
        fields |= {"delta_top1": 100 * delta.delta, "mcnemar_p": delta.p}
        fields |= {"delta_top1_lo": 100 * delta.interval.lo, "delta_top1_hi": 100 * delta.interval.hi}
    return make_row(r, **{"mac_ratio": 1 + r / 20, **fields, **changes})


def said(*rows: Row, max_drop: float = MAX_DROP) -> str:
    """The sentence of a sweep that also has r = 0."""
    text = sentence([make_row(**speed(1.0, None), **accuracy(250)), *rows], max_drop)
    assert text is not None
    return text


def test_said_fails_when_there_is_nothing_to_say():
    with pytest.raises(AssertionError):
        said()


def test_a_recommendation():
    assert said(row(4, 1.1, 0.1), row(8, 1.31, 0.35, 0.15), row(12, 1.6, 2.0)) == (
        "r=8 is 1.31x faster [1.29, 1.33] at -0.35 points [-0.50, -0.20], surely within 1 point "
        "(median of 12 rounds within one process; 50000 images)"
    )


def test_the_speed_of_one_of_several_models_is_over_its_own_r_0():
    rows = [row(8, 1.31, 0.35, 0.15), make_row(img_size=192), row(8, 1.2, 0.35, 0.15, img_size=192)]
    assert said(*rows, max_drop=1).startswith("224 px r=8 is 1.31x faster [1.29, 1.33] against its own r=0 at -0.35")


def test_the_limit_is_the_readers():
    rows = row(4, 1.1, 0.1), row(8, 1.31, 0.35, 0.15), row(12, 1.6, 2.0)
    assert said(*rows, max_drop=0.4).startswith("r=4 is 1.10x faster [1.08, 1.12] at -0.10 points")
    assert ", surely within 2.5 points (" in said(*rows, max_drop=2.5)
    assert said(*rows, max_drop=100).startswith("r=12 ")
    assert said(*rows[1:], max_drop=0.1).startswith(
        "Nothing pays here: every r that is faster loses more than 0.1 points;"
    )


def test_a_sure_row_wins_over_a_faster_one_that_may_lose_more():
    assert said(row(4, 1.1, 0.1), row(8, 1.3, 0.95, 0.2)).startswith("r=4 ")


def test_too_few_images_to_tell():
    assert said(row(4, 1.1, 0.3, 1.5, 1000), row(8, 1.3, 0.7, 1.5, 1000), row(12, 1.5, 2.0, 1.5, 1000)) == (
        "Nothing can be recommended yet: r=8 is 1.30x faster [1.28, 1.32] at -0.70 points [-2.26, +0.83] "
        "(median of 12 rounds "
        "within one process; 1000 images), but if that stays so, about 38000 images would be needed to show that "
        "its loss is within 1 point, as one of 3 rows; about 7100 images for r=4, which is 1.10x faster [1.08, 1.12]"
    )


def test_agreement_on_few_images_proves_little():
    for n, told in ((20, False), (300, False), (599, True), (50_000, True)):
        assert said(row(8, 1.3, 0.0, 0.0, n)).startswith("r=8 is 1.30x faster" if told else "Nothing can be")


def test_images_lost_count_against_the_limit():
    # 4 of 599 lost: the true loss can be 1.7 points.
    assert said(row(8, 1.4, 0.67, 0.0, 599)).startswith("Nothing can be recommended yet: r=8")


def test_the_fastest_of_many_has_to_be_surer():
    rows = [row(r, 1.1, 0.0, 0.0, 450) for r in range(1, 25)]
    assert said(rows[0]).startswith("r=1 is 1.10x faster")
    assert said(*rows).startswith("Nothing can be recommended yet")


def test_what_no_number_of_images_can_show():
    out_of_reach = (
        "but if that stays so, over 100 times as many images would be needed to show that its loss is within "
    )
    assert said(row(8, 1.3, 0.998, 0.1)).endswith(out_of_reach + "1 point")
    assert said(row(8, 1.3, 0.0, 0.1), max_drop=0).endswith(out_of_reach + "0 points")


def test_every_row_loses_more():
    assert said(row(8, 1.3, 2.0), row(12, 1.6, 3.0)) == (
        "Nothing pays here: every r that is faster loses more than 1 point; at best r=8 is 1.30x faster [1.28, 1.32] "
        "at -2.00 points [-2.13, -1.88] (median of 12 rounds within one process; 50000 images)"
    )


def test_every_row_seems_to_lose_more():
    text = said(row(8, 1.3, 2.0, 3.0, 400), row(12, 1.6, 3.0, 0.1, 400), row(16, 1.9, 3.0, 3.0, 400))
    assert text.startswith(
        "Nothing pays here so far: every r that is faster seems to lose more than 1 point; at best r=8 "
    )
    # The interval has to be a third as wide: nine times as many images.
    assert text.endswith(
        "(median of 12 rounds "
        "within one process; 400 images), and if that stays so, about 3700 images would be needed to be sure"
    )


def test_only_a_row_that_may_not_be_faster_loses_little():
    rows = row(4, 1.02, 0.1, speedup_vs_r0_lo=0.99), row(8, 1.3, 2.0)
    assert said(*rows) == (
        "Nothing pays here so far: every r that is surely faster seems to lose more than 1 point; r=4 reaches 1.02x "
        "[0.99, 1.04] at -0.10 points [-0.20, 0.00] (median of 12 rounds "
        "within one process; 50000 images), and about 28 rounds would be "
        "needed to tell"
    )
    few = dataclasses.replace(rows[0], n_seen=100, top1_lost=0, top1_gained=0)
    assert said(few, rows[1]).endswith("and about 28 rounds and 498 images or more would be needed to tell")


def test_several_processes_are_the_unit_of_what_is_said_and_asked_for():
    found = said(row(8, 1.31, 0.35, 0.15, rounds=30, processes=5))
    assert found.endswith(
        " points [-0.50, -0.20], surely within 1 point (mean of 5 processes, 30 rounds; 50000 images)"
    )
    found = said(row(8, 1.02, 0.1, rounds=30, processes=5, speedup_vs_r0_lo=0.99))
    assert found.endswith(", and about 9 processes would be needed to tell")
    given = answer([make_row(**speed(1.0, None)), row(8, 1.02, rounds=30, processes=5, speedup_vs_r0_lo=0.99)])
    assert given is not None
    assert (given.rounds, given.processes) == (None, 9)


def test_what_may_be_faster_loses_more():
    text = "Nothing pays here so far: no r is surely faster than r=0, and what may be seems to lose more than 1 point; "
    few = {"speedup_vs_r0_lo": None, "speedup_vs_r0_hi": None, "rounds": 3}
    for open_ in (row(8, 1.5, 20.0, speedup_vs_r0_lo=0.9, speedup_vs_r0_hi=2.0), row(8, 1.3, 5.0, **few)):
        assert said(open_).startswith(text + "at best r=8 reaches 1.")
        assert said(open_).endswith(" images)")


def test_nothing_is_faster():
    slower = said(row(4, 0.9, 0.0), row(8, 0.95, 0.1))
    assert slower == (
        "Nothing pays here: no r is faster than r=0; at best r=8 reaches 0.95x [0.93, 0.97] at -0.10 points "
        "[-0.20, 0.00] (median of 12 rounds within one process; 50000 images)"
    )
    assert said(row(8, 1.01, 0.1)).endswith(", and about 49 rounds would be needed to tell")
    for value in (0.992, 0.999, 1.001):
        assert said(row(8, value, 0.1)).endswith("50000 images), and more rounds would hardly show a gain")
        assert said(row(8, value, 0.1, warnings=("NOISY",))).endswith(
            ", and the machine was too busy or noisy to tell: run again on a quiet one"
        )


def test_what_may_be_faster_and_loses_nothing_is_not_said_to_lose():
    """However wide an interval is: of a machine that was busy, nothing can be told yet."""
    rows = [row(12, 0.48, 0.0, speedup_vs_r0_lo=0.39, speedup_vs_r0_hi=2.14, warnings=("CPU_BUSY",)), row(16, 0.9, 9.0)]
    text = said(*rows)
    assert text.startswith(
        "Nothing pays here so far: no r is surely faster than r=0; at best r=12 reaches 0.48x [0.39, 2.14]"
    )
    assert text.endswith("too busy or noisy to tell: run again on a quiet one")
    faster = row(8, 1.3, 9.0)  # and loses surely: what is slower, as it looks, is no news then
    assert said(faster, *rows).startswith(
        "Nothing pays here: every r that is faster loses more than 1 point; at best r=8"
    )


def test_without_accuracy_the_fastest_row_under_the_cap():
    rows = [make_row(**speed(1.0, None)), row(8, 1.3), row(15, 1.7), row(16, 1.8, clamped=True)]
    assert sentence(rows) == (
        "r=15 is 1.70x faster [1.68, 1.72] (median of 12 rounds within one process); "
        "accuracy was not evaluated, add --data to see its price"
    )
    assert (sentence([rows[0], rows[3]]) or "").startswith("r=16 ")


def test_without_accuracy_nothing_is_recommended_that_may_not_be_faster():
    assert said(row(4, 1.01), row(8, 0.9)) == (
        "Nothing pays here so far: no r is surely faster than r=0; at best r=4 reaches 1.01x [0.99, 1.03] "
        "(median of 12 rounds within one process), and about 49 rounds would be needed to tell"
    )


def test_without_accuracy_what_may_be_faster_goes_before_what_is_not():
    wide = row(12, 0.95, speedup_vs_r0_lo=0.80, speedup_vs_r0_hi=1.20)
    text = said(row(8, 0.98, speedup_vs_r0_lo=0.97, speedup_vs_r0_hi=0.99), wide)
    assert text.startswith("Nothing pays here so far: no r is surely faster than r=0; at best r=12 reaches 0.95x")


def test_images_without_a_loss_are_no_speed_only_run():
    uncounted = {"delta_top1": None, "delta_top1_lo": None, "delta_top1_hi": None}
    assert said(row(8, 1.3, 0.1, **uncounted)) == (
        "Nothing can be recommended: r=8 is 1.30x faster [1.28, 1.32] (median of 12 rounds "
        "within one process; 50000 images), but its "
        "top-1 cannot be compared with that of r=0"
    )
    assert said(row(8, 1.3, 0.1, **uncounted), row(4, 1.1, 0.1)).startswith("r=4 is 1.10x faster")


@pytest.mark.parametrize(
    "changes", [{"status": s} for s in ("failed", "oom", "nonfinite")] + [{"warnings": ("SAME_AS_R8",)}]
)
def test_rows_that_are_not_results_are_never_praised(changes):
    assert said(row(8, 1.3, 0.1), row(12, 1.6, 0.1, **changes)).startswith("r=8 ")


def test_unconverged_is_said():
    assert "(median of 12 rounds within one process, not converged; 50000 images)" in said(
        row(8, 1.3, 0.1, status="unconverged")
    )


def test_too_few_rounds_for_an_interval_recommend_nothing():
    few = dataclasses.replace(row(8, 1.3, 0.1), speedup_vs_r0_lo=None, speedup_vs_r0_hi=None, rounds=4)
    assert said(few).endswith(
        "at best r=8 reaches 1.30x at -0.10 points [-0.20, 0.00] (median of 4 rounds "
        "within one process; 50000 images), and about 6 "
        "rounds would be needed to tell"
    )


def test_a_biased_run_has_no_speed_up():
    rows = [dataclasses.replace(r, warnings=(*r.warnings, "AA_FAILED")) for r in make_sweep()]
    assert "no speed-up can be stated" in (sentence(rows) or "").lower()
    assert yardsticks(rows) is None
    other = row(8, 1.2, 0.1, dtype="bf16")  # of a run whose control held
    assert (sentence([*rows, other]) or "").startswith("bf16 r=8 is 1.20x faster")


def test_guessing_at_r_0_leaves_no_loss_to_state():
    base = make_row(**speed(1.0, None), **accuracy(30), warnings=(CHANCE_LEVEL,))
    assert sentence([base, row(8, 1.3, 0.0)]) == (
        "No loss of accuracy can be stated: top-1 at r=0 is that of guessing or of classes in another order "
        "(CHANCE_LEVEL), so check the order of the classes and the preprocessing"
    )
    assert yardsticks([base, row(8, 1.3, 0.0)]) is None


def test_untimed_rows_speak_of_macs():
    rows = [make_row(**accuracy(250)), make_row(8, **accuracy(250), mac_ratio=1.25)]
    assert sentence(rows) == (
        "Nothing can be recommended yet: r=8 needs 20 % fewer MACs than the unwrapped model at 0.00 points "
        "[-0.15, +0.15] (300 images), but if that stays so, 381 images or more would be needed to show "
        "that its loss is within 1 point"
    )
    assert (sentence(demo(timed=False), 1.5) or "").startswith("r=4 needs 13 % fewer MACs than the unwrapped model at")


def test_the_sentence_of_a_run_of_the_demo():
    assert sentence(demo()) == (
        "Nothing can be recommended yet: r=12 is 1.35x faster [1.32, 1.39] at -0.83 points [-2.02, +0.04] "
        "(median of 38 rounds "
        "within one process, not converged; 599 images), but if that stays so, about 35000 images would be needed to "
        "show that its loss is within 1 point, as one of 7 rows; about 6500 images for r=8, which is 1.08x faster "
        "[1.03, 1.16]"
    )


def test_what_is_said_of_the_same_rows_again_computes_no_interval_again():
    """A report says it on the screen, in its summary and in its figure."""
    rows = demo()
    paired_interval.cache_clear()
    said = sentence(rows)
    computed = paired_interval.cache_info().misses
    assert computed > 0
    assert [sentence(rows), str(answer(rows))] == [said, said]
    yardsticks(rows)
    assert paired_interval.cache_info().misses == computed


def test_nothing_to_compare():
    assert sentence([]) is None
    assert sentence([make_row(**speed(1.0))]) is None
    assert sentence([make_row(8, status="oom")]) is None
    assert yardsticks([]) is None


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


def test_without_labels_the_sentence_says_how_many_images_keep_their_class():
    seen = {"dataset": "mine", "dataset_digest": "feed", "n_seen": 300}
    base = make_row(**speed(1.0), **seen, agreement=100.0, agreed=300)
    row = make_row(8, **speed(1.3), **seen, agreement=96.0, agreement_lo=93.1, agreement_hi=97.7, agreed=288)
    assert sentence([base, row]) == (
        "Nothing can be recommended without labels: at best r=8 is 1.30x faster [1.28, 1.32] (median of 12 rounds "
        "within one process; 300 "
        "images); 96.0 % [93.1, 97.7] of the images keep their class, so it loses up to 6.9 points; "
        "labels of at least 381 images would tell"
    )
    assert sentence([base, row], 7) == (
        "r=8 is 1.30x faster [1.28, 1.32] (median of 12 rounds "
        "within one process; 300 images); 96.0 % [93.1, 97.7] of the images keep "
        "their class, so it loses 7 points at most"
    )
    two = make_row(16, **speed(1.6), **seen, agreement=90.0, agreement_lo=86.1, agreement_hi=92.9, agreed=270)
    assert (sentence([base, row, two], 5) or "").endswith(
        "so it loses up to 7.4 points, as one of 2 rows; labels would tell, or about 2400 images if that is how it "
        "stays"
    )
    headers, cells = display_table([base, row])
    assert [line[headers.index("agreement [95%]")] for line in cells] == ["100.0", "96.0 [93.1, 97.7]"]
    assert "top-1" not in headers
    headers, _ = display_table([base, row, make_row(8, **speed(1.3), **accuracy(250))])
    assert {"top-1", "agreement [95%]"} <= {*headers}, "of two runs, one with labels"
