"""The table, the conditions and the warnings, character by character."""

import dataclasses

import pytest
from report_rows import accuracy, make_row, make_sweep, speed, with_ceiling

from tomebench.report.codes import EXPLANATIONS, warning_lines
from tomebench.report.conditions import conditions
from tomebench.report.narrow import last
from tomebench.report.text import context_for, detail_table, display_table

HEADERS = ["r", "tokens", "GMACs", "img/s ±", "speed-up [95%]", "top-1", "Δ vs r=0 [95%]", "notes"]


def test_table_golden():
    assert display_table(make_sweep()) == (
        HEADERS,
        [
            ["0", "197", "1.25", "100.0", "1.00x", "83.3", "0.00", ""],
            ["4", "149", "1.09", "113.5 ±2.0", "1.14x [1.11, 1.16]", "83.3", "0.00 [-0.15, +0.15]", ""],
            ["8", "101", "0.93", "130.6 ±2.0", "1.31x [1.29, 1.33]", "83.0", "-0.33 [-0.48, -0.18]", ""],
            ["16", "11", "0.62", "190.0 ±5.0", "1.90x [1.85, 1.95]", "76.7", "-6.67 [-6.82, -6.52]",
             "±2.7 %, unconverged, cap"],
            ["20", "11", "0.62", "190.0 ±2.0", "1.90x [1.88, 1.92]", "76.7", "-6.67 [-6.82, -6.52]",
             "cap, same as r=16"],
        ],
    )  # fmt: skip


def test_columns_that_nothing_fills_are_left_out():
    assert display_table([make_row(), make_row(8)])[0] == ["r", "tokens", "GMACs", "notes"]
    assert display_table([make_row(8, **speed(1.3))])[0] == [*HEADERS[:5], "notes"]
    assert display_table([make_row(8, **accuracy(250))])[0] == [*HEADERS[:3], *HEADERS[5:]]
    assert detail_table([make_row()])[0] == ["r", "MAC ratio"]


def test_ceiling_and_overhead_stand_beside_the_speed_up():
    headers, lines = display_table(with_ceiling())
    assert headers == [*HEADERS[:5], "ceiling", "overhead [95%]", *HEADERS[5:]]
    assert [line[5:7] for line in lines] == [
        ["-", "-"],
        ["1.16x", "+2.0 % [+1.0, +3.0]"],
        ["1.33x", "+2.0 % [+1.0, +3.0]"],
        ["1.94x", "+2.0 % [+1.0, +3.0]"],
        ["1.94x", "0.0 % [+1.0, +3.0]"],
    ]
    headers, lines = detail_table(with_ceiling())
    assert lines[2][headers.index("ceiling [95%]")] == "1.33x [1.32, 1.35]"


def test_a_compiled_row_that_recompiled_says_what_to_do():
    rows = [make_row(compile=True), make_row(8, compile=True, status="failed", warnings=("RECOMPILED",))]
    assert ", infer, compiled, " in conditions(rows)[2]
    (line,) = (line for line in warning_lines(rows) if line.startswith("RECOMPILED"))
    assert line.startswith("RECOMPILED (r = 8): a graph was compiled inside a timed burst")


def test_not_measured_is_a_dash_beside_rows_that_were():
    rows = [make_row(**speed(1.0), **accuracy(250)), make_row(8, status="oom")]
    assert display_table(rows)[1][1] == ["8", "197", "1.25", "-", "-", "-", "-", "out of memory"]


def test_a_setting_that_varies_becomes_a_column():
    rows = [make_row(8, dtype="fp32"), make_row(8, dtype="bf16", warnings=("NOISY",))]
    headers, lines = display_table(rows)
    assert headers == ["dtype", "r", "tokens", "GMACs", "notes"]
    assert [line[0] for line in lines] == ["fp32", "bf16"]
    assert conditions(rows)[2].startswith("device: cpu, dtype varies, batch 2")
    assert warning_lines(rows)[0].startswith("NOISY (bf16 r = 8): ")


@pytest.mark.parametrize(
    ("rate", "half", "shown"),
    [
        (3.2104, 0.011, "3.210 ±0.011"),
        (45.678, 0.4, "45.68 ±0.40"),
        (412.34, 1.23, "412.3 ±1.2"),
        (12345.6, 34, "12346 ±34"),
    ],
)
def test_rates_show_four_digits(rate, half, shown):
    row = make_row(8, img_per_s=rate, img_per_s_lo=rate - half, img_per_s_hi=rate + half / 2)
    assert display_table([row])[1][0][3] == shown


def test_small_models_keep_their_digits():
    assert display_table([make_row(gmacs=0.0512), make_row(8, gmacs=0.0312)])[1][1][2] == "0.031"


def test_top1_has_the_digits_that_its_images_give():
    assert display_table([make_row(**accuracy(250, 300))])[1][0][3] == "83.3"
    assert display_table([make_row(**accuracy(42345, 50000, 42345))])[1][0][3] == "84.69"


def test_a_rounded_zero_has_no_sign():
    fields = accuracy(250) | {"delta_top1": -0.001, "delta_top1_lo": -0.004, "delta_top1_hi": 0.004}
    assert display_table([make_row(8, **fields)])[1][0][4] == "0.00 [0.00, 0.00]"


def test_few_rounds_have_no_interval():
    assert display_table([make_row(8, **speed(1.3, None))])[1][0][3:5] == ["130.0", "1.30x"]


def test_conditions_golden():
    assert conditions(make_sweep()) == (
        "model: vit_tiny.tag, weights random:0, 224 px, 5.72 M parameters",
        "method: tome, constant schedule, prop_attn=True",
        "device: cpu, fp32, batch 2, infer, attention sdpa (r = 0), sdpa-bias (r = 4, 8, 16, 20)",
        "images: digits, 300 seen, crop 0.9, bicubic, mean 0.5 0.5 0.5, std 0.5 0.5 0.5",
        "intervals: 95 %, of speeds within one process, of accuracies over images",
        "testbed: 2 CPUs, 2 threads, torch 2.14.1",
    )
    assert conditions([]) == ()


def test_conditions_without_images_and_with_a_checkpoint():
    lines = conditions([make_row(weights="sha256:" + "ab" * 32, compile=True, options="", testbed="")])
    assert "weights sha256:abababababab…" in lines[0]
    assert lines[1] == "method: tome, constant schedule"
    assert "infer, compiled" in lines[2]
    assert lines[3] == "images: none, accuracy was not evaluated"
    assert lines[4:] == ("intervals: 95 %, of speeds within one process", "testbed: unavailable")
    assert conditions([make_row(rounds=0)])[4].startswith("testbed: ")  # nothing has an interval
    assert conditions([make_row(processes=5)])[4] == "intervals: 95 %, of speeds between 5 processes"


def test_warnings_golden():
    assert warning_lines(make_sweep()) == (
        f"unconverged (r = 16): {EXPLANATIONS['unconverged']}",
        f"R_CLAMPED (r = 16, 20): {EXPLANATIONS['R_CLAMPED']}",
        "SAME_AS_R16 (r = 20): these remove the same tokens as r = 16 in every block; leave them out, "
        "any difference is noise",
    )


def test_every_status_and_code_says_what_to_do_in_one_line():
    rows = [make_row(8, status="failed", error="RuntimeError: shapes\ndiffer")]
    rows += [make_row(r, status=status) for r, status in ((9, "oom"), (10, "nonfinite"), (11, "unconverged"))]
    codes = ("AA_FAILED", "NOISY", "TESTBED_CHANGED", "PARTIAL_EVAL", "SOMETHING_NEW")
    rows = [dataclasses.replace(row, warnings=codes) for row in rows]
    lines = warning_lines(rows)
    assert [line.split(" ")[0] for line in lines] == [
        "AA_FAILED", "failed", "oom", "nonfinite", "unconverged",
        "TESTBED_CHANGED", "NOISY", "PARTIAL_EVAL", "SOMETHING_NEW",
    ]  # fmt: skip
    assert lines[0].startswith("AA_FAILED (every row): ")
    assert lines[1] == "failed (r = 8): these rows could not be measured; RuntimeError: shapes\\ndiffer"
    assert all("\n" not in line for line in lines)
    assert warning_lines([make_row()]) == ()


def test_many_errors_are_cut_and_widths_are_left_to_the_notes():
    rows = [make_row(r, status="failed", error=f"E{r}") for r in range(1, 5)]
    rows += [make_row(r, status="unconverged", error=f"known to {r} %", **speed(1.3)) for r in range(5, 9)]
    failed, unconverged = warning_lines(rows)
    assert failed.endswith("; E1; E2; more in the column error of table.csv")
    assert unconverged == f"unconverged (r = 5..8): {EXPLANATIONS['unconverged']}"
    assert display_table(rows)[1][-1][-1] == "±1.6 %, unconverged"


def test_two_runs_that_differ_by_machine_alone_are_told_apart():
    here, there = make_row(8, testbed="laptop"), make_row(8, testbed="server")
    assert display_table([here, there])[0][:2] == ["testbed", "r"]
    assert display_table([here, make_row(9, testbed="server")])[0][0] == "r"
    assert display_table([here, here])[0][0] == "r"


def test_the_cap_is_told_even_without_its_code():
    assert display_table([make_row(16, clamped=True)])[1][0][-1] == "cap"


@pytest.mark.parametrize("name", ["=HYPERLINK(1)", "a|b<script>", "::error::x", "\x1b[31m", "two\nlines"])
def test_names_are_inert_on_a_screen(name):
    row = make_row(8, model=name, dataset=name, n_seen=1, testbed=name, error=name, status="failed", warnings=(name,))
    context = context_for([row, dataclasses.replace(row, model="other")], "title", paths=[name])
    table = display_table([row, dataclasses.replace(row, model="other")])[1]
    for text in (*context.conditions, *context.warnings, *context.paths, *table[0]):
        assert text.isprintable()
        assert not text.lstrip().startswith("::")


def test_context_for_takes_its_lines_from_the_rows():
    rows = make_sweep()
    context = context_for(rows, "Demo", paths=["a/b"], command="tomebench demo", next_command="tomebench plan")
    assert (context.conditions, context.warnings) == (conditions(rows), warning_lines(rows))
    assert (context.paths, context.command, context.next_command) == (("a/b",), "tomebench demo", "tomebench plan")


def test_latency_energy_and_the_whole_pipeline_have_columns_when_measured():
    measured = {"latency_p50_ms": 3.14159, "latency_p95_ms": 12.0, "img_per_s_end_to_end": 99.96, "j_per_img": 0.05}
    headers, lines = display_table([make_row(**speed(1.0)), make_row(8, **speed(1.3), **measured)])
    assert headers == [*HEADERS[:5], "p50 ms", "p95 ms", "end-to-end", "notes"]
    assert [line[5:8] for line in lines] == [["-", "-", "-"], ["3.142", "12.00", "99.96"]]
    headers, lines = detail_table([make_row(), make_row(8, **measured)])
    assert [line[headers.index("J/img")] for line in lines] == ["-", "0.0500"]


def test_many_rows_of_one_r_are_not_named_one_by_one() -> None:
    rows = [make_row(0), *(make_row(8, options=f"metric={name}", clamped=True) for name in "abcdef")]
    (line,) = [line for line in warning_lines(rows) if line.startswith("R_CLAMPED")]
    assert line.startswith("R_CLAMPED (r = 8): ")
    rows.append(make_row(8, options="metric=g"))
    (line,) = [line for line in warning_lines(rows) if line.startswith("R_CLAMPED")]
    assert line.startswith("R_CLAMPED (6 rows with r = 8): ")


def test_long_names_of_runs_are_shortened_where_they_stay_apart():
    shorten = last(8)
    assert shorten(["deit-tome", "deit-tome-2", "mine"]) == ["…it-tome", "…-tome-2", "mine"]
    alike = ["one-deit-tome", "two-deit-tome"]
    assert shorten(alike) == alike
