"""Speeds of several processes in the gate: the process is the unit, and a single one is judged by the others."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
from simulated_machine import asked

from tomebench import stats
from tomebench.gate.compare import Limits, compare, confirmed, speed_shifts
from tomebench.gate.compare_speed import ALL, SpeedLimits
from tomebench.gate.judge import speed_remarks
from tomebench.gate.records import CellRecord, Snapshot, Speed
from tomebench.gate.shifts import Series, chance_to_pass, shift, speedups, together


def speed(ratio: float, biases: list[float], noise: float = 0.001, seed: int = 0, rounds: int = 6) -> Speed:
    """Of one process for each bias, each with rounds of its own."""
    draw = np.random.default_rng(seed)
    reference = np.exp(draw.normal(0, noise, len(biases) * rounds))
    seconds = np.exp(draw.normal(0, noise, reference.shape) - np.repeat(biases, rounds)) / ratio
    numbers = tuple(int(n) for n in np.repeat(range(1, len(biases) + 1), rounds))
    return Speed(
        seconds=tuple(seconds), reference=tuple(reference), testbed="x", processes=numbers if len(biases) > 1 else None
    )


def snapshot(*speeds: Speed, budget: str = "quick") -> Snapshot:
    cells = tuple(CellRecord(asked=asked(4 * (n + 1)), speed=each) for n, each in enumerate(speeds))
    return Snapshot(testbed="x", settings={"budget": budget}, cells=cells)


def verdicts(old: Snapshot, new: Snapshot) -> dict[str, str]:
    return {f.cell: f.verdict for f in compare(old, new, ["speed"], Limits())}


def test_the_shift_of_several_processes_is_welchs() -> None:
    new, old = np.array([0.05, 0.06, 0.04]), np.array([0.01, 0.0, -0.01, 0.0])
    found = stats.mean_shift(new, old)
    a, b = new.var(ddof=1) / 3, old.var(ddof=1) / 4
    assert found.value == pytest.approx(0.05)
    assert found.error == pytest.approx(math.sqrt(a + b))
    assert found.degrees == pytest.approx((a + b) ** 2 / (a**2 / 2 + b**2 / 3))
    with pytest.raises(ValueError, match="several values on a side"):
        stats.mean_shift(new[:1], old[:1])


def test_students_tail_is_the_integral_of_its_density() -> None:
    x = np.linspace(-200, 1.3, 2_000_001)
    for degrees in (1.0, 3.5, 12.0):
        scale = math.gamma((degrees + 1) / 2) / math.gamma(degrees / 2) / math.sqrt(degrees * math.pi)
        below = np.trapezoid(scale * (1 + x * x / degrees) ** (-(degrees + 1) / 2), x)
        rest = scale * degrees ** ((degrees + 1) / 2) * 200.0**-degrees / degrees  # of the tail before it, nearly
        assert stats.student_tail(1.3, degrees) == pytest.approx(1 - below - rest, abs=1e-6)
        assert stats.student_tail(-1.3, degrees) == pytest.approx(1 - stats.student_tail(1.3, degrees))
        assert stats.student_tail(stats.student_t(4), 4) == pytest.approx(0.025)
    assert (stats.student_tail(0.0, 3), stats.student_tail(1e300, 3), stats.student_tail(-1e300, 3)) == (0.5, 0.0, 1.0)


def test_a_bias_of_one_process_is_no_slow_down() -> None:
    """One process that is 7 % off, however exact: worse beside another one, and not where it is known to happen."""
    off = [-0.075, 0.06, -0.02, 0.05, -0.06]
    single = snapshot(speed(1.3, off[:1]))
    assert verdicts(snapshot(speed(1.3, [0.0])), single) == {"r=4": "worse"}
    assert verdicts(snapshot(speed(1.3, off)), single) == {"r=4": "inconclusive"}
    assert verdicts(snapshot(speed(1.3, off)), snapshot(speed(1.3, off, seed=1))) == {"r=4": "inconclusive"}
    calm = [each / 10 for each in off]
    assert verdicts(snapshot(speed(1.3, calm)), snapshot(speed(1.3, calm, seed=1))) == {"r=4": "same"}
    assert verdicts(snapshot(speed(1.3, calm)), snapshot(speed(1.1, calm, seed=1))) == {"r=4": "worse"}
    assert verdicts(snapshot(speed(1.3, calm)), snapshot(speed(1.1, [0.0]))) == {"r=4": "worse"}


def test_a_single_process_is_one_more_of_those_of_the_other_side() -> None:
    logs = np.repeat([0.01, -0.01, 0.02, 0.0], 6)
    several, one = Series(logs, tuple(np.repeat(range(4), 6))), Series(np.full(7, 0.03))
    scatter = float(np.std([0.01, -0.01, 0.02, 0.0], ddof=1))
    for found, sign in ((shift(one, several), 1), (shift(several, one), -1)):
        assert found.value == pytest.approx(sign * (0.03 - 0.005))
        assert found.error == pytest.approx(scatter * math.sqrt(1.25))
        assert found.degrees == 3


def test_what_slows_down_every_r_is_seen_together_before_it_is_in_any() -> None:
    reference = tuple(np.exp(np.random.default_rng(0).normal(0, 0.001, 12)))

    def run(slower: float) -> Snapshot:
        noise = np.random.default_rng(int(1000 * slower)).normal(0, 0.05, (24, 12))
        return snapshot(
            *(Speed(seconds=tuple(np.exp(each) * slower), reference=reference, testbed="x") for each in noise)
        )

    found = verdicts(run(1.0), run(1.1))
    assert found[ALL] == "worse"
    assert [*found.values()].count("inconclusive") >= 20  # of 24
    assert verdicts(run(1.0), run(1.001))[ALL] == "same"


def test_only_what_was_timed_in_the_same_rounds_is_put_together() -> None:
    one, other = speed(1.3, [0.0, 0.01]), speed(1.5, [0.0, 0.01])
    both = together([one, other])
    assert both is not None
    assert both.logs == pytest.approx((speedups(one).logs + speedups(other).logs) / 2)
    assert both.processes == one.processes
    later = speed(1.3, [0.0, 0.01], seed=3)  # beside a reference of its own
    assert ALL not in verdicts(snapshot(one, later), snapshot(one, later))
    found = compare(snapshot(one, other, later), snapshot(one, other, later), ["speed"], Limits())
    assert found[0].cell == ALL
    assert found[0].quantity == "mean of speed-ups"
    assert found[0].detail.startswith("mean of 2: ")


def test_a_second_measurement_of_other_cells_still_speaks_of_all_together() -> None:
    several = [0.0, 0.001, -0.001]
    old, slow = (snapshot(*(speed(ratio, several) for _ in range(2))) for ratio in (1.3, 1.1))
    first = compare(old, slow, ["speed"], Limits())
    three = snapshot(*(speed(1.3, several) for _ in range(3)))
    again = compare(three, three, ["speed"], Limits())
    assert first[0].verdict == "worse"
    assert confirmed(first, again)[0].verdict == "same"


def test_images_per_second_of_several_processes_need_no_twenty_rounds() -> None:
    several = snapshot(speed(1.3, [0.0, 0.001, -0.001]))
    limits = Limits(SpeedLimits(absolute=True))
    assert [f.verdict for f in compare(several, several, ["speed"], limits)] == ["same", "same"]
    one = snapshot(speed(1.3, [0.0]))
    assert any("20 are needed" in found.detail for found in compare(one, one, ["speed"], limits))


def test_the_chance_of_two_runs_that_are_alike_is_how_often_they_pass() -> None:
    """Of runs of which each is known to 3 %, as the smallest budget aims at, hardly any pass in 25 cells at once."""
    for noise, count in ((0.045, 1), (0.03, 25), (0.02, 25), (0.01, 25)):
        passed, chances = [], []
        for seed in range(60):
            old, new = (
                snapshot(*(speed(1.3, [0.0], noise, 1000 * seed + 50 * side + n, rounds=12) for n in range(count)))
                for side in range(2)
            )
            passed.append({*verdicts(old, new).values()} <= {"same", "better"})
            chances.append(chance_to_pass(speed_shifts(old, new), math.log(1.05)))
        assert abs(float(np.mean(passed)) - float(np.mean(chances))) < 0.25, (noise, count)


def test_a_budget_that_cannot_decide_is_refused_with_the_one_that_can() -> None:
    loud, quiet = (snapshot(*(speed(1.3, [0.0], noise, n) for n in range(25))) for noise in (0.03, 0.002))
    said = " ".join(speed_remarks(quiet, loud, Limits()))
    assert "--budget quick cannot decide here: two runs that are alike would pass --tolerance 5 in " in said
    assert "; --budget standard can: measure both with it" in said
    assert "cannot decide" not in " ".join(speed_remarks(quiet, quiet, Limits()))
    # Where quick took all of its time, standard has seven and a half times as much: errors of a third, and no less.
    louder = snapshot(*(speed(1.3, [0.0], 0.12, n, rounds=20) for n in range(25)))
    assert "standard can" not in " ".join(speed_remarks(louder, louder, Limits()))
    narrow = " ".join(speed_remarks(loud, loud, Limits(SpeedLimits(tolerance=0.001))))
    assert "; use a wider --tolerance, or a quieter machine" in narrow


def test_one_process_is_said_to_be_one() -> None:
    one, several = snapshot(speed(1.3, [0.0])), snapshot(speed(1.3, [0.0, 0.01, 0.0]))
    assert speed_remarks(several, several, Limits()) == []
    (both,) = speed_remarks(one, snapshot(speed(1.3, [0.0], seed=1)), Limits())
    assert both.startswith("the baseline and this run timed without --processes: what differs between processes is in ")
    (single,) = speed_remarks(one, several, Limits())
    assert single.startswith("the baseline timed without --processes: taken to vary as the other does; --processes 5")


def test_too_few_processes_are_told_how_many_would_do() -> None:
    """No budget helps: rounds do not make processes alike."""
    biases = [0.06, -0.06, 0.02, -0.02, 0.0]
    few, many = (snapshot(speed(1.3, (biases * 6)[:count])) for count in (5, 30))
    said = " ".join(speed_remarks(few, few, Limits()))
    assert "so few processes cannot decide here" in said
    assert (count := re.search(r"; --processes (\d+) can: measure both with it", said))
    assert 5 < int(count[1]) <= 30
    assert verdicts(many, many) == {"r=4": "same"}
    even = snapshot(speed(1.3, [0.0] * 5, noise=1e-6))  # of one side only: no fewer than there are
    said = " ".join(speed_remarks(few, even, Limits()))
    assert (count := re.search(r"; --processes (\d+) can", said))
    assert int(count[1]) > 5
