"""Codes that make a row doubtful, on seeded synthetic rounds."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from evidence import row_codes, run_codes

from tomebench.runs import validity
from tomebench.runs.validity import (
    aa_failed,
    cpu_busy,
    drift,
    noisy,
    sessions_apart,
    slow_first,
)
from tomebench.schema import SENTINEL, Burst, Round


def _rounds(n: int, seed: int, bias: float = 0.0, noise: float = 0.01) -> list[Round]:
    """n rounds of r0 and its sentinel; the sentinel slower by ``bias``, both with independent log-normal noise."""
    generator = np.random.default_rng(seed)
    times = 0.1 * np.exp(generator.normal([0, bias], noise, (n, 2)))
    return [Round(0, k, (Burst("r0", 4, 4 * a), Burst(SENTINEL, 4, 4 * b))) for k, (a, b) in enumerate(times)]


def _series(times: Sequence[float], sessions: Sequence[int] | None = None) -> list[Round]:
    """A round for each time of r0."""
    numbers = sessions or [0] * len(times)
    return [Round(s, k, (Burst("r0", 2, 2 * float(t)),)) for k, (s, t) in enumerate(zip(numbers, times, strict=True))]


@pytest.mark.parametrize("bias", [0.08, -0.08])
@pytest.mark.parametrize("n", [6, 9, 10, 20])
def test_a_biased_sentinel_fails(n: int, bias: float) -> None:
    assert aa_failed(_rounds(n, seed=n, bias=bias), "r0")


@pytest.mark.parametrize("n", [6, 12, 40])
def test_an_unbiased_sentinel_hardly_ever_fails(n: int) -> None:
    assert sum(aa_failed(_rounds(n, seed), "r0") for seed in range(500)) / 500 <= 0.03


def test_a_bias_that_does_not_matter_is_none() -> None:
    assert not aa_failed(_rounds(2000, seed=0, bias=0.015), "r0")  # surely there, and what memory alone can do
    assert aa_failed(_rounds(2000, seed=0, bias=0.025), "r0")


def _processes(count: int, seed: int, bias: float = 0.0, apart: float = 0.04) -> list[Round]:
    """Six rounds in each of some processes, in which the two bursts of r = 0 are apart by what is fixed in it."""
    draw, rounds = np.random.default_rng(seed), []
    for session in range(count):
        own = _rounds(6, seed=1000 * seed + session, bias=bias + float(draw.normal(0, apart)))
        rounds += [dataclasses.replace(round_, session=session) for round_ in own]
    return rounds


def test_what_is_fixed_in_a_process_is_no_bias_of_the_harness_where_several_tell_it() -> None:
    """Pooled, five processes that differ by 4 % are taken for one that is off by 2 %, and that far too often."""
    assert sum(aa_failed(_processes(5, seed), "r0", between=True) for seed in range(500)) / 500 <= 0.01
    assert sum(aa_failed(_processes(5, seed), "r0") for seed in range(500)) / 500 > 0.02
    found = sum(aa_failed(_processes(5, seed, bias=0.1, apart=0.01), "r0", between=True) for seed in range(100))
    assert found >= 95


@pytest.mark.parametrize("count", [2, 3])
def test_two_or_three_processes_that_all_show_a_bias_fail(count: int) -> None:
    """Of which Student's interval at 99 % is so wide that it says nothing."""
    assert all(aa_failed(_processes(count, seed, bias=0.09, apart=0.002), "r0", between=True) for seed in range(20))
    for apart in (0.005, 0.014, 0.042):  # of the two of a process that differ by up to 3 % each
        assert sum(aa_failed(_processes(count, seed, apart=apart), "r0", between=True) for seed in range(300)) <= 9
    opposite = _processes(1, 0, bias=0.09, apart=0.0) + [
        dataclasses.replace(round_, session=1) for round_ in _processes(1, 0, bias=-0.09, apart=0.0)
    ]
    assert not aa_failed(opposite, "r0", between=True)


def test_a_process_that_is_slow_from_first_to_last_had_no_cold_start() -> None:
    draw = np.random.default_rng(0)
    times = [level * math.exp(draw.normal(0, 0.002)) for level in (1.0, 1.1, 1.0) for _ in range(6)]
    assert not slow_first(_series(times, [n for n in range(3) for _ in range(6)]), "r0")
    times[6] *= 1.3
    assert slow_first(_series(times, [n for n in range(3) for _ in range(6)]), "r0")


def test_too_few_rounds_say_nothing() -> None:
    assert not aa_failed(_rounds(5, seed=0, bias=1.0), "r0")
    assert not aa_failed([], "r0")
    assert not aa_failed([Round(0, 0, (Burst("r0", 1, 1.0),))] * 10, "r0")  # no sentinel


def test_identical_times_are_not_a_bias() -> None:
    assert not aa_failed(_rounds(10, seed=0, noise=0.0), "r0")


def _beside(values: Sequence[float], machine: Sequence[float]) -> list[Round]:
    """Rounds of r8 at these times beside r0 at one second, on a machine that is so much slower in each round."""
    return [
        Round(0, 0, (Burst("r0", 1, slower), Burst("r8", 1, value * slower)))
        for value, slower in zip(values, machine, strict=True)
    ]


def test_noisy_is_how_much_a_speed_up_scatters_from_round_to_round() -> None:
    even, wild = [1.0] * 5, [1.0, 3.0, 1.0, 2.0, 5.0]
    for machine in (even, wild):  # which is no matter: both are slowed alike
        assert not noisy(_beside([0.93, 0.93, 1.0, 1.07, 1.07], machine), "r8", "r0")
        assert noisy(_beside([0.92, 0.92, 1.0, 1.08, 1.08], machine), "r8", "r0")
    assert not noisy(_beside([1.0, 1.0, 1.0, 1.0, 99.0], even), "r8", "r0")  # one outlier is not noise
    assert not noisy(_series([1.0]), "other", "r0")


@pytest.mark.parametrize(
    ("trend", "codes"), [(0.0, []), (0.015, []), (0.03, ["DRIFT"]), (-0.03, ["DRIFT"]), (0.15, ["DRIFT", "NOT_STEADY"])]
)
@pytest.mark.parametrize("n", [20, 1000])
def test_a_trend_is_drift_and_a_large_one_no_steady_state(n: int, trend: float, codes: list[str]) -> None:
    noise = np.random.default_rng(n).normal(0, 0.003, n)
    rounds = _series(np.exp(np.linspace(0, math.log1p(trend), n) + noise))
    assert run_codes(rounds, "r0") == codes
    assert drift(rounds, "r0") == pytest.approx(trend if codes else 0.0, abs=0.016)


@pytest.mark.parametrize("n", [6, 10, 40])
def test_a_step_in_the_middle_is_drift(n: int) -> None:
    found = []
    for seed in range(100):
        logs = np.random.default_rng(seed).normal(0, 0.015, n)
        logs[n // 2 :] += math.log(1.15)
        found.append(run_codes(_series(np.exp(logs)), "r0"))
    assert sum("DRIFT" in codes for codes in found) >= 95
    assert sum("NOT_STEADY" in codes for codes in found) >= 90


def test_drift_is_within_a_session() -> None:
    even, climbing = [1.0, 1.001] * 5, [1 + k / 50 for k in range(10)]
    assert drift(_series([*even, *[1.3 * t for t in even]], [1] * 10 + [2] * 10), "r0") == 0.0
    assert drift(_series([*climbing, *even], [1] * 10 + [2] * 10), "r0") == pytest.approx(0.18, abs=0.02)


def test_a_drift_that_every_process_shows_is_seen_though_each_is_short() -> None:
    heating = [1.0, 1.05, 1.1, 1.15, 1.2, 1.25]
    assert drift(_series(heating * 5, [s for s in range(5) for _ in range(6)]), "r0") == pytest.approx(0.25, abs=0.01)
    assert "NOT_STEADY" in run_codes(_series(heating * 2, [s for s in range(2) for _ in range(6)]), "r0", between=True)
    up_and_down = [*heating, *heating[::-1]]
    assert drift(_series(up_and_down, [s for s in range(2) for _ in range(6)]), "r0") == 0.0


def test_rows_that_were_never_timed_together_are_apart() -> None:
    def rounds(*sessions: tuple[int, tuple[str, ...]]) -> list[Round]:
        return [Round(s, k, tuple(Burst(name, 1, 1.0) for name in names)) for k, (s, names) in enumerate(sessions)]

    cells = {"r0", "r4", "r8"}
    assert not sessions_apart(rounds((1, ("r0", "r4")), (2, ("r0", "r4", "r8"))), cells)
    assert sessions_apart(rounds((1, ("r0", "r4")), (2, ("r0", "r8"))), cells)
    assert not sessions_apart(rounds((1, ("r0", "r4")), (2, ("r0", "other"))), cells)


def test_spikes_are_neither_drift_nor_a_slow_first_round() -> None:
    drifting = slow = 0
    for seed in range(200):
        draw = np.random.default_rng(seed)
        times = np.exp(draw.normal(0, 0.01, (20, 4))) * np.where(draw.random((20, 4)) < 0.05, 2.0, 1.0)
        rounds = [
            Round(
                0, k, tuple(Burst(name, 1, float(t)) for name, t in zip(("r0", "r4", "r8", SENTINEL), row, strict=True))
            )
            for k, row in enumerate(times)
        ]
        drifting += "DRIFT" in run_codes(rounds, "r0")
        slow += slow_first(rounds, "r0")
    assert drifting <= 6
    assert slow <= 1


def test_noise_without_a_trend_is_no_drift() -> None:
    found = [run_codes(_series(np.exp(np.random.default_rng(s).normal(0, 0.05, 20))), "r0") for s in range(200)]
    assert sum("DRIFT" in codes for codes in found) <= 6  # p < 0.01


def test_too_few_rounds_have_no_trend_and_no_baseline_no_codes() -> None:
    assert drift(_series([1.0, 1.1, 1.2, 1.3, 1.4]), "r0") == 0.0
    assert run_codes(_rounds(20, 0, bias=0.5), None) == []
    assert run_codes([], "r0") == []


def test_the_first_round_of_a_session_may_be_slow() -> None:
    even = [1.0, 1.001, 0.999, 1.002, 0.998, 1.0]
    assert slow_first(_series([1.3, *even]), "r0")
    assert not slow_first(_series([0.7, *even]), "r0")  # fast is no sign of a warm-up that was too short
    assert not slow_first(_series([1.015, *even]), "r0")  # an outlier among even ones, and nothing to speak of
    assert not slow_first(_series([1.3, 1.0, 1.2, 0.8, 1.4, 0.9]), "r0")  # no outlier
    assert slow_first(_series([1.0, *even, 1.3, *even], [1] * 7 + [2] * 7), "r0")  # the second session began cold
    assert not slow_first(_series([1.0, 1.3, *even]), "r0")
    assert not slow_first(_series([9.0, 1.0, 1.0]), "r0")  # too few to tell


@pytest.mark.parametrize(
    ("shares", "busy"), [([0.05] * 9, False), ([0.5] * 9, True), ([0.5, None, 0.02, 0.02], False), ([None], False)]
)
def test_others_on_the_cpu(shares: list[float | None], busy: bool) -> None:
    rounds = [dataclasses.replace(r, other_cpus=s) for r, s in zip(_series([1.0] * len(shares)), shares, strict=True)]
    assert cpu_busy(rounds) is busy
    assert ("CPU_BUSY" in run_codes(rounds, "r0")) is busy


@pytest.mark.parametrize(("processes", "shared"), [(None, False), (0, False), (1, True)])
def test_others_on_the_gpu(processes: int | None, shared: bool) -> None:
    rounds = [*_series([1.0] * 3), Round(0, 3, (Burst("r0", 1, 1.0),), gpu_processes=processes)]
    assert ("GPU_SHARED" in run_codes(rounds, "r0")) is shared


BADLY = ["THROTTLED", "THROTTLED_BADLY"]


@pytest.mark.parametrize(
    ("seen", "codes"),
    [
        ({}, []),
        ({"mhz": 1900}, []),
        ({"mhz": 1650}, ["THROTTLED"]),  # of no known reason, against the highest clock of the GPU
        ({"mhz": 1400}, BADLY),
        ({"mhz": 1400, "slowed": 0.0}, []),  # so its owner set it
        ({"mhz": 1400, "slowed": 0.05, "capped": 0.9}, ["POWER_CAPPED"]),
        ({"mhz": 1850, "slowed": 0.2, "capped": 0.4}, ["THROTTLED"]),
        ({"mhz": 1400, "slowed": 0.2, "capped": 0.9}, [*BADLY, "POWER_CAPPED"]),
        ({"slowed": 0.2}, ["THROTTLED"]),
        ({"backlog": 0.05}, ["HOST_BOUND"]),
        ({"backlog": 0.2}, []),
        ({"allocated": 1}, ["ALLOCATED"]),
    ],
)
def test_what_the_gpu_did_marks_a_row(seen: dict[str, Any], codes: list[str]) -> None:
    """All of them alike, throttled from the start: the sweep's own clock is no yardstick."""
    rounds = [Round(0, k, (Burst("r0", 2, 2.0, **seen), Burst("x", 1, 1.0, mhz=1900))) for k in range(6)]
    assert row_codes(rounds, "r0", (), 1980) == codes
    assert row_codes(rounds, "x", (), 1980) == []
    assert row_codes(rounds, "x", ("r0",), 1980) == [code for code in codes if code.startswith("THROTTLED")]


def test_where_the_highest_clock_is_not_known_a_low_one_says_nothing() -> None:
    rounds = [Round(0, k, (Burst("r0", 1, 1.0, mhz=300),)) for k in range(6)]
    assert row_codes(rounds, "r0", (), None) == []


def test_a_gpu_of_which_nothing_is_known_is_said() -> None:
    assert "UNWATCHED" in run_codes(_series([1.0] * 3), None, on_gpu=True)
    assert "UNWATCHED" not in run_codes(_series([1.0] * 3), None)
    assert "UNWATCHED" not in run_codes([], None, on_gpu=True)
    seen = [Round(0, 0, (Burst("r0", 1, 1.0, mhz=1900),))]
    assert "UNWATCHED" not in run_codes(seen, None, on_gpu=True)


def test_a_ratio_is_as_throttled_as_either_half() -> None:
    rounds = [
        Round(0, k, (Burst("r0", 1, 1.0, mhz=1300), *(Burst(n, 1, 1.0, mhz=1900) for n in "abc"))) for k in range(6)
    ]
    assert row_codes(rounds, "a", (), 1980) == []
    assert row_codes(rounds, "a", ("r0", "b"), 1980) == BADLY


def test_one_throttled_round_does_not_make_a_row_throttled() -> None:
    rounds = [Round(0, k, (Burst("r8", 1, 1.0, mhz=1200 if k == 3 else 1900),)) for k in range(6)]
    assert row_codes(rounds, "r8", (), 1980) == []


def test_a_graph_compiled_in_what_a_row_is_made_of_counts() -> None:
    rounds = [Round(0, 0, (Burst("r0", 1, 1.0, compiled=1), Burst("r8", 1, 1.0)))]
    assert row_codes(rounds, "r8", (), None) == []
    assert row_codes(rounds, "r8", ("r0",), None) == ["RECOMPILED"]


@pytest.mark.parametrize(
    ("asked", "kernel", "fallback"),
    [
        ("auto", "sdpa-flash then sdpa-flash+bias", False),
        ("auto", "sdpa-flash then sdpa-math+bias", True),
        ("sdpa", "sdpa-math", True),
        ("padded", "padded sdpa-math", True),
        ("matmul", "matmul", False),
    ],
)
def test_the_unfused_kernel_is_a_fallback_unless_asked_for(asked: str, kernel: str, fallback: bool) -> None:
    assert validity.attn_fallback(asked, kernel) is fallback
