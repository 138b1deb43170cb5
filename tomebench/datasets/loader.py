"""Images to batches, in one fixed order, decoded here or in worker processes.

Batch i holds images ``i * batch_size`` onwards, whatever the number of workers and whatever was done before: an image
always meets the same neighbours, so its logits are the same to the last bit when a run is resumed.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import warnings
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from multiprocessing.context import BaseContext
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from tomebench.datasets.decode import printable
from tomebench.datasets.images import ImageSet
from tomebench.errors import DataError

Transform = Callable[[Image.Image], Tensor]
"""RGB image to float tensor [3, H, W], the same H and W for every image."""

MAX_WORKERS = 16
"""More than this compete for memory bandwidth and shared memory rather than help."""
_WORTH_A_WORKER = 1000
"""Images below which starting workers (they import torch) takes longer than decoding."""


@dataclass(frozen=True, eq=False)
class Batch:
    """``batch_size`` images. The last batch repeats its last image, so that there is one shape only."""

    index: int
    images: Tensor  # [B, 3, H, W]
    n_valid: int  # images before the padding, in [1, B]
    labels: Tensor  # int64 [B], padded alike


def batch_count(n_images: int, batch_size: int) -> int:
    """How many batches hold ``n_images`` images."""
    return -(-n_images // batch_size)


def default_workers(n_images: int, cpus: float) -> int:
    """How many worker processes suit a data set.

    Args:
        n_images: images to decode; none are started for so few that starting takes longer.
        cpus: CPUs that this process may use, quotas included.
    """
    return 0 if n_images < _WORTH_A_WORKER else max(1, min(int(cpus), MAX_WORKERS))


def batches(
    image_set: ImageSet, transform: Transform, batch_size: int, *, workers: int, skip: Collection[int] = ()
) -> Iterator[Batch]:
    """Decode and preprocess a data set, batch by batch in order.

    Args:
        image_set: what to read.
        transform: RGB image to tensor [3, H, W]; picklable if there are workers.
        batch_size: images per batch, at least 1.
        workers: processes that decode ahead; 0 decodes in this one. They are started fresh, not forked from here (this
            process may hold threads, a CUDA context or locks), so a script that asks for workers needs the usual
            ``if __name__ == "__main__":``.
        skip: indices of batches that are not wanted; their images are not opened.

    Raises:
        DataError: an image cannot be decoded (names the file), or a worker process died.
    """
    skip = frozenset(skip)
    wanted = [index for index in range(batch_count(len(image_set), batch_size)) if index not in skip]
    reader = _Reader(image_set, transform, batch_size)
    if workers == 0 or not wanted:
        for index in wanted:
            yield _unwrap(reader[index])
        return
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="This DataLoader will create")  # the caller knows the machine
        loader = DataLoader(
            reader,
            batch_size=None,  # one item of the reader is one whole batch
            sampler=wanted,
            num_workers=min(workers, len(wanted)),
            multiprocessing_context=_context(),
            worker_init_fn=_start_worker,
        )
    stream: Any = iter(loader)
    try:
        for _ in wanted:
            yield _unwrap(_next(stream))
    finally:
        # Not left to the garbage collector, which closes the pipes to the workers before it tells them to stop.
        stream._shutdown_workers()


def _next(stream: Iterator[Batch | DataError]) -> Batch | DataError:
    try:
        return next(stream)
    except (RuntimeError, OSError, EOFError) as exc:
        if "in DataLoader worker process" in str(exc):
            raise  # an exception of the worker's code, brought here by torch: a bug
        # A dead worker shows as torch's RuntimeError, or as a broken connection if its last batch was on the way.
        raise DataError(
            f"a process that reads images died ({printable(exc) or type(exc).__name__}); "
            "it may have run out of memory: use fewer --workers, or 0"
        ) from exc


@dataclass(frozen=True)
class _Reader(Dataset["Batch | DataError"]):
    """Batches by index. An error that names a file is returned, because raising it in a worker would bury it."""

    image_set: ImageSet
    transform: Transform
    batch_size: int

    def __getitem__(self, index: int) -> Batch | DataError:
        first = index * self.batch_size
        members = range(first, min(first + self.batch_size, len(self.image_set)))
        try:
            images = torch.stack([self.transform(self.image_set.open(i)) for i in members])
        except DataError as error:
            return error.with_traceback(None)
        labels = torch.from_numpy(self.image_set.info.labels[first : members.stop].copy())
        return Batch(index, self._pad(images), len(members), self._pad(labels))

    def _pad(self, values: Tensor) -> Tensor:
        missing = self.batch_size - len(values)
        return torch.cat([values, values[-1:].expand(missing, *values.shape[1:])]) if missing else values


def _unwrap(item: Batch | DataError) -> Batch:
    if isinstance(item, DataError):
        raise item
    return item


def _context() -> BaseContext:
    """Where workers come from: a server process that has imported the heavy modules once and forks from there."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context: Any = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, "timm.data"])
    return context


def _start_worker(_worker_id: int) -> None:
    # Ctrl-C reaches the whole process group; the parent decides what happens and the batch in progress is still wanted.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # The parent of a forked-from-server worker is the server, so torch's own watch would not notice a killed sweep.
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
