"""The timed phases of a sweep: rounds until the speed-ups are known, what the bursts computed, the whole pipeline."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from tomebench.measure.budget import BUDGETS, next_round_needed, shortfall
from tomebench.measure.clock import Clock, clock_for
from tomebench.measure.compilation import graphs_compiled
from tomebench.measure.machine import MachineGauges
from tomebench.measure.memory import peak_bytes
from tomebench.measure.rounds import typical_clock
from tomebench.measure.speed import Variant, time_round, warm_up
from tomebench.schema import Round
from tomebench.sweeps.events import Event, Note, Phase, Progress
from tomebench.sweeps.forward import CellFailed, guarded, without_gradients
from tomebench.sweeps.job import Job
from tomebench.sweeps.rows import COMPILE_SECONDS, OUTPUT_DIFFERENCES


def time_cells(job: Job, session: int) -> Iterator[Event]:
    """Time rounds until every speed-up is known as well as the budget asks."""
    budget = BUDGETS[job.config.budget]
    clock, gauges = clock_for(job.device), MachineGauges(job.device)
    rounds, steps = job.store.rounds(), None
    before, start = len(rounds), clock.now()
    while next_round_needed(rounds, job.baseline, job.live(), budget, clock.now() - start):
        variants = job.passes.variants(job.live(), job.inputs)
        try:
            if steps is None:
                if job.config.compile:
                    yield from _compile(job, variants, clock)
                yield Phase("warm-up", None)
                warm = warm_up(variants, job.baseline, clock, should_stop=job.should_stop)
                steps, start = warm.steps, clock.now()
                if not warm.settled:
                    yield Note(f"r = 0 was still changing speed by more than 5 % after {warm.seconds:.0f} s of warm-up")
                yield Phase("timing", float(budget.min_rounds))
            seed = job.config.seed * 1_000_003 + len(rounds)
            done = time_round(
                variants,
                steps,
                clock,
                session=session,
                seed=seed,
                should_stop=job.should_stop,
                compilations=graphs_compiled,
                gauges=gauges,
                typical_mhz=typical_clock(rounds),
                each_pass=job.batch_size == 1 and job.config.mode == "infer",
            )
        except CellFailed as failure:
            yield job.failed(failure)
            continue
        job.store.add_round(done)
        rounds.append(done)
        yield _timing_progress(job, rounds, (clock.now() - start) / (len(rounds) - before), clock.now() - start)
    if rounds and job.config.mode == "infer":
        yield from _compare_outputs(job)


def _compile(job: Job, variants: Sequence[Variant], clock: Clock) -> Iterator[Event]:
    """Run every variant once, which compiles it, and keep how long that took: it is no part of any burst."""
    yield Phase("compile", float(len(variants)))
    before, seconds = graphs_compiled(), dict(job.store.get(COMPILE_SECONDS) or {})
    start = clock.now()
    for number, variant in enumerate(variants, start=1):
        job.stop_if_asked()
        began = clock.now()
        variant.step()
        if variant.name not in seconds:
            seconds[variant.name] = clock.now() - began
            job.store.put(COMPILE_SECONDS, seconds)  # at once: the next one may fail
        yield Progress("compile", float(number), float(len(variants)), "variants", "")
    yield Note(f"{graphs_compiled() - before} graphs compiled in {clock.now() - start:.0f} s")


def _compare_outputs(job: Job) -> Iterator[Event]:
    """Keep how far the last timed pass of every cell is from what its model says when it is evaluated.

    The worst of all sessions is kept. A cell that an interruption left without a comparison is run once more.
    """
    for key in job.live():
        job.stop_if_asked()
        known = dict(job.store.get(OUTPUT_DIFFERENCES) or {})
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
            evaluated = guarded(key, without_gradients(job.passes.models[key]))(job.inputs[batch])
        except CellFailed as failure:
            yield job.failed(failure)
            continue
        found = output_difference(timed, evaluated)
        job.store.put(OUTPUT_DIFFERENCES, {**known, key: max(found, known.get(key, 0.0))})


def output_difference(timed: Tensor, evaluated: Tensor) -> float:
    """Largest difference of two sets of logits over the largest logit of the second, for the middle image.

    The middle one, because two kernels round differently and may then merge another pair of one image's tokens; what
    computes something else does so for every image. Where both are NaN or the same infinity they agree.

    Args:
        timed: [B, classes].
        evaluated: [B, classes].
    """
    timed, evaluated = timed.float(), evaluated.float()
    same = (timed == evaluated) | (timed.isnan() & evaluated.isnan())
    apart = torch.where(same, 0.0, (timed - evaluated).abs()).nan_to_num(nan=torch.inf)
    scale = evaluated.nan_to_num(0.0, 0.0, 0.0).abs().amax(dim=1).clamp_min(torch.finfo(torch.float32).tiny)
    worst = (apart.amax(dim=1) / scale).clamp_max(torch.finfo(torch.float32).max)  # JSON has no infinity
    return float(worst.median())


def _timing_progress(job: Job, rounds: Sequence[Round], round_seconds: float, elapsed: float) -> Progress:
    """How many rounds are done and how many more the budget allows and the intervals ask for."""
    budget = BUDGETS[job.config.budget]
    missing = shortfall(rounds, job.baseline, job.live(), budget)
    widths = [s.half_width for s in missing.values() if s.half_width is not None]
    wanted = max((s.rounds_needed for s in missing.values()), default=0)
    # A clock may stand still for as long as a round of a very small model takes.
    left = math.ceil((budget.cap_seconds - elapsed) / max(round_seconds, 1e-9))
    affordable = max(budget.min_rounds - len(rounds), left, 0)
    detail = f"widest interval ±{max(widths):.1%}" if widths else ""
    return Progress("timing", float(len(rounds)), float(len(rounds) + min(wanted, affordable)), "rounds", detail)


def measure_memory(job: Job) -> Iterator[Event]:
    """Peak memory of one step of every cell that has none yet."""
    known = job.store.peak_memory()
    for key in job.live():
        job.stop_if_asked()
        if key in known:
            continue
        try:
            # Not as a CUDA graph, whose memory is set aside before it runs.
            step = job.passes.step(key, job.inputs[:1], timed=False)
            peak = peak_bytes(step, job.device, 0)
        except CellFailed as failure:
            yield job.failed(failure)
            continue
        if peak is not None:
            job.store.set_peak_memory(key, peak + job.passes.state_bytes)
