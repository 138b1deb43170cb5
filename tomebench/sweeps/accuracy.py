"""Count the top-1 of every cell: each batch of images is decoded once, run through all models, and committed.

Which images form a batch depends on the image list and the batch size only. So an image always has the same neighbours,
and its logits the same bits, whatever was evaluated before and however many processes share the work. A cell that a
later sweep adds is evaluated on the same batches; the other cells are not run on them again.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tomebench.datasets.images import ImageSet
from tomebench.datasets.loader import batch_count
from tomebench.errors import Interrupted, RankError
from tomebench.measure.device import lost
from tomebench.measure.predict import predict
from tomebench.ranks.group import Ranks
from tomebench.schema import CellPredictions, Chunk, ImageState, Status
from tomebench.sweeps.board import Boards
from tomebench.sweeps.events import Event, Note, Phase, Progress
from tomebench.sweeps.failures import CellFailed, blamed
from tomebench.sweeps.inputs import Reading
from tomebench.sweeps.job import Job
from tomebench.sweeps.made import changed, name_of, unlike_here
from tomebench.sweeps.passes import Passes


@dataclass(frozen=True)
class Evaluated:
    """Result of evaluating one batch: predictions by cell, and the cells that failed on it."""

    chunk: Chunk
    failures: tuple[tuple[str, Status, str], ...] = ()  # (cell key, status, error) of cells that failed on it

    def to_json(self) -> str:
        """JSON that :meth:`from_json` reads back."""
        cells = {
            key: [p.top1.tolist(), np.packbits(p.in_top5).tolist(), p.ties, p.nonfinite]
            for key, p in self.chunk.predictions.items()
        }
        return json.dumps(
            [self.chunk.index, self.chunk.seconds, self.chunk.waited, cells, self.failures, self.chunk.read],
            allow_nan=False,
        )

    @classmethod
    def from_json(cls, text: str) -> Evaluated:
        """Inverse of :meth:`to_json`."""
        index, seconds, waited, cells, failures, read = json.loads(text)
        predictions = {
            key: CellPredictions(
                np.array(top1, np.uint16),
                np.unpackbits(np.array(bits, np.uint8), count=len(top1)).astype(np.bool_),
                ties,
                nonfinite,
            )
            for key, (top1, bits, ties, nonfinite) in cells.items()
        }
        states = tuple(ImageState(*each) for each in read)
        chunk = Chunk(index, predictions, seconds=seconds, waited=waited, read=states)
        return cls(chunk, tuple((key, status, why) for key, status, why in failures))


def evaluate(
    passes: Passes,
    reading: Reading,
    work: Sequence[tuple[int, Sequence[str]]],
    ranks: Ranks,
    stop_if_asked: Callable[[], None],
) -> Iterator[Evaluated]:
    """Evaluate batches one after the other; a cell that fails is left out from then on.

    Args:
        passes: forward passes of all cells.
        reading: loads the batches.
        work: indices of the batches, in ascending order, each with the keys of the cells to run.
        ranks: this process and its peers.
        stop_if_asked: raises when the sweep is to stop or cannot go on; called before every pass.
    """
    failed: set[str] = set()

    def watched(key: str) -> Callable[[Tensor], Tensor]:
        forward = passes.forward(key)

        def run(images: Tensor) -> Tensor:
            stop_if_asked()  # a batch goes through every cell, which can take long
            with ranks.one_pass(key, compiles=reading.config.compile):
                logits = forward(images)
                if logits.is_cuda:
                    with blamed(key, len(images)):
                        torch.cuda.synchronize(logits.device)  # CUDA runs asynchronously: errors surface here
                return logits

        return run

    asked, batches = time.perf_counter(), reading.batches([index for index, _ in work])
    over = False  # every cell that the remaining batches are for has failed
    for number, (index, keys) in enumerate(work):
        if over:
            yield Evaluated(Chunk(index, {}))
            continue
        with ranks.allow(reading.patience):
            batch = next(batches)
        came, failures = time.perf_counter(), []
        while True:
            live = [key for key in keys if key not in failed]
            if not live:
                chunk = Chunk(index, {})
                break
            try:
                chunk = predict({key: watched(key) for key in live}, batch, reading.prepare)
                break
            except CellFailed as failure:
                if failure.key == passes.baseline or lost(reading.device):  # then no cell can go on
                    raise
                failures.append((failure.key, failure.status, str(failure)))
                failed.add(failure.key)
                over = failed.issuperset(key for _, rest in work[number:] for key in rest)
        now = time.perf_counter()
        yield Evaluated(dataclasses.replace(chunk, seconds=now - asked, waited=came - asked), tuple(failures))
        asked = time.perf_counter()


def count_top1(
    job: Job, listed: ImageSet, reading: Reading, session: int, ranks: Ranks, boards: Boards
) -> Iterator[Event]:
    """Evaluate the batches that are asked for, together with the other ranks; commit each one when it is done.

    Args:
        job: the sweep; only the cells that it asks for are run.
        listed: the images as they were listed.
        reading: loads those of them that can be decoded.
        session: number of this session, stored with each batch.
        ranks: this process and its peers.
        boards: says which cells are evaluated on which batches.
    """
    store, total = job.store, len(reading.image_set)
    known = store.read_states()
    board = boards(job, reading.image_set)
    images = [
        min(job.batch_size, total - index * job.batch_size) for index in range(batch_count(total, job.batch_size))
    ]
    yield Phase("accuracy", float(total))
    ranks.publish(
        {
            "batch_size": job.batch_size,
            "threads": torch.get_num_threads(),
            "cells": [cell.cell.key for cell in job.cells],
            "begun": [job.cells[0].cell.method, job.cells[0].cell.schedule],
            "images": reading.image_set.info.digest,
            "left_out": _left_out(listed, reading.image_set),
        }
    )
    work = board.next(job.live())
    counter = _Counter(images, store.done_chunks() - {index for index, _ in work})

    def commit(found: Evaluated) -> Iterator[Event]:
        for key, status, why in found.failures:
            if key in job.live():
                yield job.failed(CellFailed(key, status, why))
        if found.chunk.predictions:
            before = known.setdefault(found.chunk.index, found.chunk.read)
            for place, (was, now) in enumerate(zip(before, found.chunk.read, strict=True)):
                if was.digest != now.digest:
                    raise changed(reading.image_set, found.chunk.index * job.batch_size + place)
            store.add_chunk(dataclasses.replace(found.chunk, session=session))
            board.add(found.chunk)
        waiting.discard(found.chunk.index)
        yield counter.progress(found.chunk.index)

    def commit_received() -> Iterator[Event]:
        for rank, text in ranks.received():
            found = Evaluated.from_json(text)
            index = unlike_here(reading.image_set, job.batch_size, found.chunk.index, found.chunk.read)
            if index is not None:
                raise RankError(
                    f"rank {rank} has another image {name_of(reading.image_set, index)} than rank 0; give all "
                    "processes the same --data"
                )
            yield from commit(found)

    told = 0
    waiting: set[int] = set()
    try:
        while work:
            waiting |= {index for index, _ in work}
            ranks.hand_out(_packed(work))
            for found in evaluate(job.passes, reading, ranks.share(work), ranks, job.stop_if_asked):
                yield from commit(found)
                yield from commit_received()
                yield from map(Note, reading.troubles[told:])
                told = len(reading.troubles)
            while waiting:
                job.stop_if_asked()
                yield from commit_received()
                time.sleep(0.02)
            work = board.next(job.live())
    except CellFailed as failure:
        yield job.failed(failure)  # raises: the baseline failed, or the GPU is lost
    except (Interrupted, RankError):
        with suppress(RankError):
            yield from commit_received()  # what the other ranks have evaluated is kept
        raise
    board.close(store)


def _packed(work: Sequence[tuple[int, Sequence[str]]]) -> list[tuple[list[str], list[int]]]:
    """The same work grouped by equal sets of cells, which is shorter to send: most batches lack the same cells."""
    batches: dict[tuple[str, ...], list[int]] = {}
    for index, keys in work:
        batches.setdefault(tuple(keys), []).append(index)
    return [(list(keys), indices) for keys, indices in batches.items()]


def _unpacked(packed: Sequence[tuple[list[str], list[int]]]) -> list[tuple[int, list[str]]]:
    """Inverse of :func:`_packed`."""
    return sorted((index, keys) for keys, indices in packed for index in indices)


def _left_out(listed: ImageSet, image_set: ImageSet) -> list[int]:
    """Indices of the listed images that are left out because they cannot be decoded."""
    if image_set is listed:
        return []
    kept = set(image_set.names)
    return [index for index, name in enumerate(listed.names) if name not in kept]


def help_out(
    passes: Passes, reading: Reading, assigned: Mapping[str, Any], ranks: Ranks, stop: Callable[[], None]
) -> None:
    """Evaluate this rank's share of the batches (rank 1 and up) and send the predictions to rank 0.

    Args:
        passes: forward passes of all cells.
        reading: loads the same images as rank 0.
        assigned: message of rank 0: cells, digest of the image list.
        ranks: this process and its peers.
        stop: raises when the sweep is to stop or cannot go on.

    Raises:
        RankError: images, model or weights differ from those of rank 0; or another rank is gone.
    """
    if assigned["images"] != reading.image_set.info.digest:
        raise RankError("it finds other images than rank 0; give every machine the same --data", quiet=True)
    if assigned["cells"] != list(passes.models):
        raise RankError("its model or weights are not those of rank 0; give every machine the same files", quiet=True)
    while not ranks.over():
        for packed in ranks.handed_out():
            for found in evaluate(passes, reading, ranks.share(_unpacked(packed)), ranks, stop):
                ranks.send(found.to_json())
        stop()
        time.sleep(0.02)


class _Counter:
    """Number of images evaluated so far and their rate, for progress events.

    Args:
        images: how many are in each batch.
        done: indices of the batches that are done.
    """

    def __init__(self, images: Sequence[int], done: Collection[int]) -> None:
        self._images, self._began = images, time.monotonic()
        self._seen, self._passed = {*done}, 0

    def progress(self, index: int) -> Progress:
        self._seen.add(index)
        self._passed += self._images[index]
        rate = self._passed / max(time.monotonic() - self._began, 1e-9)
        done = sum(self._images[each] for each in self._seen)
        return Progress("accuracy", float(done), float(sum(self._images)), "images", f"{rate:.1f} images/s")
