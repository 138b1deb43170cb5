"""Made-up images for the tests of the loader, in a module that a worker imports in a moment."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tomebench.datasets.images import ImageSet
from tomebench.datasets.loader import Batch, batch_count, batches
from tomebench.errors import DataError
from tomebench.schema import ImageList


@dataclass(frozen=True)
class Painter:
    """Image i is one colour, which tells i; some indices misbehave. Picklable."""

    broken: int = -1
    buggy: int = -1
    deadly: int = -1  # kills the worker that reads it
    also: int = -1
    marker: str = ""  # file without which the worker that reads ``also`` is killed, once
    frozen: int = -1  # stops the worker that reads it
    silent: int = -1  # never comes, wherever it is read

    def __call__(self, index: int) -> Image.Image:
        if index == self.broken:
            raise DataError("cannot read image n01440764/a.JPEG: empty file; replace it or take it out")
        if multiprocessing.parent_process() is not None:
            if index == self.deadly or (index == self.also and not Path(self.marker).is_file()):
                if index == self.also and self.marker:
                    Path(self.marker).touch()
                os.kill(os.getpid(), signal.SIGKILL)
            if index == self.frozen:
                os.kill(os.getpid(), signal.SIGSTOP)
        if index == self.silent:
            time.sleep(600)
        if index == self.buggy:
            raise RuntimeError("a bug")
        return Image.new("RGB", (4, 2), (index % 256, index // 256, 7))


def to_tensor(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)


def image_set(n: int, painter: Painter | None = None) -> ImageSet:
    return ImageSet(ImageList("made", "0", np.arange(n, dtype=np.int64) * 3, 10_000), painter or Painter())


def read(
    n: int,
    batch_size: int,
    workers: int = 0,
    skip: Collection[int] = (),
    painter: Painter | None = None,
    **options: Any,
) -> list[Batch]:
    only = set(range(batch_count(n, batch_size))) - set(skip)
    return list(batches(image_set(n, painter), to_tensor, batch_size, workers=workers, only=only, **options))
