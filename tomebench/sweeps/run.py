"""Run a sweep: time every cell in interleaved rounds, count its top-1 in one pass over the images, store as it goes.

A generator of events. The store is written after every round and every evaluated batch, so that stopping at any moment
(Ctrl-C, kill, a full disk) loses at most the one in progress, and the same call goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from tomebench.datasets.images import ImageSet
from tomebench.datasets.loader import batches, default_workers
from tomebench.errors import DeviceError, UnsupportedModelError
from tomebench.measure.accuracy import predict
from tomebench.measure.allocator import keep_memory
from tomebench.measure.device import DTYPES, arithmetic, resolve_device
from tomebench.measure.testbed import describe, usable_cpus
from tomebench.models.create import LoadedModel, load_model
from tomebench.models.preprocess import Preprocessing
from tomebench.reduction.attention import check_route
from tomebench.sweeps.config import SweepConfig
from tomebench.sweeps.events import Event, Finished, Note, Phase, Planned, Progress
from tomebench.sweeps.forward import (
    CellFailed,
    choose_batch_size,
    guarded,
    no_room_is_an_input_error,
    open_images,
    weights_dtype,
)
from tomebench.sweeps.job import Job
from tomebench.sweeps.pipeline import measure_end_to_end
from tomebench.sweeps.plan import plan_cells, plan_sweep
from tomebench.sweeps.rows import ACCURACY_SESSIONS, build_rows
from tomebench.sweeps.store import Store
from tomebench.sweeps.timing import measure_memory, time_cells


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
    keep_memory()
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
        job = Job(config, store, device, loaded, planned, batch_size, image_set, should_stop)
        yield Planned(len(planned), loaded.timm_id, len(store.rounds()), len(store.done_chunks()))
        yield from _check_baseline(job)
        loaded.model.train(config.mode == "train")
        session = store.begin_session(describe(device, threads))
        yield from time_cells(job, session)
        yield from measure_memory(job)
        if image_set is not None:
            yield from measure_end_to_end(job, image_set)
            yield from _count_top1(job, image_set, session)
        yield Finished(tuple(build_rows(store)), directory)


def _count_top1(job: Job, image_set: ImageSet, session: int) -> Iterator[Event]:
    """One pass over the images: every batch is decoded once and run through every cell."""
    config, store = job.config, job.store
    preprocessing = Preprocessing.from_model(job.loaded.model, config.img_size)
    total, done = len(image_set), store.done_chunks()
    yield Phase("accuracy", float(total))
    seen = sum(min(job.batch_size, total - index * job.batch_size) for index in done)
    workers = default_workers(total, usable_cpus()) if config.workers is None else config.workers
    live = job.live()
    for batch in batches(image_set, preprocessing.transform(), job.batch_size, workers=workers, skip=done):
        while True:
            models = {key: _stoppable(job, job.passes.forward(key)) for key in live}
            try:
                chunk = predict(models, batch, job.device, weights_dtype(config))
                break
            except CellFailed as failure:
                yield job.failed(failure)
                live.remove(failure.key)
        store.put(ACCURACY_SESSIONS, sorted({session, *(store.get(ACCURACY_SESSIONS) or ())}))
        store.add_chunk(chunk)
        seen += batch.n_valid
        yield Progress("accuracy", float(seen), float(total), "images", "")


def _check_baseline(job: Job) -> Iterator[Event]:
    """The wrapped model at r = 0 must be the unwrapped one; anything else would measure another model."""
    images = job.inputs[0]
    half = job.config.mode == "train" and job.config.dtype in ("bf16", "fp16")
    both = (job.passes.models[job.baseline], job.loaded.model)
    try:
        with torch.inference_mode(), torch.autocast(job.device.type, DTYPES[job.config.dtype], enabled=half):
            wrapped, unwrapped = (guarded(job.baseline, model)(images).float() for model in both)
    except CellFailed as failure:
        yield job.failed(failure)  # which raises: without the baseline nothing can be compared
        return
    if not unwrapped.isfinite().all():
        yield Note("the unwrapped model gives NaN or infinite logits; check its weights and --dtype")
    same = (wrapped == unwrapped) | (wrapped.isnan() & unwrapped.isnan())
    if same.all():
        return
    tolerance = 0.05 if job.config.dtype in ("bf16", "fp16") else 1e-3
    worst = (wrapped - unwrapped)[~same].abs().max().item()
    if not worst <= tolerance * max(unwrapped.abs().max().item(), 1.0):  # NaN is not within any tolerance
        raise UnsupportedModelError(
            f"{job.loaded.timm_id}: the wrapped model at r = 0 differs from the model itself by up to {worst:.2g}; "
            "its forward does something that merging does not know"
        )
    yield Note(f"r = 0 differs from the unwrapped model by up to {worst:.2g} (rounding)")


def _stoppable(job: Job, forward: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """A forward pass that is not begun once the sweep is to stop: with many cells a batch can take long."""

    def run(images: Tensor) -> Tensor:
        job.stop_if_asked()
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
