"""Profile a pass at a few r: milliseconds of attention, matching, merging and MLP next to the floor of each.

Every r runs four ways in turn: plain, with its stages marked, and both again as its ceiling, which slices the surplus
tokens off instead of merging them. Nothing is stored.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from tomebench.ambient import usual_state
from tomebench.backbones.adapt import adapt
from tomebench.errors import ConfigError, DeviceError, Interrupted
from tomebench.measure.allocator import keep_memory
from tomebench.measure.clock import Stopwatch, clock_for, stopwatch_for
from tomebench.measure.device import arithmetic, device_name, resolve_device
from tomebench.measure.floor import PartProfile, PassShape, Rates, Work, measure_rates, part_profiles, pass_work
from tomebench.measure.speed import MAX_STEPS
from tomebench.measure.stages import Part, PassTimes, TimedModel, marked, marker, time_burst, turn_time, typical_ms
from tomebench.measure.testbed import describe
from tomebench.models.create import load_model
from tomebench.reduction.attention import check_route
from tomebench.reduction.backbone import Backbone
from tomebench.reduction.vit import ReducedViT, SlicedViT
from tomebench.runs.budget import BUDGETS
from tomebench.sweeps.batch_size import choose_batch_size
from tomebench.sweeps.cells import ResolvedCell, reduced_vit, resolve_cells, resolve_sweep
from tomebench.sweeps.config import SweepConfig
from tomebench.sweeps.events import Event, Phase, Progress
from tomebench.sweeps.failures import CellFailed, ending, guarded, no_room_is_an_input_error
from tomebench.sweeps.inputs import list_images, preprocessing_of, timing_inputs, usable_images, weights_dtype
from tomebench.sweeps.passes import rotating, without_gradients

_REDUCED, _CEILING = "reduced", "ceiling"
_BURST_SECONDS = 0.4
"""Seconds that a burst lasts per kind of pass; a shorter one has too few passes of 100 ms to average."""
_WARM_TURNS = 3


@dataclass(frozen=True)
class Profile:
    """Profile of one r. All times in ms per pass of a batch, means over the quieter half of the turns."""

    r: int
    schedule: str
    r_layers: tuple[int, ...]  # tokens removed in each block
    tokens: tuple[int, ...]  # tokens after each block
    attn_kernel: str
    turns: int  # timed passes of each model
    parts: tuple[PartProfile, ...]
    parts_ms: float  # sum of the parts
    plain_ms: float  # the same pass without marks
    parts_percent: float  # the sum of the parts in % of the plain pass
    floor_ms: float  # sum of the floors
    ceiling_ms: float | None  # the ceiling without marks; None where nothing is merged
    ceiling_parts_percent: float | None  # the sum of the ceiling's parts in % of the plain ceiling
    overhead_percent: float | None  # how much longer than the ceiling the plain pass takes
    adds_up: bool  # the parts and those of the ceiling are within 5 % of the plain passes


@dataclass(frozen=True)
class ProfileReport:
    """Profiles of every r, and the conditions they were measured under."""

    model: str  # timm id with tag
    weights: str
    img_size: int
    method: str
    batch_size: int
    dtype: str
    device: str
    depth: int
    macs_per_second: float
    bytes_per_second: float
    testbed: dict[str, Any]
    profiles: tuple[Profile, ...]


def run_profile(config: SweepConfig, should_stop: Callable[[], bool]) -> Generator[Event, None, ProfileReport]:
    """Time the stages of a pass at every r asked for.

    Args:
        config: what to profile; the least number of rounds of its budget is run. Folders, workers and
            ``ceiling`` play no part.
        should_stop: asked between two bursts.

    Yields:
        Events.

    Returns:
        The report.

    Raises:
        InputError: the model, data or device cannot be used as asked, or the passes would not be eager inference.
        Interrupted: ``should_stop()`` became true; nothing is kept.
    """
    for name, given in (("compile", config.compile), ("cuda-graphs", config.cuda_graphs)):
        if given:
            raise ConfigError(f"profile marks the stages of an eager pass, which --{name} leaves no trace of; drop it")
    if config.mode != "infer":
        raise ConfigError(f"profile times a forward pass; drop --mode {config.mode}")
    if config.budget == "none":
        raise ConfigError("profile times passes, and budget none times nothing; give another --budget")
    if (config.processes or 1) > 1:
        raise ConfigError("profile looks into one process; drop --processes")
    if len(config.methods) > 1 or len(config.schedules) > 1:
        raise ConfigError("profile takes one method and one schedule; drop the others")
    if len(config.cell_choices) > 1:
        raise ConfigError("profile takes one value of each option; drop the others")
    device = resolve_device(config.device, config.dtype)
    check_route(config.attention, device, config.dtype, training=False)
    resolve_sweep(config)  # refuses what cannot be combined before anything slow happens
    keep_memory()
    with usual_state(), arithmetic(config.dtype, config.threads) as threads, no_room_is_an_input_error():
        return (yield from _profile(config, should_stop, device, threads))


def _profile(
    config: SweepConfig, should_stop: Callable[[], bool], device: torch.device, threads: int
) -> Generator[Event, None, ProfileReport]:
    """:func:`run_profile` on a resolved device, its arithmetic set."""
    yield Phase("load", None)
    loaded = load_model(config.model_spec, pretrained=config.data is not None)  # speed needs no weights
    images = None
    if config.data is not None:
        images = usable_images(config, list_images(config, loaded.head), lambda: _check(should_stop))
    loaded.model.to(device=device, dtype=weights_dtype(config))
    backbone, preprocessing = adapt(loaded.model), preprocessing_of(config, loaded.model)
    batch_size = config.batch_size
    if not isinstance(batch_size, int):
        batch_size = choose_batch_size(config, loaded.model, preprocessing, device)
    inputs = timing_inputs(images, preprocessing, batch_size, device, weights_dtype(config), config.seed)
    cells = resolve_cells(config, loaded, weights=loaded.weights, batch_size=batch_size, device=device_name(device))
    asked = [cell for cell in cells if cell.cell.r in config.r_values or cell.cell.schedule.startswith("list:")]

    clock = clock_for(device)
    runs = [_prepare(config, backbone, cell, inputs, device) for cell in asked]
    try:
        rates = measure_rates(device, weights_dtype(config), clock)
        yield from _time(config, runs, should_stop)
        # The rates are measured again, in case the machine was busy the first time.
        rates = rates.or_better(measure_rates(device, weights_dtype(config), clock))
    except CellFailed as failure:
        raise ending(failure, failure.key, config) from failure
    works = [pass_work(backbone.macs(), _shape(config, backbone, run.cell, inputs[0])) for run in runs]
    return ProfileReport(
        model=loaded.timm_id,
        weights=loaded.weights,
        img_size=preprocessing.input_size[-1],
        method=config.method,
        batch_size=batch_size,
        dtype=config.dtype,
        device=device_name(device),
        depth=backbone.depth,
        macs_per_second=rates.macs,
        bytes_per_second=rates.bytes,
        testbed=describe(device, threads),
        profiles=tuple(_summary(run, work, rates, backbone.depth) for run, work in zip(runs, works, strict=True)),
    )


@dataclass
class _Run:
    """One r and its ceiling; r = 0 has none."""

    cell: ResolvedCell
    stopwatch: Stopwatch
    models: Sequence[TimedModel]
    turns: list[dict[str, PassTimes]] = field(default_factory=list)
    fastest: float = math.inf  # seconds of the fastest turn so far

    def warm_up(self) -> None:
        """Run every model once, and measure the seconds of a turn."""
        time_burst(self.models, 1, self.stopwatch, random.Random(0))  # the first pass allocates and autotunes
        self._burst(_WARM_TURNS, random.Random(0))

    def time(self, rng: random.Random) -> None:
        """Time one burst."""
        # By the fastest turn so far: a machine that was busy during warm-up would else leave all bursts too short.
        turns = math.ceil(_BURST_SECONDS * 2 * len(self.models) / self.fastest)
        self.turns += self._burst(min(turns, MAX_STEPS), rng)

    def _burst(self, turns: int, rng: random.Random) -> list[dict[str, PassTimes]]:
        found = time_burst(self.models, turns, self.stopwatch, rng)
        self.fastest = min(self.fastest, *map(turn_time, found))
        if self.fastest <= 0:
            raise DeviceError("a forward pass took no time: the clock stands still; check the machine's clock")
        return found


def _prepare(
    config: SweepConfig, backbone: Backbone, cell: ResolvedCell, inputs: Sequence[Tensor], device: torch.device
) -> _Run:
    """Build the models of one r, with and without marks."""
    stopwatch, models, key = stopwatch_for(device), [], f"r={cell.cell.r}"
    for name, kind in ((_REDUCED, ReducedViT), (_CEILING, SlicedViT)):
        if name == _REDUCED or any(cell.r_asked):
            kinds = (kind, marked(kind, marker(stopwatch, name)))
            both = (reduced_vit(backbone, config, cell, k) for k in kinds)
            models.append(
                TimedModel(name, *(rotating(guarded(key, without_gradients(model)), inputs) for model in both))
            )
    return _Run(cell, stopwatch, models)


def _time(config: SweepConfig, runs: Sequence[_Run], should_stop: Callable[[], bool]) -> Generator[Event, None, None]:
    """Warm everything up, then time a burst of every r in each round, in a random order."""
    yield Phase("warm-up", None)
    for run in runs:
        _check(should_stop)
        run.warm_up()
    rounds = BUDGETS[config.budget].min_rounds
    yield Phase("timing", float(rounds))
    for done in range(1, rounds + 1):
        rng = random.Random(config.seed * 1_000_003 + done)
        for run in rng.sample(runs, len(runs)):
            _check(should_stop)
            run.time(rng)
        yield Progress("timing", float(done), float(rounds), "rounds", "")


def _check(should_stop: Callable[[], bool]) -> None:
    if should_stop():
        raise Interrupted("stopped between two bursts; nothing is kept")


def _shape(config: SweepConfig, backbone: Backbone, cell: ResolvedCell, images: Tensor) -> PassShape:
    resolved = cell.resolved
    with torch.inference_mode():
        width = backbone.embed(images[:1]).x.shape[-1]
    return PassShape(
        batch=len(images),
        image=images[0].numel(),
        tokens_in=resolved.tokens_in,
        tokens=resolved.tokens,
        # prefix_only slices the last block's surplus off instead of merging it.
        merged=(*resolved.r_layers[:-1], 0) if config.prefix_only else resolved.r_layers,
        pooled=backbone.prefix if backbone.head_reads_prefix_only else resolved.tokens[-1],
        width=width,
        itemsize=images.itemsize,
        params=sum(p.numel() for p in backbone.model.parameters()),
        method=cell.options.method(cell.cell.method),
    )


def _summary(run: _Run, work: Mapping[Part, Work], rates: Rates, depth: int) -> Profile:
    """Average the turns of one r, and set them beside the floors."""
    resolved = run.cell.resolved
    typical = typical_ms(run.turns)
    times, ceiling = typical[_REDUCED], typical.get(_CEILING)
    parts = part_profiles(times, ceiling, work, rates, depth)
    return Profile(
        r=run.cell.cell.r,
        schedule=run.cell.cell.schedule,
        r_layers=resolved.r_layers,
        tokens=resolved.tokens,
        attn_kernel=resolved.attn_kernel,
        turns=len(run.turns),
        parts=parts,
        parts_ms=times.total,
        plain_ms=times.plain,
        parts_percent=100 * times.agreement,
        floor_ms=sum(part.floor_ms for part in parts),
        ceiling_ms=ceiling.plain if ceiling else None,
        ceiling_parts_percent=100 * ceiling.agreement if ceiling else None,
        overhead_percent=100 * (times.plain / ceiling.plain - 1) if ceiling else None,
        adds_up=times.adds_up and (ceiling is None or ceiling.adds_up),
    )
