"""Speed columns and their warnings, derived from stored rounds: golden values by hand, and nothing ever NaN."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import stats as oracle
from store_samples import (
    BATCH,
    CELLS,
    CONFIG,
    KEYS,
    TESTBED,
    add_rounds,
    make_cell,
    make_resolved,
    make_round,
    times_of,
)

from tomebench.report.text import detail_table, display_table
from tomebench.runs import turns as end_to_end
from tomebench.runs.budget import BUDGETS, Budget
from tomebench.runs.records import packed, unpacked
from tomebench.runs.row import DEVICE_MEMORY, ENERGY
from tomebench.runs.rows import OUTPUT_EXCESS, REFERENCE_NAME, build_rows
from tomebench.runs.speed_columns import speed_columns
from tomebench.runs.store import Store
from tomebench.schema import CEILING, REFERENCE, SENTINEL, UNWRAPPED, Burst, Round


def test_ceiling_and_overhead_by_hand(store: Store) -> None:
    # Merging takes 0.8 s where slicing takes 0.64 s: a quarter more. Nothing was sliced for the third cell.
    for i in range(6):
        times = times_of(CELLS, 1.0, 0.8, 0.5) | {CEILING + KEYS[1]: 0.64}
        store.add_round(make_round(times, seed=i))
    base, mid, fast = build_rows(store)
    assert mid.speedup_ceiling == pytest.approx(1 / 0.64)
    assert (mid.merge_overhead, mid.merge_overhead_lo, mid.merge_overhead_hi) == pytest.approx((25.0, 25.0, 25.0))
    for row in (base, fast):
        assert row.speedup_ceiling is row.merge_overhead is row.merge_overhead_lo is None


def test_speed_ups_over_the_reference_by_hand(store: Store) -> None:
    """It is paired in the same rounds: a machine that is half as fast in one of them changes nothing."""
    for i in range(6):
        slow = 1 + (i == 3)
        times = times_of(CELLS, 1.0 * slow, 0.8 * slow, 0.5 * slow) | {REFERENCE: 2.0 * slow}
        store.add_round(make_round(times, seed=i))
    assert {row.speedup_vs_reference for row in build_rows(store)} == {None}  # nothing says that there is one
    store.put(REFERENCE_NAME, ["other@96", REFERENCE])
    rows = build_rows(store)
    assert [row.speedup_vs_reference for row in rows] == pytest.approx([2.0, 2.5, 4.0])
    assert [(row.speedup_vs_reference_lo, row.speedup_vs_reference_hi) for row in rows] == [
        pytest.approx((value, value)) for value in (2.0, 2.5, 4.0)
    ]
    assert {row.reference for row in rows} == {"other@96"}
    store.put(REFERENCE_NAME, ["own@32", KEYS[0]])
    for row in build_rows(store):
        assert (row.speedup_vs_reference, row.reference) == (row.speedup_vs_r0, "own@32")
        assert (row.speedup_vs_reference_lo, row.speedup_vs_reference_hi) == (
            row.speedup_vs_r0_lo,
            row.speedup_vs_r0_hi,
        )


def test_rounds_without_the_reference_have_no_speed_up_over_it(store: Store) -> None:
    store.put(REFERENCE_NAME, ["other@96", REFERENCE])
    add_rounds(store, 6, 1.0, 0.8, 0.5)
    assert {(row.speedup_vs_reference, row.reference) for row in build_rows(store)} == {(None, None)}
    store.add_round(make_round(times_of(CELLS, 1.0, 0.8, 0.5) | {REFERENCE: 2.0}, seed=7))
    found = build_rows(store)[2]
    assert (found.speedup_vs_reference, found.speedup_vs_reference_lo) == (pytest.approx(4.0), None)


def test_an_overhead_may_be_nothing_or_less(store: Store) -> None:
    for i in range(6):
        store.add_round(
            make_round(times_of(CELLS, 1.0, 0.5, 0.5) | {CEILING + KEYS[1]: 0.5, CEILING + KEYS[2]: 1.0}, i)
        )
    _, none, less = build_rows(store)
    assert none.merge_overhead == 0.0
    assert less.merge_overhead == pytest.approx(-50.0)


@pytest.mark.parametrize(
    ("variant", "invalid"),
    [(KEYS[1], [8]), (CEILING + KEYS[2], [16]), (KEYS[0], [0, 8, 16]), (UNWRAPPED, [0, 8, 16])],
)
def test_a_burst_with_the_compiler_in_it_leaves_no_speed(store: Store, variant: str, invalid: list[int]) -> None:
    names = [*KEYS, *(CEILING + key for key in KEYS[1:]), SENTINEL, UNWRAPPED]
    for i in range(8):
        bursts = tuple(Burst(name, 1, 0.5, int(i == 3 and name == variant)) for name in names)
        store.add_round(Round(1, i, bursts))
    for row in build_rows(store):
        speeds = (row.img_per_s, row.speedup_vs_r0, row.speedup_vs_unwrapped, row.merge_overhead)
        if row.r in invalid:
            assert row.status == "failed"
            assert "compiled inside a timed burst" in str(row.error)
            assert "RECOMPILED" in row.warnings
            assert set(speeds) == {None}
        else:
            assert row.status == "ok"
            assert "RECOMPILED" not in row.warnings
            assert None not in speeds[:3]


def test_speed_by_hand(store: Store) -> None:
    # Steps of 4 images in 1.0, 0.8 and 0.5 s; the unwrapped model takes 0.9 s. Nothing varies.
    add_rounds(store, 6, 1.0, 0.8, 0.5, unwrapped=0.9)
    base, mid, fast = build_rows(store)
    assert (base.speedup_vs_r0, base.speedup_vs_r0_lo, base.speedup_vs_r0_hi) == (1.0, 1.0, 1.0)
    assert base.speedup_vs_unwrapped == pytest.approx(0.9)
    assert base.efficiency == pytest.approx(0.9)
    assert mid.speedup_vs_r0 == pytest.approx(1.25)
    assert fast.speedup_vs_r0 == pytest.approx(2.0)
    assert (fast.speedup_vs_r0_lo, fast.speedup_vs_r0_hi) == pytest.approx((2.0, 2.0))
    assert fast.speedup_vs_unwrapped == pytest.approx(1.8)
    assert fast.mac_ratio == pytest.approx(1 / 0.68)
    assert fast.efficiency == pytest.approx(1.8 * 0.68)
    assert (fast.rounds, fast.step_ms, fast.img_per_s) == (6, 500.0, 8.0)
    assert fast.img_per_s_lo is fast.img_per_s_hi is None  # of six rounds nothing is known of how alike neighbours are
    assert fast.img_per_s_mean == pytest.approx(8.0)
    assert (fast.efficiency_lo, fast.efficiency_hi) == pytest.approx((fast.efficiency, fast.efficiency))
    assert {row.status for row in (base, mid, fast)} == {"ok"}


def test_speedups_are_paired_by_round(store: Store) -> None:
    # The machine halves its speed every other round: each ratio is still exactly 2, and only img/s is uncertain.
    for i in range(20):
        slow = 1 + i % 2
        store.add_round(make_round(times_of(CELLS, 1.0 * slow, 0.8 * slow, 0.5 * slow, unwrapped=1.0 * slow), seed=i))
    fast = build_rows(store)[2]
    assert (fast.speedup_vs_r0_lo, fast.speedup_vs_r0_hi) == pytest.approx((2.0, 2.0))
    assert fast.img_per_s == pytest.approx(4 / 0.75)
    assert fast.img_per_s_mean == pytest.approx(4 / 0.75)
    assert (fast.img_per_s_lo, fast.img_per_s_hi) == pytest.approx((4 / 0.75, 4 / 0.75))  # all batches are alike
    assert "NOISY" not in fast.warnings  # of which the speed-up knows nothing
    assert fast.status == "ok"


def test_under_six_rounds_no_interval(store: Store) -> None:
    add_rounds(store, 5, 1.0, 0.8, 0.5)
    base, _, fast = build_rows(store)
    assert fast.speedup_vs_r0 == pytest.approx(2.0)
    assert fast.speedup_vs_r0_lo is fast.speedup_vs_r0_hi is fast.img_per_s_lo is fast.speedup_vs_unwrapped_hi is None
    assert (base.status, base.error) == ("unconverged", "5 rounds timed; about 1 more needed")
    assert (fast.status, fast.error) == ("unconverged", "5 rounds timed; about 1 more needed")


def test_wide_intervals_are_unconverged(store: Store) -> None:
    # Ten ratios, half of them 2 and half 2 / 1.05: a half-width of sqrt(1.05) - 1 = 2.47 %, against 2 % asked.
    add_rounds(store, 10, 1.0, 0.8, 0.5, jitter=0.05)
    base, _, fast = build_rows(store, Budget("tight", 6, 0.02, 60))
    assert (base.status, base.error) == ("ok", None)
    more = math.ceil(10 * ((math.sqrt(1.05) - 1) / 0.02) ** 2) - 10
    assert fast.status == "unconverged"
    assert fast.error == f"known to ±2.5 % after 10 rounds; about {more} more needed"
    assert {row.status for row in build_rows(store, Budget("loose", 6, 0.03, 60))} == {"ok"}
    assert build_rows(store, BUDGETS["publish"])[0].error == "10 rounds timed; about 10 more needed"


def test_rounds_without_a_failed_cell_are_skipped_for_it(store: Store) -> None:
    add_rounds(store, 3, 1.0, 0.8, 0.5)
    store.set_status(KEYS[2], "oom", "out of memory at batch size 4")
    for i in range(3, 6):  # twice as slow: a join by position instead of by round would give the last cell 4x
        times = times_of(CELLS, 2.0, 1.6, 0.25, unwrapped=2.0)
        del times[KEYS[2]]
        store.add_round(make_round(times, seed=i))
    base, mid, failed = build_rows(store)
    assert (base.rounds, mid.rounds, failed.rounds) == (6, 6, 3)
    assert failed.speedup_vs_r0 == pytest.approx(2.0)
    assert mid.speedup_vs_r0 == pytest.approx(1.25)
    assert (failed.status, failed.error) == ("oom", "out of memory at batch size 4")
    assert (base.status, mid.status) == ("ok", "ok")


def test_biased_sentinel_marks_every_row(store: Store) -> None:
    for i in range(6):
        store.add_round(make_round({**times_of(CELLS, 1.0, 0.8, 0.5), SENTINEL: 1.03 + i / 1000}, seed=i))
    assert all("AA_FAILED" in row.warnings for row in build_rows(store))


def test_latency_is_of_single_passes_over_all_rounds(store: Store) -> None:
    # A hundred passes of 1 to 100 ms in two rounds, in no order; 60 even ones. img/s stays that of the median burst.
    for seed, passes in enumerate([range(100, 50, -1), range(1, 51)]):
        seconds = tuple(t / 1000 for t in passes)
        bursts = [Burst(KEYS[1], 50, sum(seconds), passes=seconds)]
        bursts += [Burst(name, 30, 0.3, passes=(0.01,) * 30) for name in (KEYS[0], KEYS[2], SENTINEL, UNWRAPPED)]
        store.add_round(Round(1, seed, tuple(bursts)))
    _, row, even = build_rows(store)
    assert (row.passes, row.latency_p50_ms, row.latency_p95_ms) == (100, pytest.approx(50.5), pytest.approx(95.05))
    assert row.latency_p50_ms_lo is row.latency_p50_ms_hi is None  # of two rounds
    assert row.latency_p99_ms is None  # which takes 662 passes
    assert (even.passes, even.latency_p50_ms, even.latency_p95_ms) == (60, None, None)
    assert row.img_per_s == pytest.approx(BATCH / 0.0505)


def test_of_several_processes_each_column_is_between_them_or_has_no_interval() -> None:
    """The ceiling was timed in the last one only; of its latencies each has quantiles of its own."""
    rounds = []
    for session, slower in ((1, 1.0), (2, 1.1), (3, 1.2)):
        for number in range(6):
            passes = (0.010 * slower,) * 15
            bursts = [Burst(name, 15, 0.15 * slower, passes=passes) for name in (KEYS[0], KEYS[1], UNWRAPPED)]
            bursts += [Burst(CEILING + KEYS[1], 15, 0.1)] * (session == 3)
            rounds.append(Round(session, number, tuple(bursts)))
    found = speed_columns(rounds, CELLS[1][0], KEYS[0], 1.3, between=True)
    assert (found["processes"], found["sessions"], found["passes"]) == (3, 3, 270)
    assert (found["speedup_vs_r0_lo"], found["speedup_vs_r0_hi"]) == pytest.approx((1.0, 1.0))
    assert found["merge_overhead"] == pytest.approx(80.0)
    assert found["merge_overhead_lo"] is found["merge_overhead_hi"] is found["speedup_ceiling_lo"] is None
    assert found["latency_p50_ms"] == pytest.approx(10 * (1.0 * 1.1 * 1.2) ** (1 / 3))
    assert found["latency_p50_ms_lo"] < 9 < 13 < found["latency_p50_ms_hi"]  # 90 passes of each are known far better
    fewer = [  # passes in the last of them
        dataclasses.replace(
            r, bursts=tuple(dataclasses.replace(b, passes=b.passes[: 15 - r.session]) for b in r.bursts)
        )
        for r in rounds
    ]
    assert "latency_p50_ms" in speed_columns(fewer, CELLS[1][0], KEYS[0], 1.3, between=True)
    fewer += [
        dataclasses.replace(r, session=4, bursts=tuple(dataclasses.replace(b, passes=b.passes[:10]) for b in r.bursts))
        for r in rounds[:6]
    ]
    assert "latency_p50_ms" not in speed_columns(fewer, CELLS[1][0], KEYS[0], 1.3, between=True)
    assert found["img_per_s_lo"] < found["img_per_s"] < found["img_per_s_hi"]
    single = speed_columns(rounds[:6], CELLS[1][0], KEYS[0], 1.3, between=True)
    assert (single["processes"], single["speedup_vs_r0_lo"]) == (1, pytest.approx(1.0))  # all that there is yet


def test_without_single_passes_there_is_no_latency(store: Store) -> None:
    add_rounds(store, 6, 1.0, 0.8, 0.5)
    assert {(row.latency_p50_ms, row.latency_p95_ms, row.j_per_img) for row in build_rows(store)} == {
        (None, None, None)
    }


def test_energy_and_what_is_taken_of_the_device_are_facts_of_a_cell(store: Store) -> None:
    store.put(ENERGY, {KEYS[0]: 1.25})
    store.put(DEVICE_MEMORY, {KEYS[1]: 3 * 2**20})
    rows = build_rows(store)
    assert [row.j_per_img for row in rows] == [1.25, None, None]
    assert [row.device_mem_mib for row in rows] == [None, 3.0, None]


def test_a_store_whose_bursts_have_an_energy_of_their_own_is_read() -> None:
    """Bursts were too short for the counter, and what they said of it is not used."""
    about = {"mhz": 1900, "joules": 2.5, "passes": [0.5, 0.5]}
    assert unpacked(["a", 2, 1.0, 0, about]) == Burst("a", 2, 1.0, mhz=1900, passes=(0.5, 0.5))


@pytest.mark.parametrize(
    "burst",
    [
        Burst("a", 2, 1.0),
        Burst("a", 2, 1.0, compiled=3),
        Burst("a", 2, 1.0, 0, 1900, (0.4, 0.6), 0.0, 0.5, 0.25, 2),
        Burst("a", 2, 1.0, slowed=0.0),
    ],
)
def test_a_burst_is_stored_as_it_was_taken(burst: Burst) -> None:
    assert unpacked(json.loads(json.dumps(packed(burst)))) == burst


def test_end_to_end_is_images_over_seconds_of_all_turns_but_the_first(store: Store) -> None:
    end_to_end.keep(store, {KEYS[1]: [(640, 99.0), (640, 4.0), (640, 4.0), (640, 5.0)], KEYS[2]: [(640, 2.0)]})
    _, row, first = build_rows(store)
    assert (row.img_per_s_end_to_end, first.img_per_s_end_to_end) == (pytest.approx(1920 / 13), 320.0)
    half = oracle.t.ppf(0.975, 2) * np.std(np.log([4, 4, 5]), ddof=1) / math.sqrt(3)
    ends = (row.img_per_s_end_to_end_lo, row.img_per_s_end_to_end_hi)
    assert ends == pytest.approx((1920 / 13 * math.exp(-half), 1920 / 13 * math.exp(half)))
    assert first.img_per_s_end_to_end_lo is None


@pytest.mark.parametrize("entry", [(640, 4.0, 2), (640, 4.0)])
def test_the_sum_of_an_older_store_is_read(store: Store, entry: tuple[float, ...]) -> None:
    store.put("end_to_end", {KEYS[1]: entry})
    row = build_rows(store)[1]
    assert (row.img_per_s_end_to_end, row.img_per_s_end_to_end_lo) == (160.0, None)


def test_an_output_that_differs_marks_its_row(store: Store) -> None:
    store.put(OUTPUT_EXCESS, {KEYS[0]: 0.0, KEYS[1]: 1.0, KEYS[2]: 1.1})
    assert [row.warnings for row in build_rows(store)] == [(), (), ("OUTPUT_MISMATCH",)]


def test_an_output_of_the_baseline_that_differs_marks_every_row(store: Store) -> None:
    store.put(OUTPUT_EXCESS, {KEYS[0]: 1.5})
    assert {row.warnings for row in build_rows(store)} == {("OUTPUT_MISMATCH",)}


def test_a_kernel_that_fell_back_marks_its_row(tmp_path: Path) -> None:
    with Store.open(tmp_path / "run", CONFIG) as store:
        kernels = {0: "sdpa-flash", 8: "sdpa-flash then sdpa-math+bias"}
        store.put_cells([(make_cell(r), make_resolved(r, attn_kernel=kernel)) for r, kernel in kernels.items()])
        assert [row.warnings for row in build_rows(store)] == [(), ("ATTN_FALLBACK",)]


def test_a_busy_machine_marks_every_row(store: Store) -> None:
    for seed in range(6):
        timed = make_round(times_of(CELLS, 1.0, 0.8, 0.5), seed)
        store.add_round(dataclasses.replace(timed, other_cpus=0.4, gpu_processes=2))
    assert {row.warnings for row in build_rows(store)} == {("CPU_BUSY", "GPU_SHARED")}


clocks = st.none() | st.sampled_from([0, 1, 500, 1200, 1700, 1980])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(
    mhz=st.lists(st.lists(st.lists(clocks, min_size=1, max_size=3), min_size=5, max_size=5), min_size=1, max_size=9),
    cost=st.floats(1e-4, 1e4),
)
def test_throttled_bursts_never_empty_a_table(
    tmp_path_factory: pytest.TempPathFactory, mhz: list[list[list[int | None]]], cost: float
) -> None:
    names = [*KEYS, SENTINEL, UNWRAPPED]
    with Store.open(tmp_path_factory.mktemp("throttled") / "run", CONFIG) as store:
        store.put_cells(CELLS)
        store.begin_session(TESTBED)
        for seed, clocks_of in enumerate(mhz):
            bursts = [
                Burst(name, 1, cost * 2000 / max(clock or 2000, 1), mhz=clock)
                for name, some in zip(names, clocks_of, strict=True)
                for clock in some
            ]
            store.add_round(Round(1, seed, tuple(bursts)))
        rows = build_rows(store)
    assert len(rows) == 3
    for row in rows:
        assert row.rounds == len(mhz)
        numbers = [v for v in dataclasses.asdict(row).values() if isinstance(v, float)]
        assert all(math.isfinite(number) for number in numbers)
        assert row.img_per_s is not None
        assert row.speedup_vs_r0 is not None
        assert row.status in ("ok", "unconverged")
    _, table = display_table(rows)
    assert [line[0] for line in table] == ["0", "8", "16"]
    assert not any("nan" in cell for line in table for cell in line)


def test_a_badly_throttled_cell_keeps_its_numbers_and_is_marked(store: Store) -> None:
    session = store.begin_session({**TESTBED, "gpu_max_mhz": 1980})
    for seed in range(6):
        speeds = {KEYS[0]: 1980, KEYS[1]: 1980, KEYS[2]: 1300, SENTINEL: 1980, UNWRAPPED: 1980}
        store.add_round(Round(session, seed, tuple(Burst(name, 1, 1.0, mhz=mhz) for name, mhz in speeds.items())))
    rows = build_rows(store)
    assert [row.warnings for row in rows] == [(), (), ("THROTTLED", "THROTTLED_BADLY")]
    assert rows[2].speedup_vs_r0 == 1.0
    assert [row.gpu_mhz for row in rows] == [1980, 1980, 1300]
    assert any("1300" in line for line in detail_table(rows)[1][2])
