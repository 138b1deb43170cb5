"""Time what choosing the tokens takes: marked passes of every cell, apart from the rounds, whose passes have no marks.

What a method saves shows in the speed-up; what it spends on choosing is in these passes. Blocks differ, so a pass is
kept as two sums over its blocks: the time of choosing, and the time of the blocks.
"""

from __future__ import annotations

from collections.abc import Iterator

from tomebench.measure.clock import stopwatch_for
from tomebench.measure.stages import IN_BLOCKS, marked
from tomebench.runs.row import SELECTOR
from tomebench.sweeps.events import Event, Phase, Progress
from tomebench.sweeps.failures import CellFailed, guarded
from tomebench.sweeps.job import Job
from tomebench.sweeps.passes import rotating, without_gradients

_WARM, _LEAST, _MOST, _SECONDS = 2, 7, 200, 0.5
"""Passes before the timing; least (an interval of their median needs them) and most passes; seconds to reach."""
MARKED_PASSES = _WARM + _LEAST
"""The passes of a cell whose passes are long."""


def time_selectors(job: Job) -> Iterator[Event]:
    """Time choosing in every cell that removes tokens and lacks it, where the configuration asks for it."""
    known = dict(job.store.get(SELECTOR) or {})
    live = job.live()
    cells = [c.cell.key for c in job.cells if c.cell.key in live and c.cell.key not in known and any(c.r_asked)]
    if not job.config.selector or not cells:
        return
    yield Phase("selector", float(len(cells)))
    for number, key in enumerate(cells, start=1):
        job.stop_if_asked()
        try:
            with job.blame(key):
                known[key] = _passes(job, key)
        except CellFailed as failure:
            yield job.failed(failure)
            continue
        job.store.put(SELECTOR, known)
        yield Progress("selector", float(number), float(len(cells)), "cells", "")


def _passes(job: Job, key: str) -> list[tuple[float, float]]:
    """Milliseconds of choosing, and of all blocks, in each of a number of passes of a cell."""
    stopwatch, model = stopwatch_for(job.device), job.passes.models[key]
    staged = marked(type(model), stopwatch.mark)(
        model.backbone,
        model.method,
        model.r_layers,
        prop_attn=model.prop_attn,
        attention=model.attention,
        prefix_only=model.prefix_only,
        learned=model.learned,
        rope=model.rope,
    )
    step, found, spent = rotating(guarded(key, without_gradients(staged)), job.inputs), [], 0.0
    for number in range(_WARM + _MOST):
        job.stop_if_asked()
        stopwatch.start()
        step()
        laps = stopwatch.laps()
        if number < _WARM:
            continue
        blocks = sum(seconds for label, seconds in laps if label in IN_BLOCKS)
        choosing = sum(seconds for label, seconds in laps if label == "matching")
        found.append((1e3 * choosing, 1e3 * blocks))
        spent += sum(seconds for _, seconds in laps)
        if len(found) >= _LEAST and spent >= _SECONDS:
            break
    return found
