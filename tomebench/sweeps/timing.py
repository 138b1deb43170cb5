"""Time the cells of a sweep: warm-up, rounds until every speed-up interval is as narrow as asked, memory, energy.

After the rounds, the logits of each cell's last timed pass are compared with those of its model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator, Sequence

import numpy as np
from torch import Tensor

from tomebench.measure.clock import Clock, clock_for
from tomebench.measure.compilation import graphs_compiled
from tomebench.measure.machine import MachineGauges
from tomebench.measure.memory import device_bytes, driver_allocations, peak_bytes
from tomebench.measure.outputs import output_excess
from tomebench.measure.speed import Variant, WarmUp, time_round, warm_up
from tomebench.runs.budget import (
    BUDGETS,
    Budget,
    complete_processes,
    next_round_needed,
    share_of,
    shortfall,
)
from tomebench.runs.rounds import paired_seconds, step_seconds
from tomebench.runs.row import COMPILE_SECONDS, DEVICE_MEMORY, ENERGY
from tomebench.runs.rows import OUTPUT_EXCESS
from tomebench.runs.targets import timed_rounds, timing_begins, timing_ends
from tomebench.schema import CEILING, Round
from tomebench.sweeps.events import Event, Note, Phase, Progress
from tomebench.sweeps.failures import CellFailed
from tomebench.sweeps.job import Job
from tomebench.words import counted

ENERGY_SECONDS = 2.0
"""Seconds over which energy is counted: twenty times the longest period at which a GPU updates its counter."""


def time_cells(job: Job, session: int) -> Iterator[Event]:
    """Time rounds until every speed-up interval is as narrow as the budget asks.

    Cells whose interval is narrow enough, from an earlier sweep in the same folder, are left out; r = 0 never is, since
    a speed-up is a ratio within a round. Cells that are to be timed together are, in rounds that have all of them, and
    no others. With several processes each reaches its share of the budget on its own, with
    the cells that too few processes have timed.
    """
    processes = job.config.process_count
    budget = share_of(BUDGETS[job.config.budget], processes)
    clock, gauges = clock_for(job.device), MachineGauges(job.device)
    max_mhz = gauges.max_mhz()
    if job.device.type == "cuda" and max_mhz is None:
        yield Note(
            "the GPU's clock, energy and company are not known: install nvidia-ml-py (pip install 'tomebench[gpu]')"
        )
    stored, steps = job.store.rounds(), None
    together = [key for key in job.live() if key in job.together]
    side_by_side = [each for each in stored if {*together} <= each.counted.keys()]
    if processes > 1:
        rounds, short = [], _timed_by_too_few(job)
    else:
        rounds = list(side_by_side)
        missing = shortfall(rounds, job.baseline, together or job.live(), budget)
        short = {*missing, *_without_ceiling(job, rounds, budget)}
        if together and short:
            short = {*together}
        if widths := [found.half_width for found in missing.values() if found.half_width is not None]:
            yield Note(
                f"timing goes on: {counted(len(widths), 'row')} known to ±{max(widths):.1%} at worst so far, budget "
                f"{budget.name} asks for ±{budget.half_width:.1%}"
            )
    before, start = len(rounds), clock.now()

    def live(*always: str) -> list[str]:
        return [key for key in job.live() if key in short or key in always]

    # Of those that were to be timed together once, some no longer are.
    asked = [cell.key for cell, _ in job.store.cells()] if together else job.live()
    timing_begins(job.store, asked, short)
    while next_round_needed(rounds, job.baseline, live(), budget, clock.now() - start) or any(
        key in live() for key in _without_ceiling(job, rounds, budget)
    ):
        variants = job.passes.variants(live(job.baseline), job.inputs)
        try:
            if steps is None:
                if job.config.compile:
                    yield from _compile(job, variants, clock)
                yield Phase("warm-up", None)
                warm = yield from _warm_up(job, variants, clock)
                steps, start = warm.steps, clock.now()
                if not warm.settled:
                    yield Note(f"r = 0 was still changing speed by more than 5 % after {warm.seconds:.0f} s of warm-up")
                yield Phase("timing", None)  # the number of rounds is unknown until there are intervals
            seed = job.config.seed * 1_000_003 + len(stored) + len(rounds) - before
            done = time_round(
                variants,
                steps,
                clock,
                session=session,
                seed=seed,
                should_stop=job.should_stop,
                compilations=graphs_compiled,
                allocations=lambda: driver_allocations(job.device),
                gauges=gauges,
                max_mhz=max_mhz,
                each_pass=job.batch_size == 1 and job.config.mode == "infer",
                blame=job.blame,
            )
        except CellFailed as failure:
            yield job.failed(failure)
            continue
        job.store.add_round(done)
        rounds.append(done)
        pace = (clock.now() - start) / (len(rounds) - before)
        yield _timing_progress(job, rounds, live(), pace, clock.now() - start)
    if not processes_left(job):
        timing_ends(job.store, [cell.cell.key for cell in job.cells])
    if rounds and job.config.mode == "infer":
        yield from _compare_outputs(job)


def processes_left(job: Job) -> int:
    """Number of further processes in which some cell that has not failed is to be timed; 0 if none."""
    if job.config.process_count == 1:
        return 0
    rounds = timed_rounds(job.store)
    return max((job.config.process_count - _done(job, rounds, key) for key in job.live()), default=0)


def _timed_by_too_few(job: Job) -> set[str]:
    """Keys of the cells that fewer processes have timed than are asked for."""
    rounds = timed_rounds(job.store)
    return {key for key in job.live() if _done(job, rounds, key) < job.config.process_count}


def _done(job: Job, rounds: Sequence[Round], key: str) -> int:
    ceiling = CEILING + key in job.passes.names(job.live())
    return complete_processes(rounds, job.baseline, key, ceiling=ceiling)


def _without_ceiling(job: Job, rounds: Sequence[Round], budget: Budget) -> list[str]:
    """Keys of the cells that were timed beside their ceiling in too few rounds, where ceilings are asked for."""
    names = job.passes.names(job.live())
    return [
        key
        for key in job.live()
        if CEILING + key in names and len(paired_seconds(rounds, key, CEILING + key)[0]) < budget.min_rounds
    ]


def _warm_up(job: Job, variants: Sequence[Variant], clock: Clock) -> Generator[Event, None, WarmUp]:
    """:func:`warm_up`, with its steps as progress events."""
    steps = warm_up(variants, job.baseline, clock, should_stop=job.should_stop, blame=job.blame)
    while True:
        try:
            done, total = next(steps)
        except StopIteration as end:
            found: WarmUp = end.value
            return found
        yield Progress("warm-up", float(done), float(total), "steps", "")


def _compile(job: Job, variants: Sequence[Variant], clock: Clock) -> Iterator[Event]:
    """Run every variant once, which compiles it, and store the seconds; no burst includes them."""
    yield Phase("compile", float(len(variants)))
    before, seconds = graphs_compiled(), dict(job.store.get(COMPILE_SECONDS) or {})
    start = clock.now()
    for number, variant in enumerate(variants, start=1):
        job.stop_if_asked()
        with job.blame(variant.name):
            took = clock.burst(variant.step, 1)
        if variant.name not in seconds:
            seconds[variant.name] = took
            job.store.put(COMPILE_SECONDS, seconds)  # at once: the next variant may fail
        yield Progress("compile", float(number), float(len(variants)), "variants", "")
    yield Note(f"{graphs_compiled() - before} graphs compiled in {clock.now() - start:.0f} s")


def _compare_outputs(job: Job) -> Iterator[Event]:
    """Store how far the logits of every cell's last timed pass are from those of its evaluated model.

    The largest of all sessions is kept. A cell whose session was interrupted before the comparison runs one more pass.
    """
    for key in job.live():
        job.stop_if_asked()
        known = dict(job.store.get(OUTPUT_EXCESS) or {})
        kept = job.passes.take_output(key)
        if kept is None and key in known:
            continue
        try:
            if kept is None:
                job.passes.step(key, job.inputs[:1])()
                kept = job.passes.take_output(key)
            if kept is None:
                continue
            batch, timed = kept
            with job.blame(key):
                found = output_excess(timed, _stoppable(job, key), job.inputs[batch], job.config.dtype)
        except CellFailed as failure:
            if failure.status == "oom":  # out of memory says nothing about the timed pass
                yield Note("no room to compare what was timed with the evaluated model")
                return
            yield job.failed(failure)
            continue
        job.store.put(OUTPUT_EXCESS, {**known, key: max(found, known.get(key, 0.0))})


def _stoppable(job: Job, key: str) -> Callable[[Tensor], Tensor]:
    """Evaluated model of a cell that can be interrupted before each of its passes, which may be hundreds."""

    def evaluate(images: Tensor) -> Tensor:
        job.stop_if_asked()
        return job.passes.models[key](images)

    return evaluate


def _timing_progress(
    job: Job, rounds: Sequence[Round], keys: Sequence[str], round_seconds: float, elapsed: float
) -> Progress:
    """Rounds done, and once there are intervals, the rounds that these still need and the budget allows."""
    budget = share_of(BUDGETS[job.config.budget], job.config.process_count)
    missing = shortfall(rounds, job.baseline, keys, budget)
    fewest = min((len(step_seconds(rounds, key)) for key in keys), default=len(rounds))
    widths = [s.half_width for s in missing.values() if s.half_width is not None]
    wanted = max((s.rounds_needed for s in missing.values()), default=0)
    # The clock may show no time at all for a round of a very small model.
    left = math.ceil((budget.cap_seconds - elapsed) / max(round_seconds, 1e-9))
    affordable = max(budget.min_rounds - fewest, left, 0)
    detail = f"widest interval ±{max(widths):.1%}" if widths else ""
    known = widths or not missing or all(key == job.baseline for key in keys)
    total = float(len(rounds) + min(wanted, affordable)) if known else None
    return Progress("timing", float(len(rounds)), total, "rounds", detail)


def measure_memory(job: Job) -> Iterator[Event]:
    """Measure the peak memory of one pass of every cell that lacks it, and the device memory in use afterwards."""
    known, taken = job.store.peak_memory(), dict(job.store.get(DEVICE_MEMORY) or {})
    for key in job.live():
        job.stop_if_asked()
        if key in known:
            continue
        try:
            with job.blame(key):
                on_device = device_bytes(job.passes.step(key, job.inputs[:1]), job.device)
                job.stop_if_asked()
                # Not as a CUDA graph, whose memory is allocated before the pass.
                step = job.passes.step(key, job.inputs[:1], timed=False)
                peak = peak_bytes(step, job.device, 0)
        except CellFailed as failure:
            yield job.failed(failure)
            continue
        if on_device is not None:
            taken[key] = on_device
            job.store.put(DEVICE_MEMORY, taken)
        if peak is not None:
            job.store.set_peak_memory(key, peak + job.passes.state_bytes)


def measure_energy(job: Job) -> Iterator[Event]:
    """Measure joules per image of every cell that lacks it, over seconds: the counter is updated every tenth of one.

    Does nothing on a device without such a counter.
    """
    clock, gauges = clock_for(job.device), MachineGauges(job.device)
    if gauges.joules() is None:
        return
    known, rounds = dict(job.store.get(ENERGY) or {}), job.store.rounds()
    cells = [key for key in job.live() if key not in known and step_seconds(rounds, key)]
    if not cells:
        return
    yield Phase("energy", float(len(cells)))
    for number, key in enumerate(cells, start=1):
        job.stop_if_asked()
        steps = math.ceil(ENERGY_SECONDS / float(np.median(step_seconds(rounds, key))))
        try:
            with job.blame(key):
                step = job.passes.step(key, job.inputs)
                clock.burst(step, 1)  # allocates its memory before the timed burst
                before = gauges.joules()
                clock.burst(step, steps)
                after = gauges.joules()
        except CellFailed as failure:
            yield job.failed(failure)
            continue
        if before is not None and after is not None:
            known[key] = (after - before) / steps / job.batch_size
            job.store.put(ENERGY, known)
        yield Progress("energy", float(number), float(len(cells)), "cells", "")
