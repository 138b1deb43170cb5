"""Data loader: decode and preprocess images into batches of a fixed order, here or in worker processes.

Batch i holds images ``i * batch_size`` onwards, whatever the number of workers and whichever batches are asked for: an
image always has the same neighbours, so its logits are the same to the last bit when a run is resumed.
"""

from __future__ import annotations

import secrets
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from tomebench.datasets.cache import PixelCache
from tomebench.datasets.decode import printable
from tomebench.datasets.images import ImageSet
from tomebench.datasets.workers import lack_of_room, outlive_tracker, script, start_worker, tracker, worker_context
from tomebench.errors import DataError, TomebenchError
from tomebench.identity import code_digest
from tomebench.schema import ImageState

Transform = Callable[[Image.Image], Tensor]
"""RGB image to uint8 tensor [3, H, W], the same H and W for every image."""

SECONDS = 60.0
SECONDS_PER_IMAGE = 0.25
_RARE = 100
"""Batches without a lost worker after which the next loss is tolerated again."""
_LOOKED_AT = 50
"""One of so many cached images is compared with the content of its file, not by size and times alone."""
_POLL = 2
"""Seconds between two checks that the workers are alive while a batch is awaited."""


@dataclass(frozen=True, eq=False)
class Batch:
    """``batch_size`` images. The last batch repeats its last image, so that there is one shape only."""

    index: int
    images: Tensor  # uint8 [B, 3, H, W]
    n_valid: int  # images before the padding, in [1, B]
    labels: Tensor  # int64 [B] or, with several right classes, [B, k]; padded alike
    read: tuple[ImageState, ...] = ()  # what the images before the padding were decoded from

    def pin_memory(self) -> Batch:
        """The same batch with its images in page-locked memory; torch's loader looks for this method."""
        return replace(self, images=self.images.pin_memory())


def batch_count(n_images: int, batch_size: int) -> int:
    """How many batches hold ``n_images`` images."""
    return -(-n_images // batch_size)


def time_limit(batch_size: int) -> float:
    """Seconds after which a batch counts as lost, as when a disk does not answer."""
    return SECONDS + batch_size * SECONDS_PER_IMAGE


def batches(
    image_set: ImageSet,
    transform: Transform,
    batch_size: int,
    *,
    workers: int,
    only: Collection[int] | None = None,
    cache: PixelCache | None = None,
    pin: bool = False,
    bytes_per_image: int = 0,
    trouble: Callable[[str], object] = lambda text: None,
) -> Iterator[Batch]:
    """Decode and preprocess a data set, batch by batch in order.

    A worker process that dies or hangs now and then costs time only: its batch is read in this process, and new workers
    are started.

    Args:
        image_set: what to read.
        transform: RGB image to uint8 tensor [3, H, W]; picklable if there are workers.
        batch_size: images per batch, at least 1.
        workers: processes that decode ahead; 0 decodes in this one. They are started fresh, not forked from here (this
            process may hold threads, a CUDA context or locks), so a script that asks for workers needs the usual
            ``if __name__ == "__main__":``.
        only: indices of the batches that are wanted, None for all; the images of others are not opened.
        cache: of preprocessed images, read and filled.
        pin: put batches in page-locked memory, from which copies to a GPU are asynchronous.
        bytes_per_image: of a preprocessed image, to see whether shared memory has room for the workers' batches.
        trouble: called with a sentence when a worker was lost, or none can be started.

    Raises:
        DataError: an image cannot be decoded (names the file), or worker processes die or hang again and again.
        StorageError: the cache cannot be written.
    """
    total = batch_count(len(image_set), batch_size)
    if workers and (lack := lack_of_room(min(workers, total), batch_size * bytes_per_image)) is not None:
        trouble(f"{lack}; images are read in this process")
        workers = 0
    waiting = list(range(total)) if only is None else sorted(only)
    reader = _Reader(image_set, transform, batch_size, cache)
    limit = time_limit(batch_size)
    since, delivered = _RARE, 0  # batches since the last lost worker, and from workers in all
    while waiting:
        try:
            for batch in _stream(reader, tuple(waiting), workers, limit, pin):
                yield batch
                del waiting[0]
                since, delivered = since + 1, delivered + 1
            return
        except _WorkerLost as error:
            if since < _RARE:
                how = "they may run out of memory or wait for a disk: use fewer --workers, or 0"
                if not delivered and (file := script()) is not None:
                    how = f"put what {file} does under if __name__ == '__main__':, or ask for no workers"
                raise DataError(f"processes that read images are lost again and again ({error}); {how}") from error
            since = 0
            trouble(f"a process that reads images was lost ({error}); its images are read in this one")
            yield _within(limit, reader, waiting[0])
            del waiting[0]


class _WorkerLost(Exception):
    """A worker process died, or gave no batch in time."""


def _stream(reader: _Reader, indices: Sequence[int], workers: int, limit: float, pin: bool) -> Iterator[Batch]:
    """Batches in the order of ``indices``; _WorkerLost if a worker dies or takes longer than ``limit`` seconds."""
    if workers == 0:
        for index in indices:
            yield _unwrap(reader[index])
        return
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="This DataLoader will create")  # the caller chose the number
        loader = DataLoader(
            reader,
            batch_size=None,  # one item of the reader is one whole batch
            sampler=indices,
            num_workers=min(workers, len(indices)),
            multiprocessing_context=worker_context(),
            worker_init_fn=start_worker,
            timeout=_POLL,
            pin_memory=pin,
        )
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="resource_tracker: process died")
            told = tracker()
            stream: Any = iter(loader)
    except OSError as error:
        where = tempfile.gettempdir()
        how = "use --workers 0"
        if "AF_UNIX" in str(error):  # names of such sockets have at most about a hundred bytes
            how = f"the folder for temporary files has a name of {len(where)} characters: set TMPDIR=/tmp, or {how}"
        raise DataError(f"no process that reads images can be started ({printable(error)}); {how}") from error
    try:
        for _ in indices:
            yield _unwrap(_next(stream, limit))
    except _WorkerLost:
        for worker in stream._workers:  # shutting down would wait for one that hangs; a stopped one takes SIGKILL only
            worker.kill()
        raise
    finally:
        outlive_tracker(told)
        # Not left to the garbage collector, which closes the pipes to the workers before it tells them to stop.
        stream._shutdown_workers()


def _next(stream: Iterator[Batch | TomebenchError], limit: float) -> Batch | TomebenchError:
    deadline = time.monotonic() + limit
    while True:
        try:
            return next(stream)
        except (RuntimeError, OSError, EOFError) as exc:
            if "in DataLoader worker process" in str(exc):
                raise  # an exception of the worker's code, brought here by torch: a bug
            # After its timeout the loader has checked that its workers are alive; it can be asked again.
            if "timed out" in str(exc) and time.monotonic() < deadline:
                continue
            # A dead worker shows as torch's RuntimeError, or as a broken connection if its last batch was on the way.
            raise _WorkerLost(printable(exc) or type(exc).__name__) from exc


def _within(limit: float, reader: _Reader, index: int) -> Batch:
    """Read one batch in this process; DataError if that takes longer than ``limit`` seconds."""
    found: Future[Batch | TomebenchError] = Future()

    def read() -> None:
        try:
            found.set_result(reader[index])
        except Exception as error:  # noqa: BLE001 (raised where the result is asked for)
            found.set_exception(error)

    # In a thread, because a read that a disk never answers can only be abandoned; it ends with the process.
    threading.Thread(target=read, daemon=True).start()
    try:
        return _unwrap(found.result(limit))
    except TimeoutError:
        raise DataError(
            f"batch {index} was not read within {limit:.0f} s, nor by a worker; check the disk of the images"
        ) from None


@dataclass(frozen=True)
class _Reader(Dataset["Batch | TomebenchError"]):
    """Data set of batches, by index. Errors are returned: raised in a worker they would lose their one-line message."""

    image_set: ImageSet
    transform: Transform
    batch_size: int
    cache: PixelCache | None = None
    code: str = field(default_factory=code_digest)  # of the main process; a worker may import newer files
    looked_at: int = field(default_factory=lambda: secrets.randbelow(_LOOKED_AT))  # which of so many is compared

    def __getitem__(self, index: int) -> Batch | TomebenchError:
        if self.code != code_digest():
            return DataError("the files of tomebench have changed since this process began; run the same command again")
        first = index * self.batch_size
        members = range(first, min(first + self.batch_size, len(self.image_set)))
        try:
            found = [self._image(i) for i in members]
        except TomebenchError as error:
            return error.with_traceback(None)
        labels = torch.from_numpy(self.image_set.info.labels[first : members.stop].copy())
        images = torch.stack([image for image, _ in found])
        return Batch(index, self._pad(images), len(members), self._pad(labels), tuple(state for _, state in found))

    def _image(self, index: int) -> tuple[Tensor, ImageState]:
        # Taken before the image is read, so that a change in between is noticed later.
        file = self.image_set.state(index)
        if self.cache is not None and (kept := self.cache.get(index, file)) is not None:
            pixels, digest = kept
            if index % _LOOKED_AT != self.looked_at or self.image_set.digest(index) == digest:
                return pixels, ImageState(file, digest)
        image, digest = self.image_set.decoded(index)
        pixels = self.transform(image)
        if self.cache is not None:
            self.cache.put(index, file, digest, pixels)
        return pixels, ImageState(file, digest)

    def _pad(self, values: Tensor) -> Tensor:
        missing = self.batch_size - len(values)
        return torch.cat([values, values[-1:].expand(missing, *values.shape[1:])]) if missing else values


def _unwrap(item: Batch | TomebenchError) -> Batch:
    if isinstance(item, TomebenchError):
        raise item
    return item
