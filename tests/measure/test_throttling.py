"""Bursts on a GPU whose clock sags: repeated, kept, and read by the best of them. Clock and gauges are fakes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
from fake_clock import FakeClock

from tomebench.errors import Interrupted
from tomebench.measure import rounds as reading
from tomebench.measure.machine import GpuReading
from tomebench.measure.rounds import typical_clock
from tomebench.measure.speed import Variant, time_round
from tomebench.schema import Burst, Round


class FakeGauges:
    """A GPU that shows these clocks after one burst after another, and takes 2 J a reading."""

    def __init__(self, clocks: Sequence[int | None], *, processes: int | None = 0) -> None:
        self.clocks: Iterator[int | None] = iter(clocks)
        self.processes, self.joules, self.readings, self.asked_cpus = processes, 0.0, 0, 0

    def gpu(self) -> GpuReading:
        self.readings += 1
        self.joules += 2.0
        after = self.readings % 2 == 0
        return GpuReading(next(self.clocks) if after else 1, self.joules)

    def gpu_processes(self) -> int | None:
        return self.processes

    def other_cpus(self) -> float | None:
        self.asked_cpus += 1
        return None if self.asked_cpus == 1 else 0.25


def one_round(gauges: FakeGauges, typical_mhz: float | None, *, each_pass: bool = False) -> Round:
    clock = FakeClock()
    return time_round(
        [Variant("a", clock.step(0.25))], {"a": 4}, clock, session=1, seed=0, gauges=gauges, typical_mhz=typical_mhz,
        each_pass=each_pass,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("clocks", "kept"),
    [
        ([2000], [2000]),
        ([1800], [1800]),  # exactly nine tenths
        ([1799, 2000], [1799, 2000]),
        ([1000, 1100, 2000], [1000, 1100, 2000]),
        ([1000, 1200, 1100, 2000], [1000, 1200, 1100]),  # twice, then it is what it is
        ([None], [None]),
    ],
)
def test_a_throttled_burst_is_repeated_at_most_twice_and_every_one_is_kept(
    clocks: list[int | None], kept: list[int | None]
) -> None:
    done = one_round(FakeGauges(clocks), 2000.0)
    assert [burst.mhz for burst in done.bursts] == kept
    known = [mhz for mhz in kept if mhz is not None]
    assert done.counted["a"].mhz == (max(known) if known else None)


def test_without_a_typical_clock_nothing_is_repeated() -> None:
    assert len(one_round(FakeGauges([500, 2000]), None).bursts) == 1


def test_a_round_keeps_energy_company_and_what_others_took() -> None:
    gauges = FakeGauges([2000], processes=3)
    done = one_round(gauges, 2000.0)
    assert (done.other_cpus, done.gpu_processes) == (0.25, 3)
    assert [burst.joules for burst in done.bursts] == [2.0]
    assert gauges.asked_cpus == 2  # where the round begins and where it ends


def test_passes_one_by_one() -> None:
    done = one_round(FakeGauges([2000]), None, each_pass=True)
    assert done.bursts == (Burst("a", 4, 1.0, 0, 2000, 2.0, (0.25,) * 4),)


def test_a_repetition_can_be_interrupted() -> None:
    clock, calls = FakeClock(), iter([False, True])
    with pytest.raises(Interrupted):
        time_round(
            [Variant("a", clock.step(0.25))], {"a": 1}, clock, session=1, seed=0, gauges=FakeGauges([1, 1]),
            typical_mhz=2000.0, should_stop=lambda: next(calls),
        )  # fmt: skip


def test_the_burst_that_counts() -> None:
    slow, fast, other = Burst("a", 1, 2.0, mhz=1000), Burst("a", 1, 1.0, mhz=2000), Burst("b", 1, 0.5)
    rounds = [Round(1, 0, (slow, other, fast)), Round(1, 1, (fast, slow)), Round(1, 2, (other,))]
    assert reading.step_seconds(rounds, "a") == [1.0, 1.0]
    assert reading.paired_seconds(rounds, "a", "b") == ([1.0], [0.5])
    assert typical_clock(rounds) == 1500
    assert typical_clock([Round(1, 0, (other,))]) is None
    assert not reading.throttled(other, 2000)
    assert not reading.throttled(slow, None)
