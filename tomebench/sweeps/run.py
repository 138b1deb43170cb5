"""Run a sweep from loading the model to the table: time all cells in rounds, then count their top-1.

A generator of events. Every round and every evaluated batch is committed at once, so stopping at any moment (Ctrl-C,
kill, a full disk) loses at most the one in progress, and the same call resumes from there.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from functools import partial
from pathlib import Path

import torch

from tomebench.ambient import usual_state
from tomebench.datasets.checks import leave_out
from tomebench.datasets.images import ImageSet
from tomebench.errors import ConfigError, DeviceError, Interrupted, UnsupportedModelError
from tomebench.measure.allocator import keep_memory
from tomebench.measure.device import arithmetic, device_name, lost, resolve_device
from tomebench.measure.testbed import THIS_PROCESS, describe
from tomebench.models.create import LoadedModel, build_model, load_model
from tomebench.ranks.group import Ranks
from tomebench.ranks.heartbeat import FIRST
from tomebench.ranks.place import Place
from tomebench.reduction.attention import check_route
from tomebench.runs.accuracy_columns import PROCESSES
from tomebench.runs.database import FILE
from tomebench.runs.lock import held
from tomebench.runs.race_facts import reopen
from tomebench.runs.rows import LIMIT, REFERENCE_NAME, build_rows, limit_of
from tomebench.runs.store import Store
from tomebench.runs.targets import budget_rank, keep_budgets, keep_processes
from tomebench.runs.testbed import PROCESS
from tomebench.schema import REFERENCE
from tomebench.sweeps.accuracy import count_top1, help_out
from tomebench.sweeps.baseline import check_baseline
from tomebench.sweeps.batch_size import choose_batch_size
from tomebench.sweeps.board import Boards, board_of
from tomebench.sweeps.cells import about_training, resolve_cells, resolve_sweep
from tomebench.sweeps.config import SweepConfig
from tomebench.sweeps.enough import too_few
from tomebench.sweeps.estimate import in_words
from tomebench.sweeps.events import Estimate, Event, Facts, Finished, Note, Phase, Planned, Progress, TooFew
from tomebench.sweeps.failures import CellFailed, ending, lost_with, no_room_is_an_input_error
from tomebench.sweeps.inputs import Reading, list_images, preprocessing_of, usable_images, weights_dtype
from tomebench.sweeps.job import LOST, Job, stops
from tomebench.sweeps.made import check_code, check_unchanged, keep_made, made_by, sample_digests
from tomebench.sweeps.passes import Passes
from tomebench.sweeps.pipeline import measure_end_to_end
from tomebench.sweeps.processes import in_fresh_processes
from tomebench.sweeps.reference import load_reference, resolve_reference
from tomebench.sweeps.resume import merged, processes_of, unlike
from tomebench.sweeps.selector import time_selectors
from tomebench.sweeps.timing import measure_energy, measure_memory, processes_left, time_cells
from tomebench.sweeps.tokens_left import count_tokens


def run_sweep(
    config: SweepConfig,
    directory: Path,
    should_stop: Callable[[], bool],
    given: LoadedModel | None = None,
    *,
    fresh: bool = False,
    first: bool = True,
    facts: Facts = (),
    boards: Boards = board_of,
    together: Collection[str] = (),
) -> Iterator[Event]:
    """Measure every cell of a sweep, or resume one that was stopped.

    Args:
        config: what to measure.
        directory: run folder; created, or continued where :func:`tomebench.sweeps.resume.unlike` finds no difference.
        should_stop: asked between two bursts, and between two cells of an evaluated batch.
        given: a model that the caller hands over; by default the one that the configuration names.
        fresh: this is one of the processes of ``config.processes``, which times the cells that too few have timed; by
            default such processes are started, one after another.
        first: this is the first of those processes, which retries cells that failed in an earlier sweep and checks the
            images.
        facts: names and values to be stored with the run.
        boards: says which cells are evaluated on which images; by default what the configuration asks for.
        together: keys of the only cells that are timed, in rounds that have them all; by default each of the cells is
            timed until it is known well enough.

    Yields:
        Events; the last is ``Finished`` with one row per cell of the folder, whichever sweep measured it. It has no
        rows in a process of rank 1 and up, and in one that other processes follow.

    Raises:
        InputError: the model, data, device or folder cannot be used as asked; nothing was measured.
        StorageError: results cannot be written; what was committed before is kept.
        RankError: another process that shares the sweep is gone or has given up.
        Interrupted: ``should_stop()`` became true.
    """
    # Only rank 0 has chosen the folder, so only it knows what is there.
    count = config.process_count if fresh or Place.here().rank else processes_of(directory, config)
    if not fresh and count > 1:
        if boards is not board_of:
            raise ConfigError(f"{directory} is timed in several processes, which stop no cell; use another --out")
        config = config.model_copy(update={"processes": count})
        yield from in_fresh_processes(config, directory, should_stop, given=given is not None, facts=facts)
        return
    with usual_state(), Ranks.join() as ranks:
        try:
            device = _device(config, ranks.place)
            check_route(config.attention, device, config.dtype, training=config.mode == "train")
            if config.cuda_graphs and device.type != "cuda":
                raise DeviceError(f"--cuda-graphs needs a CUDA GPU, not {device}; leave it out")
            if config.mode == "train" and getattr(given and given.model, "grad_checkpointing", False):
                raise UnsupportedModelError(
                    "the model computes activations anew in backward passes, which one that merges does not; a step "
                    "would take other time and memory: call its set_grad_checkpointing(False)"
                )
            built = given or build_model(config.model_spec, meta=True)
            listed = list_images(config, built.head) if config.data is not None else None
            resolve_sweep(config, listed, built)  # refuses what cannot be combined before anything slow happens
            resolve_reference(config, built)
            keep_memory()

            def asked() -> bool:
                if not should_stop():
                    ranks.check()
                    return False
                return True

            run = partial(_lead, facts=facts, boards=boards, together=together) if ranks.leads else _follow
            with arithmetic(config.dtype, config.threads), no_room_is_an_input_error():
                yield from run(config, given, listed, directory, asked, device, ranks, first, fresh)
        except Interrupted:
            ranks.explain()
            raise


def _load(config: SweepConfig, given: LoadedModel | None, device: torch.device) -> LoadedModel:
    """Load the model of a configuration."""
    # Speed does not depend on the weights, so they are fetched for accuracy only.
    loaded = given or load_model(config.model_spec, pretrained=config.data is not None)
    loaded.model.to(device=device, dtype=weights_dtype(config))
    return loaded


def _lead(
    config: SweepConfig,
    given: LoadedModel | None,
    listed: ImageSet | None,
    directory: Path,
    should_stop: Callable[[], bool],
    device: torch.device,
    ranks: Ranks,
    first: bool,
    fresh: bool,
    facts: Facts = (),
    boards: Boards = board_of,
    together: Collection[str] = (),
) -> Iterator[Event]:
    """The whole sweep, as rank 0 or a process without peers runs it."""
    stop_if_asked = stops(should_stop)
    yield Phase("load", None)
    if (config.verify or config.allow_missing) and (directory / FILE).exists():
        # Checking every image takes minutes, so a folder that cannot be continued is refused before.
        with Store.open(directory, config.stored(), unlike) as store:
            check_code(store)
    image_set = listed
    if listed is not None and (first or config.allow_missing):
        image_set = usable_images(config, listed, stop_if_asked)
    stop_if_asked()
    yield _loading(1, "weights")
    loaded = _load(config, given, device)
    made = made_by(loaded, device, listed, config.methods, config.predictors)
    ranks.meet(lambda: _facts(made, listed), stop_if_asked)
    yield _loading(2, "first passes")
    with Store.open(directory, config.stored(), unlike) as store, held(directory, fresh):
        keep_made(store, made)
        if image_set is not None:
            store.put_images(image_set.info)
            if first and (evaluated := store.get("batch_size")):
                check_unchanged(store, image_set, evaluated, stop_if_asked)
        threads = _threads(config, store)
        with ranks.allow(FIRST):
            batch_size = store.get("batch_size") or _batch_size(config, loaded, device)
        store.put("batch_size", batch_size)
        begun = next(((cell.method, cell.schedule) for cell, _ in store.cells() if cell.is_baseline), None)
        at = device_name(device)
        cells = resolve_cells(config, loaded, weights=loaded.weights, batch_size=batch_size, device=at, begun=begun)
        keys = [cell.cell.key for cell in cells]
        known = {cell.key for cell, _ in store.cells()} if store.has_results else set()
        more_exact = store.has_results and budget_rank(config.budget) > budget_rank(str(store.config.get("budget")))
        more_exact &= config.process_count == 1  # ended processes cannot add rounds
        stored = [(cell.cell, cell.resolved) for cell in cells]
        store.checked_cells(stored)  # raises before anything is written: a refused sweep changes nothing
        keep_budgets(store, keys, config.budget)
        keep_processes(store, keys, config.process_count)
        store.put_cells(stored, merged(store.config, config.stored()))
        reopen(store)
        for fact in facts:
            store.put(*fact)
        if "max_drop" in config.model_fields_set or store.get(LIMIT) is None:
            store.put(LIMIT, config.max_drop)
        if first:
            _forget_failures(store, keys)
        beside = resolve_reference(config, loaded)
        if beside is not None:
            store.put(REFERENCE_NAME, [beside.name, cells[0].cell.key if beside.own else REFERENCE])
        compared = None if beside is None else load_reference(config, beside, cells[0], batch_size, device)
        job = Job(config, store, device, loaded, cells, batch_size, image_set, should_stop, compared, together)
        yield from map(Note, (*loaded.notes, *about_training(config, loaded, image_set)))
        # The tag names timm's weights, not those of a checkpoint.
        name = loaded.timm_id if config.checkpoint is None else loaded.timm_id.partition(".")[0]
        yield Planned(len(cells), name, len(store.rounds()), len(store.done_chunks()))
        new = cells if more_exact else [cell for cell in cells if cell.cell.key not in known]
        if not new and first and processes_left(job):
            new = cells
        if new:
            timed = new if cells[0] in new else [cells[0], *new]  # the baseline is timed in the same rounds
            images = 0 if image_set is None or known.issuperset(keys) else len(image_set)
            yield Estimate(in_words(config, timed, batch_size, images, device, beside))
            if images and (text := too_few(store.cells(), images, limit_of(store), labels=config.labels)):
                yield TooFew(text)
        stop_if_asked()
        reading = None
        if image_set is not None:
            reading = _reading(config, image_set, loaded, batch_size, device, ranks)
        with ranks.allow(FIRST):  # any of these passes may be the first, which compiles
            yield from check_baseline(job)
            yield _loading(3, "")
            loaded.model.train(config.mode == "train")
            processes = {PROCESSES: ranks.place.size} if ranks.place.size > 1 else {}
            session = store.begin_session({**describe(device, threads), **processes, PROCESS: THIS_PROCESS})
            if config.budget != "none":
                yield from time_cells(job, session)
                if left := processes_left(job):
                    yield Finished((), directory, store.config, processes_left=left)
                    return
                yield from time_selectors(job)
                yield from measure_memory(job)
                yield from measure_energy(job)
            if reading is not None:
                yield from count_tokens(job, reading)
                yield from measure_end_to_end(job, reading, session)
        if listed is not None and reading is not None:
            yield from count_top1(job, listed, reading, session, ranks, boards)
        store.check_there()
        yield Finished(tuple(build_rows(store)), directory, store.config, max_drop=limit_of(store))


def _follow(
    config: SweepConfig,
    given: LoadedModel | None,
    listed: ImageSet | None,
    directory: Path,
    should_stop: Callable[[], bool],
    device: torch.device,
    ranks: Ranks,
    first: bool,
    fresh: bool,
) -> Iterator[Event]:
    """The sweep of rank 1 and up: load, wait while rank 0 checks images and times, evaluate a share of the batches."""
    stop_if_asked = stops(should_stop)
    yield Phase("load", None)
    loaded = _load(config, given, device)
    made = made_by(loaded, device, listed, config.methods, config.predictors)
    ranks.meet(lambda: _facts(made, listed), stop_if_asked)
    if listed is not None:
        assigned = ranks.assignment(stop_if_asked)
        image_set = leave_out(listed, assigned["left_out"], "") if assigned["left_out"] else listed
        torch.set_num_threads(assigned["threads"])  # another number of threads may round sums differently
        size, begun = assigned["batch_size"], tuple(assigned["begun"])
        cells = resolve_cells(
            config, loaded, weights=loaded.weights, batch_size=size, device=device_name(device), begun=begun
        )
        passes = Passes(config, loaded.model, cells, device)
        try:
            help_out(passes, _reading(config, image_set, loaded, size, device, ranks), assigned, ranks, stop_if_asked)
        except CellFailed as failure:
            if lost(device):
                who = next(cell.name for cell in cells if cell.cell.key == failure.key)
                raise lost_with(failure, who, device) from failure
            raise ending(failure, "r = 0", config) from failure
    yield Finished((), directory)


def _loading(done: int, what: str) -> Progress:
    return Progress("load", float(done), 3.0, "steps", what)


def _facts(made: dict[str, str], listed: ImageSet | None) -> dict[str, str]:
    """Provenance that must be the same in all ranks, with digests of some images."""
    return made if listed is None else made | sample_digests(listed)


def _device(config: SweepConfig, place: Place) -> torch.device:
    """Device of the configuration; processes that share a machine have one GPU each."""
    device = resolve_device(config.device, config.dtype)
    if device.type == "cuda" and place.local_size > 1:
        if ":" in config.device:
            raise DeviceError(f"--device {device} would be shared by {place.local_size} processes; use --device cuda")
        if place.local_rank >= (count := torch.cuda.device_count()):
            raise DeviceError(f"{place.local_size} processes need as many GPUs, there are {count}; start fewer")
        torch.cuda.set_device(place.local_rank)
    return device


def _threads(config: SweepConfig, store: Store) -> int:
    """CPU threads of every session of a run: as many as in the first, since others may round sums differently."""
    if config.threads is None and (before := store.get("threads")):
        torch.set_num_threads(before)
    store.put("threads", torch.get_num_threads())
    return torch.get_num_threads()


def _reading(
    config: SweepConfig, image_set: ImageSet, loaded: LoadedModel, batch_size: int, device: torch.device, ranks: Ranks
) -> Reading:
    preprocessing = preprocessing_of(config, loaded.model)
    return Reading(config, image_set, preprocessing, batch_size, device, ranks.place.local_size)


def _forget_failures(store: Store, keys: Collection[str]) -> None:
    """Forget the failures of the cells asked for, so that a resumed run tries them again.

    Except of cells that left the GPU unusable: they would end every session before the cells after them are measured.
    """
    for key in (store.statuses().keys() & keys) - {*(store.get(LOST) or ())}:
        store.set_status(key, "ok")


def _batch_size(config: SweepConfig, loaded: LoadedModel, device: torch.device) -> int:
    if isinstance(config.batch_size, int):
        return config.batch_size
    preprocessing = preprocessing_of(config, loaded.model)
    return choose_batch_size(config, loaded.model, preprocessing, device)
