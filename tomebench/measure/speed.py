"""Time variants of a model in rounds: calibrated bursts, a warm-up, and random order within each round.

A round times one burst of every variant in random order, so a machine that slows down affects all of them, and the
ratios within a round stay true. A variant is a name and a callable; no tensor library is used here.
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
"""Most passes in a burst; if more are needed to reach MIN_BURST, the step does nothing, or the clock stands still."""
WARM_UP_BURSTS = 3
"""Bursts of every variant before the first round."""
WINDOW = 5
"""Bursts of the baseline in one window of the warm-up."""
MAX_WINDOWS = 8
"""Windows after which the warm-up ends even if the baseline has not settled."""
MAX_SETTLE_SECONDS = 60.0
"""Seconds after which no further window is started, once there are two."""
SETTLED = 0.05
"""Largest relative change of both quartiles at which two windows agree."""
REPEATS = 2
"""How often a burst is repeated because the GPU was throttled."""
Blame = Callable[[str], AbstractContextManager[object]]
"""From the name of a variant to a context that attributes errors within it to that variant."""


@dataclass(frozen=True)
class Variant:
    """A variant to time. ``name`` is a cell's key, CEILING and a key, or one of the others; ``step`` runs one pass."""

    name: str
    step: Callable[[], object]
    beside: str = ""  # name of a variant to be timed next to this one, since their ratio is of interest
    waits: bool = False  # the step itself waits for the device, so the device's backlog says nothing about the host


@dataclass(frozen=True)
class WarmUp:
    """Result of the warm-up."""

    steps: Mapping[str, int]  # passes per burst, by variant name
    settled: bool  # the last two windows of the baseline agree
    windows: int  # windows it took
    seconds: float


def calibrate(clock: Clock, step: Callable[[], object], min_seconds: float) -> int:
    """Number of passes for a burst of at least ``min_seconds``. The step must have run before (be warm).

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
        # A tenth more than needed, for bursts that run a little faster; at most tenfold at a time, since a very short
        # burst predicts a long one badly.
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
    """Warm up every variant and find its passes per burst, then wait until the baseline runs steadily.

    Every variant gets at least three bursts; the sentinel takes over the passes per burst of the baseline. Then windows
    of five bursts of the baseline run until the quartiles of the last two windows differ by at most 5 %, for at most
    eight windows or about a minute.

    Yields:
        Number of variants and windows done, and their total as far as it is known.

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
        steps[SENTINEL] = steps[baseline]  # baseline and sentinel have bursts of the same length

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
    """Time one burst of every variant, in the random order that ``seed`` gives.

    A burst that ran at a throttled clock is repeated, at most twice; all of them are stored. Variants that are to be
    timed beside each other stay together, in random order among themselves: over a whole round the machine drifts by
    more than the few per cent between them.

    Args:
        variants: variants to time.
        steps: passes per burst, by variant name.
        clock: times the bursts.
        session: number of the session, stored with the round.
        seed: of the order, stored with the round.
        should_stop: asked before every burst.
        compilations: number of graphs compiled so far; its rise within a burst is stored with the burst.
        allocations: the same for requests to the device's driver for memory.
        gauges: readings of the machine, stored with bursts and round.
        max_mhz: the GPU's highest clock, by which a burst counts as throttled where the driver gives no reason.
        each_pass: wait for every pass and store its seconds, as for latency.
        blame: context around the work for a variant, waiting for the device included.

    Raises:
        DeviceError: the clock returned zero, a negative number, NaN or infinity.
        Interrupted: ``should_stop()`` became true between two bursts; the round is lost.
    """
    bursts: list[Burst] = []
    gauges.other_cpus()  # other processes' CPU time counts from here
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
    backlog = sum(known) / len(known) if known else None  # mean backlog at the end of a pass, as for a burst
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
    """Passes per burst of one variant, after at least WARM_UP_BURSTS bursts."""
    _check(should_stop)
    _burst(clock, step, 1)  # the first pass allocates and autotunes, so its time is not used
    _check(should_stop)
    steps = calibrate(clock, step, clock.min_burst)
    for _ in range(WARM_UP_BURSTS - 2):
        _check(should_stop)
        seconds = _burst(clock, step, steps)
    # A step that was still slow when it was calibrated would leave all its bursts too short.
    return steps if seconds >= clock.min_burst else calibrate(clock, step, clock.min_burst)


def _agree(windows: Sequence[tuple[float, float]]) -> bool:
    """Whether the quartiles (Q1, Q3) of the last two windows differ by at most SETTLED."""
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
