"""What the protocol promises, on simulated machines: coverage, false alarms, power, bias. Seeded, no wall time."""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest
from evidence import run_codes
from simulated_machine import BASE, STANDARD, Machine, sequential, simulate, snapshot

from tomebench import stats
from tomebench.gate.compare import Limits, compare, confirmed
from tomebench.gate.compare_speed import ALL
from tomebench.gate.records import Snapshot
from tomebench.runs.budget import Budget
from tomebench.runs.codes import AA_FAILED
from tomebench.runs.rounds import paired_seconds
from tomebench.runs.validity import aa_failed
from tomebench.schema import Round

COSTS = {BASE: 0.1, "r8": 0.1 / 1.3, "r13": 0.1 / 1.6}
CELLS = list(COSTS)
RUNS, TRIES = 1000, 200
NOISY = {"lasting": 0.05, "white": 0.02}
QUICK = Budget("quick", 6, 0.02, 20.0)


@pytest.fixture(scope="module")
def runs() -> list[list[Round]]:
    """1 000 healthy runs at the standard budget."""
    return [simulate(Machine(seed), COSTS) for seed in range(RUNS)]


@pytest.fixture(scope="module")
def snapshots(runs: list[list[Round]]) -> list[Snapshot]:
    return [snapshot(rounds, CELLS) for rounds in runs]


@functools.cache
def noisy(budget: Budget) -> list[Snapshot]:
    """200 healthy runs on a noisy machine."""
    return [snapshot(simulate(Machine(20_000 + seed, **NOISY), COSTS, budget), CELLS) for seed in range(TRIES)]


def verdict(old: Snapshot, new: Snapshot, cell: str = "r=8") -> str:
    (found,) = (f.verdict for f in compare(old, new, ["speed"], Limits()) if f.cell == cell)
    return found


@pytest.mark.parametrize(("cell", "truth"), [("r8", 1.3), ("r13", 1.6)])
def test_intervals_cover_the_truth(runs: list[list[Round]], cell: str, truth: float) -> None:
    covered = 0
    for rounds in runs:
        interval = stats.speedup(*paired_seconds(rounds, BASE, cell)).interval
        covered += interval is not None and truth in interval
    assert 0.93 <= covered / RUNS <= 0.97, covered / RUNS


def test_two_runs_of_the_same_thing_hardly_ever_fail(snapshots: list[Snapshot]) -> None:
    pairs = list(zip(snapshots[::2], snapshots[1::2], strict=True))
    assert len(pairs) == 500
    failed = sum(any(f.verdict == "worse" for f in compare(a, b, ["speed"], Limits())) for a, b in pairs)
    assert failed / len(pairs) <= 0.01
    passed = sum(all(f.verdict in ("same", "better") for f in compare(a, b, ["speed"], Limits())) for a, b in pairs)
    assert passed / len(pairs) >= 0.9  # and they are not all inconclusive either


def test_a_slow_down_of_15_percent_is_found_also_when_it_is_to_be_confirmed(snapshots: list[Snapshot]) -> None:
    slower = {**COSTS, "r8": COSTS["r8"] * 1.15}
    found, both = 0, 0
    for seed in range(TRIES):
        first, again = (snapshot(simulate(Machine(10_000 + 2 * seed + i), slower), CELLS) for i in range(2))
        findings = compare(snapshots[seed], first, ["speed"], Limits())
        found += any(f.verdict == "worse" and f.cell == "r=8" for f in findings)
        after = confirmed(findings, compare(snapshots[seed], again, ["speed"], Limits()))
        both += any(f.verdict == "worse" and f.cell == "r=8" for f in after)
        assert not any(f.verdict == "worse" and f.cell not in ("r=8", ALL) for f in after)
    assert found / TRIES >= 0.95
    assert both / TRIES >= 0.95


@pytest.mark.parametrize(
    ("machine", "budget"),
    [({}, STANDARD), pytest.param(NOISY, STANDARD, marks=pytest.mark.slow), (NOISY, QUICK)],
    ids=["quiet", "noisy", "noisy quick"],
)
def test_at_the_tolerance_itself_either_answer_is_rarely_given(
    machine: dict[str, float], budget: Budget, snapshots: list[Snapshot]
) -> None:
    """A slow-down of exactly the tolerance is neither surely more nor surely less; each answer has its 2.5 %."""
    edge = {**COSTS, "r8": COSTS["r8"] * 1.05, "r13": COSTS["r13"] * 1.05}
    before = noisy(budget) if machine else snapshots
    found = []
    for seed in range(TRIES):
        new = snapshot(simulate(Machine(30_000 + seed, **machine), edge, budget), CELLS)
        found.append(verdict(before[seed], new))
    assert found.count("worse") / TRIES <= 0.05, found.count("worse")
    assert found.count("same") / TRIES <= 0.05, found.count("same")


def test_on_a_noisy_machine_the_same_thing_hardly_ever_fails_and_a_fifth_slower_does() -> None:
    """Each run is the earlier one of one pair and the later one of another."""
    slower = {**COSTS, "r8": COSTS["r8"] * 1.2, "r13": COSTS["r13"] * 1.2}
    runs, failed, missed = noisy(QUICK), 0, 0
    for seed, (old, new) in enumerate(zip(runs, [*runs[1:], runs[0]], strict=True)):
        slow = snapshot(simulate(Machine(40_000 + seed, **NOISY), slower, QUICK), CELLS)
        failed += "worse" in (f.verdict for f in compare(old, new, ["speed"], Limits()))
        missed += "worse" not in (f.verdict for f in compare(old, slow, ["speed"], Limits()))
    assert failed / TRIES <= 0.01
    assert missed / TRIES <= 0.05


def test_a_gain_is_said_and_a_small_change_is_none(snapshots: list[Snapshot]) -> None:
    faster = snapshot(simulate(Machine(1), {**COSTS, "r8": COSTS["r8"] / 1.2}), CELLS)
    slightly = snapshot(simulate(Machine(2), {**COSTS, "r8": COSTS["r8"] * 1.01}), CELLS)
    assert verdict(snapshots[0], faster) == "better"
    assert verdict(snapshots[0], slightly) == "same"


def test_random_order_keeps_a_thermal_drift_out_of_the_ratios_and_sequential_order_does_not() -> None:
    heated = {"lasting": 0.0, "white": 0.005, "heating": 0.15}
    budget, rounds = Budget("fixed", 20, 10.0, 1e9), 20
    seconds = rounds * (2 + sum(COSTS.values()) / COSTS[BASE]) * 0.1
    biases, others = [], []
    for seed in range(200):
        timed = simulate(Machine(seed, **heated, seconds=seconds), COSTS, budget, max_rounds=rounds)
        biases.append(math.log(stats.speedup(*paired_seconds(timed, BASE, "r13")).value / 1.6))
        total = rounds * sum(COSTS.values())
        medians = sequential(Machine(seed, **heated, seconds=total), COSTS, rounds)
        others.append(math.log(medians[BASE] / medians["r13"] / 1.6))
    assert abs(float(np.mean(biases))) < 0.003
    assert abs(float(np.mean(others))) > 0.02


@pytest.mark.parametrize("bias", [1.06, 0.94])
def test_a_biased_sentinel_fails_the_run(bias: float) -> None:
    failed = [AA_FAILED in run_codes(simulate(Machine(seed), COSTS, bias=bias), BASE) for seed in range(100)]
    assert sum(failed) >= 95


def test_a_healthy_run_is_hardly_ever_thrown_away(runs: list[list[Round]]) -> None:
    assert sum(aa_failed(rounds, BASE) for rounds in runs) / RUNS <= 0.01


def test_the_budget_is_what_it_says(runs: list[list[Round]]) -> None:
    widths = [stats.speedup(*paired_seconds(rounds, BASE, "r8")).half_width for rounds in runs[:200]]
    assert all(width is not None and width <= STANDARD.half_width for width in widths)
    assert min(map(len, runs)) >= STANDARD.min_rounds
