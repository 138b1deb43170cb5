"""How the images of a sweep come to its models: decoded once, ahead, cached if asked, normalised on the device."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from tomebench.datasets.cache import PixelCache
from tomebench.datasets.images import ImageSet
from tomebench.datasets.loader import Batch, batches, time_limit
from tomebench.datasets.workers import default_workers
from tomebench.identity import decoding
from tomebench.measure.cgroup import usable_cpus
from tomebench.models.preprocess import Preprocessing
from tomebench.sweeps.config import SweepConfig
from tomebench.sweeps.inputs import weights_dtype


@dataclass(frozen=True)
class Reading:
    """The images of a sweep and the way they take."""

    config: SweepConfig
    image_set: ImageSet
    preprocessing: Preprocessing
    batch_size: int
    device: torch.device
    processes: int = 1  # on this machine
    troubles: list[str] = field(default_factory=list)  # what went wrong and was mended, in words

    @property
    def workers(self) -> int:
        """Processes that decode ahead."""
        if self.config.workers is not None:
            return self.config.workers
        return default_workers(len(self.image_set), usable_cpus() / self.processes)

    @property
    def patience(self) -> float:
        """Seconds that a batch may take, with one that a worker was lost with and that is read here after all."""
        limit = time_limit(self.batch_size)
        return limit if self.workers == 0 else 3 * limit

    def batches(self, only: Sequence[int] | range, *, cached: bool = True) -> Iterator[Batch]:
        """The batches ``only`` in order, uint8 on the host; without the cache if so asked."""
        return batches(
            self.image_set,
            self.preprocessing.transform(),
            self.batch_size,
            workers=self.workers,
            only=only,
            cache=self._cache() if cached else None,
            pin=self.device.type == "cuda",
            bytes_per_image=math.prod(self.preprocessing.input_size),
            trouble=self.troubles.append,
        )

    def prepare(self, images: Tensor) -> Tensor:
        """From uint8 images on the host to what the models take, on the device."""
        pixels = images.to(self.device, non_blocking=True)
        return self.preprocessing.normalise(pixels).to(weights_dtype(self.config))

    def _cache(self) -> PixelCache | None:
        if self.config.cache is None:
            return None
        pixels = self.preprocessing
        key = {
            "images": self.image_set.info.digest,
            "input_size": pixels.input_size,
            "crop_pct": pixels.crop_pct,
            "crop_mode": pixels.crop_mode,
            "interpolation": pixels.interpolation,
            **decoding(),
        }
        info = self.image_set.info
        return PixelCache.open(self.config.cache, info.name, key, len(info.labels), pixels.input_size)
