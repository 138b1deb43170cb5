"""Top-1 of every cell in one pass over the images: each batch is decoded once and run through all of them.

Which images are in a batch depends on the list and the batch size only. So an image has the same neighbours, and its
logits the same bits, whatever was evaluated before and however many processes share the work.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tomebench.datasets.images import ImageSet
from tomebench.datasets.loader import batch_count
from tomebench.errors import Interrupted, RankError
from tomebench.measure.accuracy import predict
from tomebench.measure.device import lost
from tomebench.schema import CellPredictions, Chunk, Status
from tomebench.sweeps.events import Event, Note, Phase, Progress
from tomebench.sweeps.forward import CellFailed, Passes, blamed
from tomebench.sweeps.job import Job
from tomebench.sweeps.ranks import Ranks
from tomebench.sweeps.reading import Reading


@dataclass(frozen=True)
class Evaluated:
    """What came of one batch."""

    chunk: Chunk
    failures: tuple[tuple[str, Status, str], ...] = ()  # cell key, status, text: of cells that failed on this batch

    def to_json(self) -> str:
        """JSON that :meth:`from_json` reads back."""
        cells = {
            key: [p.top1.tolist(), np.packbits(p.in_top5).tolist(), p.ties, p.nonfinite]
            for key, p in self.chunk.predictions.items()
        }
        return json.dumps(
            [self.chunk.index, self.chunk.seconds, self.chunk.waited, cells, self.failures], allow_nan=False
        )

    @classmethod
    def from_json(cls, text: str) -> Evaluated:
        """Inverse of :meth:`to_json`."""
        index, seconds, waited, cells, failures = json.loads(text)
        predictions = {
            key: CellPredictions(
                np.array(top1, np.uint16),
                np.unpackbits(np.array(bits, np.uint8), count=len(top1)).astype(np.bool_),
                ties,
                nonfinite,
            )
            for key, (top1, bits, ties, nonfinite) in cells.items()
        }
        chunk = Chunk(index, predictions, seconds=seconds, waited=waited)
        return cls(chunk, tuple((key, status, why) for key, status, why in failures))


def evaluate(
    passes: Passes,
    reading: Reading,
    indices: Sequence[int],
    live: Sequence[str],
    ranks: Ranks,
    stop_if_asked: Callable[[], None],
) -> Iterator[Evaluated]:
    """Run cells on batches.

    Args:
        passes: of all cells.
        reading: where the batches come from.
        indices: of the batches, in ascending order.
        live: keys of the cells to run; one that fails is not run again.
        ranks: this process and its peers.
        stop_if_asked: raises when the sweep is to stop or cannot go on; called before every pass.
    """
    live = list(live)

    def watched(key: str) -> Callable[[Tensor], Tensor]:
        forward = passes.forward(key)

        def run(images: Tensor) -> Tensor:
            stop_if_asked()  # with many cells a batch can take long
            with ranks.one_pass(key, compiles=reading.config.compile):
                logits = forward(images)
                if logits.is_cuda:
                    with blamed(key, len(images)):
                        torch.cuda.synchronize(logits.device)  # until then the pass has only been asked for
                return logits

        return run

    asked, batches = time.perf_counter(), reading.batches(indices)
    while True:
        with ranks.allow(reading.patience):
            batch = next(batches, None)
        if batch is None:
            return
        came, failures = time.perf_counter(), []
        while True:
            try:
                chunk = predict({key: watched(key) for key in live}, batch, reading.prepare)
                break
            except CellFailed as failure:
                if failure.key == passes.baseline or lost(reading.device):  # which no other cell would survive
                    raise
                failures.append((failure.key, failure.status, str(failure)))
                live.remove(failure.key)
        now = time.perf_counter()
        yield Evaluated(dataclasses.replace(chunk, seconds=now - asked, waited=came - asked), tuple(failures))
        asked = time.perf_counter()


def count_top1(job: Job, listed: ImageSet, reading: Reading, session: int, ranks: Ranks) -> Iterator[Event]:
    """Evaluate what is not in the store yet, together with the other ranks, and commit every batch as it is done."""
    store, total = job.store, len(reading.image_set)
    done = store.done_chunks()
    remaining = [index for index in range(batch_count(total, job.batch_size)) if index not in done]
    before = sum(min(job.batch_size, total - index * job.batch_size) for index in done)
    counter = _Counter(total, before)
    yield Phase("accuracy", float(total))
    ranks.publish(
        {
            "batch_size": job.batch_size,
            "threads": torch.get_num_threads(),
            "cells": [cell.cell.key for cell in job.planned],
            "images": reading.image_set.info.digest,
            "left_out": _left_out(listed, reading.image_set),
            "live": job.live(),
            "remaining": remaining,
        }
    )

    def commit(found: Evaluated) -> Iterator[Event]:
        for key, status, why in found.failures:
            if key in job.live():
                yield job.failed(CellFailed(key, status, why))
        store.add_chunk(dataclasses.replace(found.chunk, session=session))
        waiting.discard(found.chunk.index)
        yield counter.progress(found.chunk)

    def commit_received() -> Iterator[Event]:
        for text in ranks.received():
            yield from commit(Evaluated.from_json(text))

    told = 0
    waiting = set(remaining)
    try:
        for found in evaluate(job.passes, reading, ranks.share(remaining), job.live(), ranks, job.stop_if_asked):
            yield from commit(found)
            yield from commit_received()
            yield from map(Note, reading.troubles[told:])
            told = len(reading.troubles)
        while waiting:
            job.stop_if_asked()
            yield from commit_received()
            time.sleep(0.02)
    except CellFailed as failure:
        yield job.failed(failure)  # which raises: it is the baseline, or the GPU is lost
    except (Interrupted, RankError):
        with suppress(RankError):
            yield from commit_received()  # what the others have done is not lost with the one that is gone
        raise


def _left_out(listed: ImageSet, image_set: ImageSet) -> list[int]:
    """Indices of the listed images that are not evaluated."""
    if image_set is listed:
        return []
    kept = set(image_set.names)
    return [index for index, name in enumerate(listed.names) if name not in kept]


def help_out(passes: Passes, reading: Reading, plan: dict[str, Any], ranks: Ranks, stop: Callable[[], None]) -> None:
    """Evaluate the batches of a rank other than 0 and hand over what came of them.

    Args:
        passes: of all cells.
        reading: of the same images.
        plan: what rank 0 published.
        ranks: this process and its peers.
        stop: raises when the sweep is to stop or cannot go on.

    Raises:
        RankError: this process has other images or another model than rank 0, which rank 0 says; or somebody is gone.
    """
    if plan["images"] != reading.image_set.info.digest:
        raise RankError("it finds other images than rank 0; give every machine the same --data", quiet=True)
    if plan["cells"] != list(passes.models):
        raise RankError("its model or weights are not those of rank 0; give every machine the same files", quiet=True)
    for found in evaluate(passes, reading, ranks.share(plan["remaining"]), plan["live"], ranks, stop):
        ranks.send(found.to_json())
    while not ranks.over():
        stop()
        time.sleep(0.1)


class _Counter:
    """Images done and how fast."""

    def __init__(self, total: int, before: int) -> None:
        self._total, self._before, self._done, self._began = total, before, before, time.monotonic()

    def progress(self, chunk: Chunk) -> Progress:
        self._done += len(next(iter(chunk.predictions.values())).top1)
        rate = (self._done - self._before) / max(time.monotonic() - self._began, 1e-9)
        return Progress("accuracy", float(self._done), float(self._total), "images", f"{rate:.1f} images/s")
