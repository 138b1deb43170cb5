"""Bursts on a GPU whose clock sags: repeated, kept, and read by the best of them. Clock and gauges are fakes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import pytest
from fake_clock import FakeClock

from tomebench.errors import Interrupted
from tomebench.measure.machine import GpuReading, NoGauges
from tomebench.measure.speed import Variant, time_round, warm_up
from tomebench.runs import rounds as reading
from tomebench.runs.rounds import median_clock
from tomebench.schema import Burst, Round


class FakeGauges(NoGauges):
    """A GPU that is seen like this in one burst after another; a number is a clock of which no reason is known."""

    def __init__(self, seen: Sequence[GpuReading | int | None], *, processes: int | None = 0) -> None:
        self.seen = iter(seen)
        self.processes, self.asked_cpus = processes, 0

    @contextmanager
    def watch(self) -> Iterator[Callable[[], GpuReading]]:
        reading = next(self.seen)
        yield lambda: reading if isinstance(reading, GpuReading) else GpuReading(reading)

    def gpu_processes(self) -> int | None:
        return self.processes

    def other_cpus(self) -> float | None:
        self.asked_cpus += 1
        return None if self.asked_cpus == 1 else 0.25


def one_round(gauges: FakeGauges, max_mhz: int | None, *, each_pass: bool = False) -> Round:
    clock = FakeClock()
    return time_round(
        [Variant("a", clock.step(0.25))], {"a": 4}, clock, session=1, seed=0, gauges=gauges, max_mhz=max_mhz,
        each_pass=each_pass,
    )  # fmt: skip


COOL, HOT, CAPPED = (GpuReading(1900, 0.0, 0.0), GpuReading(1900, 0.0, 0.3), GpuReading(900, 1.0, 0.0))


@pytest.mark.parametrize(
    ("clocks", "kept"),
    [
        ([2000], [2000]),
        ([1800], [1800]),  # exactly nine tenths
        ([1799, 2000], [1799, 2000]),
        ([1000, 1100, 2000], [1000, 1100, 2000]),
        ([1000, 1200, 1100, 2000], [1000, 1200, 1100]),  # twice, then it is what it is
        ([None], [None]),
        ([COOL], [1900]),
        ([HOT, HOT, COOL], [1900, 1900, 1900]),  # the reason counts, not the clock
        ([CAPPED], [900]),  # the power limit is how this GPU runs such work
        ([GpuReading(1900, 0.0, 0.1)], [1900]),  # one sample in ten
    ],
)
def test_a_throttled_burst_is_repeated_at_most_twice_and_every_one_is_kept(
    clocks: list[GpuReading | int | None], kept: list[int | None]
) -> None:
    done = one_round(FakeGauges(clocks), 2000)
    assert [burst.mhz for burst in done.bursts] == kept
    known = [mhz for mhz in kept if mhz is not None]
    assert done.counted["a"].mhz == (max(known) if known else None)


def test_without_reasons_or_a_highest_clock_nothing_is_repeated() -> None:
    assert len(one_round(FakeGauges([500, 2000]), None).bursts) == 1


def test_a_round_keeps_reasons_company_and_what_others_took() -> None:
    gauges = FakeGauges([GpuReading(1800, 0.75, 0.05)], processes=3)
    done = one_round(gauges, 2000)
    assert (done.other_cpus, done.gpu_processes) == (0.25, 3)
    assert [(burst.mhz, burst.capped, burst.slowed) for burst in done.bursts] == [(1800, 0.75, 0.05)]
    assert gauges.asked_cpus == 2  # where the round begins and where it ends


def test_passes_one_by_one() -> None:
    done = one_round(FakeGauges([2000]), None, each_pass=True)
    assert done.bursts == (Burst("a", 4, 1.0, 0, 2000, (0.25,) * 4),)


def test_what_a_burst_leaves_behind_and_asks_for_is_kept() -> None:
    clock, asked = FakeClock(), iter([3, 5])
    clock.backlog = 0.01
    (burst,) = time_round(
        [Variant("a", clock.step(0.25))], {"a": 4}, clock, session=1, seed=0, allocations=lambda: next(asked)
    ).bursts
    assert (burst.allocated, burst.backlog) == (2, 0.01)


def test_of_single_passes_the_mean_is_left_behind() -> None:
    clock = FakeClock()
    ran: list[int] = []

    def step() -> None:
        ran.append(1)
        clock.time += 0.5
        clock.backlog = 0.1 * len(ran)

    (burst,) = time_round([Variant("a", step)], {"a": 3}, clock, session=1, seed=0, each_pass=True).bursts
    assert burst.backlog == pytest.approx(0.2)


def test_what_fails_is_blamed_on_its_variant() -> None:
    clock, log = FakeClock(), list[str]()

    @contextmanager
    def blame(name: str) -> Iterator[None]:
        try:
            yield
        except RuntimeError:
            log.append(name)
            raise

    def fails() -> None:
        raise RuntimeError("device-side assert")

    variants = [Variant("a", clock.step(0.25)), Variant("b", fails)]
    for run in (
        lambda: time_round(variants, {"a": 1, "b": 1}, clock, session=1, seed=0, blame=blame),
        lambda: list(warm_up(variants, "a", clock, blame=blame)),
    ):
        log.clear()
        with pytest.raises(RuntimeError, match="device-side assert"):
            run()
        assert log == ["b"]


def test_a_repetition_can_be_interrupted() -> None:
    clock, calls = FakeClock(), iter([False, True])
    with pytest.raises(Interrupted):
        time_round(
            [Variant("a", clock.step(0.25))], {"a": 1}, clock, session=1, seed=0, gauges=FakeGauges([1, 1]),
            max_mhz=2000, should_stop=lambda: next(calls),
        )  # fmt: skip


def test_of_a_repeated_burst_the_one_that_was_not_slowed_down_counts() -> None:
    done = one_round(FakeGauges([HOT, HOT, COOL]), 2000)
    assert [burst.slowed for burst in done.bursts] == [0.3, 0.3, 0.0]
    assert done.counted["a"].slowed == 0.0
    done = one_round(FakeGauges([HOT, GpuReading(1800, 0.0, 0.0)]), 2000)  # at a lower clock, but of its own
    assert done.counted["a"].mhz == 1800


def test_a_step_that_waits_for_the_device_says_nothing_about_the_host() -> None:
    clock = FakeClock()
    clock.backlog = 0.01
    (burst,) = time_round([Variant("a", clock.step(0.25), waits=True)], {"a": 4}, clock, session=1, seed=0).bursts
    assert burst.backlog is None


def test_the_burst_that_counts() -> None:
    slow, fast, other = Burst("a", 1, 2.0, mhz=1000), Burst("a", 1, 1.0, mhz=2000), Burst("b", 1, 0.5)
    rounds = [Round(1, 0, (slow, other, fast)), Round(1, 1, (fast, slow)), Round(1, 2, (other,))]
    assert reading.step_seconds(rounds, "a") == [1.0, 1.0]
    assert reading.paired_seconds(rounds, "a", "b") == ([1.0], [0.5])
    assert median_clock([slow, fast, other]) == 1500
    assert median_clock([other]) is None
    assert not reading.throttled(other, 2000)
    assert not reading.throttled(slow, None)
