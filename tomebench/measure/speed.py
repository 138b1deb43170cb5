"""Timing many variants of a model fairly: calibrated bursts, a warm-up, rounds in random order.

A round times one burst of every variant in a random order, so that a machine that slows down slows all of them alike
and the ratios within a round stay true. Nothing here knows a tensor library; a variant is a name and a callable.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from tomebench.errors import DeviceError, Interrupted
from tomebench.measure.machine import Gauges, NoGauges
from tomebench.runs.rounds import throttled
from tomebench.schema import SENTINEL, Burst, Round
from tomebench.words import counted

if TYPE_CHECKING:
    from tomebench.measure.clock import Clock

MAX_STEPS = 1_000_000
"""Most steps in a burst; a step that needs more to last MIN_BURST does nothing, or the clock stands still."""
WARM_UP_BURSTS = 3
"""Bursts of every variant before round 1."""
WINDOW = 5
"""Bursts of the baseline in one window of the warm-up."""
MAX_WINDOWS = 8
"""Windows after which the warm-up gives up waiting for the baseline to settle."""
MAX_SETTLE_SECONDS = 60.0
"""Seconds after which no further window is started, once there are two."""
SETTLED = 0.05
"""Relative change of both quartiles under which two windows agree."""
REPEATS = 2
"""How often a burst is timed again because the GPU was throttled."""
Blame = Callable[[str], AbstractContextManager[object]]
"""From the name of a variant to a context that says whose fault it was when something fails."""


@dataclass(frozen=True)
class Variant:
    """One thing to time. ``name`` is a cell's key, CEILING and a key, SENTINEL or UNWRAPPED; ``step`` runs a batch."""

    name: str
    step: Callable[[], object]
    beside: str = ""  # name of a variant to be timed right before or after this one: their ratio is of interest
    waits: bool = False  # the step itself waits for the device: what is left at its end says nothing about the host


@dataclass(frozen=True)
class WarmUp:
    """What the warm-up found."""

    steps: Mapping[str, int]  # steps per burst, by variant name
    settled: bool  # the last two windows of the baseline agree
    windows: int  # windows it took
    seconds: float


def calibrate(clock: Clock, step: Callable[[], object], min_seconds: float) -> int:
    """Steps per burst so that a burst lasts at least ``min_seconds``. The step must have run before (be warm).

    Raises:
        DeviceError: the clock does not advance, or the step does nothing.
    """
    steps = 1
    while (seconds := _burst(clock, step, steps)) < min_seconds:
        if steps == MAX_STEPS:
            raise DeviceError(
                f"{counted(steps, 'step')} took {seconds:.3g} s: the clock stands still or the step does nothing; "
                "check the device"
            )
        # A tenth more than needed, for the bursts that run a little faster; never tenfold at once, since a very
        # short burst says little about a long one.
        steps = min(math.ceil(1.1 * steps * min_seconds / seconds), 10 * steps, MAX_STEPS)
    return steps


def warm_up(
    variants: Sequence[Variant],
    baseline: str,
    clock: Clock,
    *,
    should_stop: Callable[[], bool] = lambda: False,
    blame: Blame = nullcontext,
) -> Generator[tuple[int, int], None, WarmUp]:
    """Run every variant warm and find its steps per burst, then wait until the baseline runs steadily.

    Every variant gets at least three bursts; the sentinel is the baseline's twin and takes over its steps. Then
    windows of five bursts of the baseline run until the quartiles of the last two differ by at most 5 %, for at most
    eight windows or about a minute.

    Yields:
        How many variants and windows are done, and of how many, as far as that is known.

    Raises:
        DeviceError: from the clock.
        Interrupted: ``should_stop()`` became true between two bursts.
        KeyError: ``baseline`` is not among the variants.
    """
    start = clock.now()
    step_of = {variant.name: variant.step for variant in variants}
    baseline_step = step_of[baseline]
    steps: dict[str, int] = {}
    total = len(step_of) + 2
    for name, step in step_of.items():
        with blame(name):
            steps[name] = _warm_one(clock, step, should_stop)
        yield len(steps), total
    if SENTINEL in step_of:
        steps[SENTINEL] = steps[baseline]  # two bursts of the same length

    settle_start = clock.now()
    windows: list[tuple[float, float]] = []
    while not (settled := _agree(windows)) and len(windows) < MAX_WINDOWS:
        if len(windows) >= 2 and clock.now() - settle_start >= MAX_SETTLE_SECONDS:
            break
        seconds = []
        for _ in range(WINDOW):
            _check(should_stop)
            with blame(baseline):
                seconds.append(_burst(clock, baseline_step, steps[baseline]))
        q1, q3 = np.quantile(seconds, [0.25, 0.75])
        windows.append((float(q1), float(q3)))
        yield total - 2 + len(windows), max(total, total - 2 + len(windows))
    return WarmUp(steps, settled, len(windows), clock.now() - start)


def time_round(
    variants: Sequence[Variant],
    steps: Mapping[str, int],
    clock: Clock,
    *,
    session: int,
    seed: int,
    should_stop: Callable[[], bool] = lambda: False,
    compilations: Callable[[], int] = lambda: 0,
    allocations: Callable[[], int] = lambda: 0,
    gauges: Gauges = NoGauges(),  # noqa: B008 (it has no state)
    max_mhz: int | None = None,
    each_pass: bool = False,
    blame: Blame = nullcontext,
) -> Round:
    """One burst of every variant, in the random order that ``seed`` gives.

    A burst that ran at a throttled clock is timed again, at most twice; all of them are kept. Variants that are to be
    timed beside each other stay together, in random order among themselves: a few per cent between two of them would
    drown in what a machine drifts over a whole round.

    Args:
        variants: what to time.
        steps: steps per burst, by variant name.
        clock: times the bursts.
        session: number of the session, kept with the round.
        seed: of the order, kept with the round.
        should_stop: asked before every burst.
        compilations: a count that rises whenever something is compiled; its rise within a burst is kept with the burst.
        allocations: the same of memory that the device's driver is asked for.
        gauges: say what else goes on; kept with bursts and round.
        max_mhz: the GPU's highest clock, which tells a throttled burst where the driver does not.
        each_pass: wait for every pass and keep its time, as for latency.
        blame: surrounds what is done for the variant of that name, waiting for it included.

    Raises:
        DeviceError: the clock returned zero, a negative number, NaN or infinity.
        Interrupted: ``should_stop()`` became true between two bursts; the round is lost.
    """
    bursts: list[Burst] = []
    gauges.other_cpus()  # what others do is counted from here
    for variant in _order(variants, random.Random(seed)):
        for _ in range(1 + REPEATS):
            _check(should_stop)
            with blame(variant.name), gauges.watch() as seen:
                compiled, allocated = compilations(), allocations()
                burst = _measured(variant, steps[variant.name], clock, each_pass)
                compiled, allocated = compilations() - compiled, allocations() - allocated
            gpu = seen()
            bursts.append(
                replace(
                    burst, compiled=compiled, allocated=allocated, mhz=gpu.mhz, capped=gpu.capped, slowed=gpu.slowed
                )
            )
            if not throttled(bursts[-1], max_mhz):
                break
    return Round(session, seed, tuple(bursts), gauges.other_cpus(), gauges.gpu_processes())


def _measured(variant: Variant, steps: int, clock: Clock, each_pass: bool) -> Burst:
    if not each_pass:
        seconds = _burst(clock, variant.step, steps)
        return Burst(variant.name, steps, seconds, backlog=None if variant.waits else clock.backlog)
    passes, backlogs = [], []
    for _ in range(steps):
        passes.append(_burst(clock, variant.step, 1))
        backlogs.append(clock.backlog)
    known = [backlog for backlog in backlogs if backlog is not None]
    backlog = sum(known) / len(known) if known else None  # what was left at the end of one pass, as for a burst
    return Burst(variant.name, steps, sum(passes), passes=tuple(passes), backlog=backlog)


def _order(variants: Sequence[Variant], rng: random.Random) -> list[Variant]:
    groups: dict[str, list[Variant]] = {}
    for variant in variants:
        groups.setdefault(variant.beside or variant.name, []).append(variant)
    together = list(groups.values())
    rng.shuffle(together)
    for group in together:
        rng.shuffle(group)
    return [variant for group in together for variant in group]


def _warm_one(clock: Clock, step: Callable[[], object], should_stop: Callable[[], bool]) -> int:
    """Steps per burst of one variant, after at least WARM_UP_BURSTS bursts."""
    _check(should_stop)
    _burst(clock, step, 1)  # the first pass allocates and tunes: its time says nothing
    _check(should_stop)
    steps = calibrate(clock, step, clock.min_burst)
    for _ in range(WARM_UP_BURSTS - 2):
        _check(should_stop)
        seconds = _burst(clock, step, steps)
    # A step that was still slow when it was calibrated would leave all its bursts too short.
    return steps if seconds >= clock.min_burst else calibrate(clock, step, clock.min_burst)


def _agree(windows: Sequence[tuple[float, float]]) -> bool:
    """The quartiles (Q1, Q3) of the last two windows differ by at most SETTLED."""
    if len(windows) < 2:
        return False
    return all(abs(new - old) <= SETTLED * old for old, new in zip(windows[-2], windows[-1], strict=True))


def _burst(clock: Clock, step: Callable[[], object], steps: int) -> float:
    seconds = clock.burst(step, steps)
    if not (math.isfinite(seconds) and seconds > 0):
        raise DeviceError(
            f"the clock says that {counted(steps, 'step')} took {seconds} s; check the machine's clock and its driver"
        )
    return seconds


def _check(should_stop: Callable[[], bool]) -> None:
    if should_stop():
        raise Interrupted("stopped between two bursts; run the same command again to go on")
