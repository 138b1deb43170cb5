"""Run a sweep: time every cell in interleaved rounds, count its top-1 in one pass over the images, store as it goes.

A generator of events. The store is written after every round and every evaluated batch, so that stopping at any moment
(Ctrl-C, kill, a full disk) loses at most the one in progress, and the same call goes on where it stopped.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from tomebench.datasets.images import ImageSet
from tomebench.datasets.loader import batches, default_workers
from tomebench.errors import DeviceError, Interrupted, UnsupportedModelError
from tomebench.measure.accuracy import predict
from tomebench.measure.clock import Clock, clock_for
from tomebench.measure.compilation import graphs_compiled
from tomebench.measure.device import DTYPES, arithmetic, resolve_device
from tomebench.measure.memory import peak_bytes
from tomebench.measure.speed import BUDGETS, Variant, next_round_needed, shortfall, time_round, warm_up
from tomebench.measure.testbed import describe, usable_cpus
from tomebench.models.create import LoadedModel, load_model
from tomebench.models.preprocess import Preprocessing
from tomebench.reduction.attention import check_route
from tomebench.schema import Round
from tomebench.sweeps.config import SweepConfig
from tomebench.sweeps.events import Event, Finished, Note, Phase, Planned, Progress
from tomebench.sweeps.forward import (
    CellFailed,
    Passes,
    choose_batch_size,
    ending,
    guarded,
    no_room_is_an_input_error,
    open_images,
    timing_inputs,
    weights_dtype,
)
from tomebench.sweeps.plan import PlannedCell, plan_cells, plan_sweep
from tomebench.sweeps.rows import ACCURACY_SESSIONS, COMPILE_SECONDS, build_rows
from tomebench.sweeps.store import Store


def run_sweep(config: SweepConfig, directory: Path, should_stop: Callable[[], bool]) -> Iterator[Event]:
    """Measure every cell of a sweep, or go on with one that was stopped.

    Args:
        config: what to measure.
        directory: run folder; created, or resumed when it holds the same configuration.
        should_stop: asked between two bursts, and between two cells of an evaluated batch.

    Yields:
        Events; the last is ``Finished`` with one row per cell.

    Raises:
        InputError: the model, data, device or folder cannot be used as asked; nothing was measured.
        StorageError: results cannot be written; what was committed before is kept.
        Interrupted: ``should_stop()`` became true.
    """
    device = resolve_device(config.device, config.dtype)
    check_route(config.attention, device, config.dtype, training=config.mode == "train")
    if config.cuda_graphs and device.type != "cuda":
        raise DeviceError(f"--cuda-graphs needs a CUDA GPU, not {device}; leave it out")
    plan_sweep(config)  # refuses what cannot be combined before anything slow happens
    with arithmetic(config.dtype, config.threads) as threads, no_room_is_an_input_error():
        yield from _run(config, directory, should_stop, device, threads)


def _run(
    config: SweepConfig, directory: Path, should_stop: Callable[[], bool], device: torch.device, threads: int
) -> Iterator[Event]:
    """:func:`run_sweep` with the device and its arithmetic settled."""
    yield Phase("load", None)
    image_set = open_images(config)
    loaded = load_model(
        config.model,
        checkpoint=config.checkpoint,
        pretrained=config.data is not None,  # speed does not depend on the weights, accuracy does
        img_size=config.img_size,
        offline=config.offline,
        seed=config.seed,
    )
    loaded.model.to(device=device, dtype=weights_dtype(config))

    with Store.open(directory, config.stored()) as store:
        if image_set is not None:
            store.put_images(image_set.info)
        batch_size = store.get("batch_size") or _batch_size(config, loaded, device)
        store.put("batch_size", batch_size)
        planned = plan_cells(config, loaded, weights=loaded.weights, batch_size=batch_size, device=str(device))
        store.put_cells([(cell.cell, cell.resolved) for cell in planned])
        _forget_failures(store)
        sweep = _Sweep(config, store, device, loaded, planned, batch_size, image_set, should_stop)
        yield Planned(len(planned), loaded.timm_id, len(store.rounds()), len(store.done_chunks()))
        yield from _check_baseline(sweep)
        loaded.model.train(config.mode == "train")
        session = store.begin_session(describe(device, threads))
        yield from _time_cells(sweep, session)
        yield from _measure_memory(sweep)
        if image_set is not None:
            yield from _count_top1(sweep, image_set, session)
        yield Finished(tuple(build_rows(store)), directory)


@dataclass
class _Sweep:
    """What the phases of one run share."""

    config: SweepConfig
    store: Store
    device: torch.device
    loaded: LoadedModel
    planned: Sequence[PlannedCell]
    batch_size: int
    image_set: ImageSet | None
    should_stop: Callable[[], bool]
    passes: Passes = field(init=False)
    inputs: list[Tensor] = field(init=False)  # each [batch_size, 3, H, W] on the device

    def __post_init__(self) -> None:
        self.passes = Passes(self.config, self.loaded.model, self.planned, self.device)
        self.inputs = timing_inputs(
            self.image_set,
            Preprocessing.from_model(self.loaded.model, self.config.img_size),
            self.batch_size,
            self.device,
            weights_dtype(self.config),
            self.config.seed,
        )

    @property
    def baseline(self) -> str:
        """Key of the r = 0 cell."""
        return self.passes.baseline

    def live(self) -> list[str]:
        """Keys of the cells that have not failed."""
        statuses = self.store.statuses()
        return [key for key in self.passes.models if statuses.get(key, ("ok", None))[0] == "ok"]

    def stop_if_asked(self) -> None:
        """Raise Interrupted if the sweep is to stop."""
        if self.should_stop():
            raise Interrupted("stopped between two forward passes; run the same command again to go on")

    def failed(self, failure: CellFailed) -> Note:
        """Record that a cell cannot be measured; the others go on.

        Raises:
            DeviceError: it is the baseline, without which nothing can be compared, and the user can do something.
            RuntimeError: it is the baseline, which failed otherwise; this is what it raised.
        """
        if failure.key == self.baseline:
            raise ending(failure, "r = 0", self.config) from failure
        self.store.set_status(failure.key, failure.status, str(failure))
        r = next(cell.cell.r for cell in self.planned if cell.cell.key == failure.key)
        return Note(f"r={r}: {failure}; the other cells go on")


def _time_cells(sweep: _Sweep, session: int) -> Iterator[Event]:
    """Time rounds until every speed-up is known as well as the budget asks."""
    budget = BUDGETS[sweep.config.budget]
    clock = clock_for(sweep.device)
    rounds, steps = sweep.store.rounds(), None
    before, start = len(rounds), clock.now()
    while next_round_needed(rounds, sweep.baseline, sweep.live(), budget, clock.now() - start):
        variants = sweep.passes.variants(sweep.live(), sweep.inputs)
        try:
            if steps is None:
                if sweep.config.compile:
                    yield from _compile(sweep, variants, clock)
                yield Phase("warm-up", None)
                warm = warm_up(variants, sweep.baseline, clock, should_stop=sweep.should_stop)
                steps, start = warm.steps, clock.now()
                if not warm.settled:
                    yield Note(f"r = 0 was still changing speed by more than 5 % after {warm.seconds:.0f} s of warm-up")
                yield Phase("timing", float(budget.min_rounds))
            seed = sweep.config.seed * 1_000_003 + len(rounds)
            done = time_round(
                variants,
                steps,
                clock,
                session=session,
                seed=seed,
                should_stop=sweep.should_stop,
                compilations=graphs_compiled,
            )
        except CellFailed as failure:
            yield sweep.failed(failure)
            continue
        sweep.store.add_round(done)
        rounds.append(done)
        yield _timing_progress(sweep, rounds, (clock.now() - start) / (len(rounds) - before), clock.now() - start)


def _compile(sweep: _Sweep, variants: Sequence[Variant], clock: Clock) -> Iterator[Event]:
    """Run every variant once, which compiles it, and keep how long that took: it is no part of any burst."""
    yield Phase("compile", float(len(variants)))
    before, seconds = graphs_compiled(), dict(sweep.store.get(COMPILE_SECONDS) or {})
    start = clock.now()
    for number, variant in enumerate(variants, start=1):
        sweep.stop_if_asked()
        began = clock.now()
        variant.step()
        if variant.name not in seconds:
            seconds[variant.name] = clock.now() - began
            sweep.store.put(COMPILE_SECONDS, seconds)  # at once: the next one may fail
        yield Progress("compile", float(number), float(len(variants)), "variants", "")
    yield Note(f"{graphs_compiled() - before} graphs compiled in {clock.now() - start:.0f} s")


def _timing_progress(sweep: _Sweep, rounds: Sequence[Round], round_seconds: float, elapsed: float) -> Progress:
    """How many rounds are done and how many more the budget allows and the intervals ask for."""
    budget = BUDGETS[sweep.config.budget]
    missing = shortfall(rounds, sweep.baseline, sweep.live(), budget)
    widths = [s.half_width for s in missing.values() if s.half_width is not None]
    wanted = max((s.rounds_needed for s in missing.values()), default=0)
    affordable = max(budget.min_rounds - len(rounds), math.ceil((budget.cap_seconds - elapsed) / round_seconds), 0)
    detail = f"widest speed-up interval ±{max(widths):.1%}" if widths else ""
    return Progress("timing", float(len(rounds)), float(len(rounds) + min(wanted, affordable)), "rounds", detail)


def _count_top1(sweep: _Sweep, image_set: ImageSet, session: int) -> Iterator[Event]:
    """One pass over the images: every batch is decoded once and run through every cell."""
    config, store = sweep.config, sweep.store
    preprocessing = Preprocessing.from_model(sweep.loaded.model, config.img_size)
    total, done = len(image_set), store.done_chunks()
    yield Phase("accuracy", float(total))
    seen = sum(min(sweep.batch_size, total - index * sweep.batch_size) for index in done)
    workers = default_workers(total, usable_cpus()) if config.workers is None else config.workers
    live = sweep.live()
    for batch in batches(image_set, preprocessing.transform(), sweep.batch_size, workers=workers, skip=done):
        while True:
            models = {key: _stoppable(sweep, sweep.passes.forward(key)) for key in live}
            try:
                chunk = predict(models, batch, sweep.device, weights_dtype(config))
                break
            except CellFailed as failure:
                yield sweep.failed(failure)
                live.remove(failure.key)
        store.put(ACCURACY_SESSIONS, sorted({session, *(store.get(ACCURACY_SESSIONS) or ())}))
        store.add_chunk(chunk)
        seen += batch.n_valid
        yield Progress("accuracy", float(seen), float(total), "images", "")


def _measure_memory(sweep: _Sweep) -> Iterator[Event]:
    """Peak memory of one step of every cell that has none yet."""
    known = sweep.store.peak_memory()
    for key in sweep.live():
        sweep.stop_if_asked()
        if key in known:
            continue
        try:
            # Not as a CUDA graph, whose memory is set aside before it runs.
            step = sweep.passes.step(key, sweep.inputs[:1], graphed=False)
            peak = peak_bytes(step, sweep.device, 0)
        except CellFailed as failure:
            yield sweep.failed(failure)
            continue
        if peak is not None:
            sweep.store.set_peak_memory(key, peak + sweep.passes.state_bytes)


def _check_baseline(sweep: _Sweep) -> Iterator[Event]:
    """The wrapped model at r = 0 must be the unwrapped one; anything else would measure another model."""
    images = sweep.inputs[0]
    half = sweep.config.mode == "train" and sweep.config.dtype in ("bf16", "fp16")
    both = (sweep.passes.models[sweep.baseline], sweep.loaded.model)
    try:
        with torch.inference_mode(), torch.autocast(sweep.device.type, DTYPES[sweep.config.dtype], enabled=half):
            wrapped, unwrapped = (guarded(sweep.baseline, model)(images).float() for model in both)
    except CellFailed as failure:
        yield sweep.failed(failure)  # which raises: without the baseline nothing can be compared
        return
    if not unwrapped.isfinite().all():
        yield Note("the unwrapped model gives NaN or infinite logits; check its weights and --dtype")
    same = (wrapped == unwrapped) | (wrapped.isnan() & unwrapped.isnan())
    if same.all():
        return
    tolerance = 0.05 if sweep.config.dtype in ("bf16", "fp16") else 1e-3
    worst = (wrapped - unwrapped)[~same].abs().max().item()
    if not worst <= tolerance * max(unwrapped.abs().max().item(), 1.0):  # NaN is not within any tolerance
        raise UnsupportedModelError(
            f"{sweep.loaded.timm_id}: the wrapped model at r = 0 differs from the model itself by up to {worst:.2g}; "
            "its forward does something that merging does not know"
        )
    yield Note(f"r = 0 differs from the unwrapped model by up to {worst:.2g} (rounding)")


def _stoppable(sweep: _Sweep, forward: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """A forward pass that is not begun once the sweep is to stop: with many cells a batch can take long."""

    def run(images: Tensor) -> Tensor:
        sweep.stop_if_asked()
        return forward(images)

    return run


def _forget_failures(store: Store) -> None:
    """Try failed cells again on a resumed run, unless the others have gone on to evaluate images without them."""
    if not store.done_chunks():
        for key in store.statuses():
            store.set_status(key, "ok")


def _batch_size(config: SweepConfig, loaded: LoadedModel, device: torch.device) -> int:
    if isinstance(config.batch_size, int):
        return config.batch_size
    preprocessing = Preprocessing.from_model(loaded.model, config.img_size)
    return choose_batch_size(config, loaded.model, preprocessing, device)
