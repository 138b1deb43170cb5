"""Bursts, warm-up, rounds and budgets, with a fake clock: exact numbers, no waiting."""

from __future__ import annotations

import itertools
import math
import random
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from fake_clock import BrokenClock, FakeClock
from hypothesis import given
from hypothesis import strategies as st

from tomebench import stats
from tomebench.errors import DeviceError, Interrupted
from tomebench.measure import speed
from tomebench.measure.speed import Variant, WarmUp
from tomebench.runs import budget as budgets
from tomebench.runs import rounds as reading
from tomebench.runs.budget import BUDGETS, Budget, Shortfall
from tomebench.schema import SENTINEL, UNWRAPPED, Burst, Round


def rounds_of(**times: list[float]) -> list[Round]:
    """Rounds from seconds per step, by variant."""
    return [
        Round(0, k, tuple(Burst(name, 1, t) for name, t in zip(times, column, strict=True)))
        for k, column in enumerate(zip(*times.values(), strict=True))
    ]


def test_fake_clock_passes_no_time_by_itself() -> None:
    clock = FakeClock()
    assert clock.burst(clock.step(0.5), 3) == 1.5
    assert clock.burst(lambda: None, 3) == 0.0
    assert clock.now() == 1.5


def test_speed_knows_no_tensors() -> None:
    code = "import sys, tomebench.runs.validity; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# calibrate


def test_calibrate_exactly() -> None:
    clock = FakeClock()
    step = clock.step(1 / 64)
    assert speed.calibrate(clock, step, 1 / 8) == 9  # ceil(1.1 * 8)
    assert clock.steps_of(step) == [1, 9]


def test_calibrate_runs_a_slow_step_once() -> None:
    clock = FakeClock()
    step = clock.step(0.5)
    assert speed.calibrate(clock, step, 0.125) == 1
    assert clock.steps_of(step) == [1]


@given(st.floats(1e-5, 2.0), st.floats(0.01, 1.0))
def test_calibrated_bursts_last_long_enough_and_not_much_longer(cost: float, least: float) -> None:
    clock = FakeClock()
    steps = speed.calibrate(clock, clock.step(cost), least)
    assert steps * cost >= least * (1 - 1e-9)
    assert steps * cost <= 1.1 * least * (1 + 1e-9) + cost


@pytest.mark.parametrize("reading", [0.0, -0.5, math.nan, math.inf])
def test_a_clock_that_cannot_be_right_is_an_error(reading: float) -> None:
    clock = BrokenClock(reading)
    variants = [Variant("a", clock.step(1.0))]
    message = f"1 step took {reading} s"
    with pytest.raises(DeviceError, match=message):
        speed.calibrate(clock, variants[0].step, 0.1)
    with pytest.raises(DeviceError, match=message):
        warmed_up(variants, "a", clock)
    with pytest.raises(DeviceError, match=message):
        speed.time_round(variants, {"a": 1}, clock, session=0, seed=0)


def test_a_clock_that_stands_still_is_an_error() -> None:
    clock = BrokenClock(0.05)
    with pytest.raises(DeviceError, match=r"1000000 steps took 0\.05 s: the clock stands still"):
        speed.calibrate(clock, clock.step(1.0), 0.1)


# warm_up


def warmed_up(*arguments: Any, **options: Any) -> WarmUp:
    """What a warm-up ends with, its progress left out."""
    steps = speed.warm_up(*arguments, **options)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def test_a_warm_up_counts_its_steps() -> None:
    clock = FakeClock()
    variants = [Variant(name, clock.step(0.5)) for name in ("r0", "r8")]
    assert list(speed.warm_up(variants, "r0", clock)) == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_warm_up_exactly() -> None:
    clock = FakeClock()
    base, fast, slow = clock.step(1 / 64), clock.step(1 / 128), clock.step(0.5)
    variants = [Variant("r0", base), Variant("fast", fast), Variant(UNWRAPPED, slow), Variant(SENTINEL, base)]
    warm = warmed_up(variants, "r0", clock)
    assert warm.steps == {"r0": 9, "fast": 18, UNWRAPPED: 1, SENTINEL: 9}
    assert (warm.settled, warm.windows) == (True, 2)
    assert clock.steps_of(fast) == [1, 1, 10, 18, 18]  # cold, three to calibrate, one more
    assert clock.steps_of(slow) == [1, 1, 1]  # half a second each: no more than three
    assert clock.steps_of(base) == [1, 1, 9, 9] * 2 + [9] * 2 * speed.WINDOW  # the sentinel is warmed up, too
    assert warm.seconds == clock.now()


def test_a_slow_first_pass_does_not_shorten_the_bursts() -> None:
    clock = FakeClock()
    costs = itertools.chain([8.0], itertools.repeat(1 / 64))
    assert warmed_up([Variant("r0", clock.step(lambda: next(costs)))], "r0", clock).steps == {"r0": 9}


def test_a_slow_second_pass_does_not_either() -> None:
    clock = FakeClock()
    costs = itertools.chain([8.0, 8.0], itertools.repeat(1 / 64))
    assert warmed_up([Variant("r0", clock.step(lambda: next(costs)))], "r0", clock).steps == {"r0": 9}


def test_warm_up_waits_until_the_baseline_is_steady() -> None:
    clock = FakeClock()
    # The first bursts and two windows get slower by 10 % each time, then it stays.
    costs = itertools.chain((0.5 * 1.1**k for k in range(3 + 2 * speed.WINDOW)), itertools.repeat(2.0))
    warm = warmed_up([Variant("r0", clock.step(lambda: next(costs)))], "r0", clock)
    assert (warm.settled, warm.windows) == (True, 4)


def test_warm_up_gives_up_on_a_baseline_that_never_settles() -> None:
    clock = FakeClock()
    costs = (0.25 * 1.02**k for k in itertools.count())
    warm = warmed_up([Variant("r0", clock.step(lambda: next(costs)))], "r0", clock)
    assert (warm.settled, warm.windows) == (False, speed.MAX_WINDOWS)


def test_warm_up_of_a_huge_model_is_bounded_in_time() -> None:
    clock = FakeClock()
    costs = (20 * 1.05**k for k in itertools.count())
    warm = warmed_up([Variant("r0", clock.step(lambda: next(costs)))], "r0", clock)
    assert (warm.settled, warm.windows) == (False, 2)


def test_warm_up_needs_its_baseline() -> None:
    clock = FakeClock()
    with pytest.raises(KeyError):
        warmed_up([Variant("r1", clock.step(1.0))], "r0", clock)
    assert clock.bursts == []


# time_round


def test_a_round_has_every_variant_once_in_the_order_of_its_seed() -> None:
    clock = FakeClock()
    names = ["r0", "r4", "r8", "r16", UNWRAPPED, SENTINEL]
    variants = [Variant(name, clock.step(2.0 ** -(k + 3))) for k, name in enumerate(names)]
    steps = {name: k + 1 for k, name in enumerate(names)}
    timed = speed.time_round(variants, steps, clock, session=2, seed=7)
    assert (timed.session, timed.seed) == (2, 7)
    # A stored seed must mean the same order tomorrow.
    assert [burst.variant for burst in timed.bursts] == ["unwrapped", "r0", "sentinel", "r16", "r4", "r8"]
    for burst in timed.bursts:
        k = names.index(burst.variant)
        assert (burst.steps, burst.seconds, burst.step_seconds) == (k + 1, (k + 1) * 2.0 ** -(k + 3), 2.0 ** -(k + 3))
    assert speed.time_round(variants, steps, clock, session=2, seed=7) == timed


def test_every_variant_comes_at_every_place_equally_often() -> None:
    clock = FakeClock()
    variants = [Variant(str(k), clock.step(1.0)) for k in range(4)]
    firsts = [
        speed.time_round(variants, dict.fromkeys("0123", 1), clock, session=0, seed=seed).bursts[0].variant
        for seed in range(400)
    ]
    assert all(70 <= firsts.count(name) <= 130 for name in "0123")


def test_a_stop_is_seen_between_two_bursts() -> None:
    clock = FakeClock()
    variants = [Variant(str(k), clock.step(1.0)) for k in range(4)]
    with pytest.raises(Interrupted, match="run the same command again"):
        speed.time_round(
            variants, dict.fromkeys("0123", 1), clock, session=0, seed=0, should_stop=lambda: clock.now() >= 2
        )
    assert len(clock.bursts) == 2
    for stop_at in (0, 1, 2, 6, 20):
        clock = FakeClock()
        variants = [Variant(str(k), clock.step(1.0)) for k in range(4)]
        with pytest.raises(Interrupted):
            warmed_up(variants, "0", clock, should_stop=lambda clock=clock, at=stop_at: clock.now() >= at)
        assert clock.now() <= stop_at + 1


def test_a_machine_that_heats_up_does_not_bend_the_ratios() -> None:
    """A 15 % ramp over the run: random order is unbiased, one r after the other is not."""

    def run(order_of: str) -> float:
        clock = FakeClock()
        costs = {str(r): 0.25 * (1 - 0.02 * r) for r in range(25)}
        total = 20 * sum(costs.values())
        variants = [
            Variant(name, clock.step(lambda cost=cost: cost * (1 + 0.15 * min(1.0, clock.time / total))))
            for name, cost in costs.items()
        ]
        if order_of == "random":
            rounds = [
                speed.time_round(variants, dict.fromkeys(costs, 1), clock, session=0, seed=seed) for seed in range(20)
            ]
        else:
            times = {v.name: [clock.burst(v.step, 1) for _ in range(20)] for v in variants}
            rounds = rounds_of(**times)
        return stats.speedup(*reading.paired_seconds(rounds, "0", "16")).value / (costs["0"] / costs["16"]) - 1

    assert abs(run("random")) < 0.003
    assert run("sequential") < -0.05


# budgets


def test_pairs_come_from_rounds_that_have_both() -> None:
    rounds = [*rounds_of(a=[1.0, 2.0], b=[3.0, 4.0]), *rounds_of(a=[5.0])]
    assert reading.paired_seconds(rounds, "a", "b") == ([1.0, 2.0], [3.0, 4.0])
    assert reading.step_seconds(rounds, "a") == [1.0, 2.0, 5.0]
    assert reading.step_seconds(rounds, "c") == []


def test_the_budgets() -> None:
    assert [(b.name, b.min_rounds, b.half_width) for b in BUDGETS.values()] == [
        ("none", 0, math.inf),
        ("quick", 6, 0.03),
        ("standard", 10, 0.01),
        ("publish", 20, 0.005),
    ]
    assert list(BUDGETS) == [b.name for b in BUDGETS.values()]


def test_variants_beside_each_other_stay_together_in_random_order() -> None:
    clock = FakeClock()
    pairs = [("a", ""), ("b", ""), ("ceiling:b", "b"), ("c", ""), ("ceiling:c", "c"), (SENTINEL, "")]
    variants = [Variant(name, clock.step(0.125), beside) for name, beside in pairs]
    orders = set()
    for seed in range(60):
        done = speed.time_round(variants, dict.fromkeys(dict(pairs), 1), clock, session=0, seed=seed)
        order = [burst.variant for burst in done.bursts]
        assert sorted(order) == sorted(dict(pairs))
        for name in "bc":
            assert abs(order.index(name) - order.index(f"ceiling:{name}")) == 1
        orders.add(tuple(order))
    assert len(orders) > 30
    firsts = [order.index("b") < order.index("ceiling:b") for order in orders]
    assert {True, False} == set(firsts)


def test_what_compiles_inside_a_burst_is_kept_with_it() -> None:
    clock, compiled = FakeClock(), 0

    def compiles() -> None:
        nonlocal compiled
        compiled += 1
        clock.time += 0.125

    variants = [Variant("quiet", clock.step(0.125)), Variant("loud", compiles)]
    done = speed.time_round(variants, {"quiet": 3, "loud": 2}, clock, session=0, seed=0, compilations=lambda: compiled)
    assert {burst.variant: burst.compiled for burst in done.bursts} == {"quiet": 0, "loud": 2}


def test_shortfall_names_what_is_missing() -> None:
    budget = Budget("test", 6, 0.02, 100)
    steady, wide = [1.0] * 8, [0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.45, 0.55]
    few = rounds_of(r0=steady[:4], r8=wide[:4])
    assert budgets.shortfall(few, "r0", ["r0", "r8"], budget) == {"r0": Shortfall(None, 2), "r8": Shortfall(None, 2)}
    many = rounds_of(r0=steady, r4=steady, r8=wide)
    half_width = math.sqrt(0.55 / 0.45) - 1
    assert budgets.shortfall(many, "r0", ["r0", "r4", "r8"], budget) == {
        "r8": Shortfall(pytest.approx(half_width), math.ceil(8 * (half_width / 0.02) ** 2) - 8)
    }
    assert budgets.shortfall(many, "r0", ["r0", "r4"], budget) == {}
    assert budgets.shortfall([], "r0", ["r0", "r4"], budget)["r4"] == Shortfall(None, 6)


def test_when_to_stop() -> None:
    budget = Budget("test", 6, 0.02, 100)
    steady, wide = [1.0] * 8, [0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.45, 0.55]
    rounds = rounds_of(r0=steady, r8=wide)
    assert budgets.next_round_needed(rounds[:5], "r0", ["r0", "r8"], budget, elapsed=1e9)  # the minimum beats the cap
    assert budgets.next_round_needed(rounds, "r0", ["r0", "r8"], budget, elapsed=99.0)
    assert not budgets.next_round_needed(rounds, "r0", ["r0", "r8"], budget, elapsed=100.0)
    assert not budgets.next_round_needed(rounds[:6], "r0", ["r0", "r8"], budget, elapsed=0.0)
    assert not budgets.next_round_needed(rounds, "r0", [], budget, elapsed=0.0)  # all cells failed


def test_a_noisy_run_ends_when_its_intervals_are_narrow_enough() -> None:
    clock, generator = FakeClock(), random.Random(0)
    noise = lambda cost: clock.step(lambda: cost * math.exp(generator.gauss(0, 0.02)))  # noqa: E731
    variants = [Variant("r0", noise(0.25)), Variant("r8", noise(0.125))]
    steps = warmed_up(variants, "r0", clock).steps
    rounds: list[Round] = []
    while budgets.next_round_needed(rounds, "r0", ["r0", "r8"], BUDGETS["standard"], elapsed=0.0):
        rounds.append(speed.time_round(variants, steps, clock, session=0, seed=len(rounds)))
    estimate = stats.speedup(*reading.paired_seconds(rounds, "r0", "r8"))
    assert 10 < len(rounds) < 300
    assert estimate.half_width <= 0.01
    assert np.isclose(estimate.value, 2, rtol=0.02)
