"""What goes through the passes of a sweep: its images as they are listed, checked, decoded, normalised and timed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from tomebench.datasets.cache import PixelCache
from tomebench.datasets.checks import check_images
from tomebench.datasets.classes import ClassHead
from tomebench.datasets.images import ImageSet, open_dataset
from tomebench.datasets.loader import Batch, batches, time_limit
from tomebench.datasets.workers import default_workers
from tomebench.identity import decoding
from tomebench.measure.cgroup import usable_cpus
from tomebench.measure.device import DTYPES
from tomebench.models.preprocess import Preprocessing
from tomebench.sweeps.config import SweepConfig

INPUT_BATCHES = 4
"""Batches rotated while timing, so that a step never sees the images of the step before."""


def weights_dtype(config: SweepConfig) -> torch.dtype:
    """Dtype of weights and images: training keeps fp32 and leaves the rest to autocast."""
    return torch.float32 if config.mode == "train" else DTYPES[config.dtype]


def list_images(config: SweepConfig, head: ClassHead) -> ImageSet:
    """The images of a configuration, which names some, as they are listed: none of them is looked at.

    Args:
        config: of the sweep.
        head: the outputs of its model, to which the classes of the images belong.

    Raises:
        DataError: they cannot be listed.
    """
    assert config.data is not None
    return open_dataset(
        config.data,
        limit=config.limit,
        seed=config.seed,
        head=head,
        labels=config.labels,
        real=config.real,
        offline=config.offline,
    )


def usable_images(config: SweepConfig, listed: ImageSet, stop_if_asked: Callable[[], None]) -> ImageSet:
    """The images of a configuration as they were listed, all of which can be used.

    Those that ``allow_missing`` leaves out are gone from it, and its note says how many. ``stop_if_asked`` may raise
    while they are looked at.

    Raises:
        DataError: more than that cannot be read, or are not what ``verify`` says.
    """
    return check_images(
        listed,
        allow_missing=config.allow_missing,
        verify=config.verify,
        whole=config.limit is None,
        stop_if_asked=stop_if_asked,
    )


def preprocessing_of(config: SweepConfig, model: nn.Module) -> Preprocessing:
    """What happens to the images of a configuration before its model sees them.

    Raises:
        ModelError: the model does not take images of three channels.
    """
    return Preprocessing.from_model(model, config.img_size, rules=config.preprocessing)


def timing_inputs(
    images: ImageSet | None,
    preprocessing: Preprocessing,
    batch_size: int,
    device: torch.device,
    dtype: torch.dtype,
    seed: int,
    count: int = INPUT_BATCHES,
) -> list[Tensor]:
    """``count`` batches [batch_size, 3, H, W] to time on: real images when there are some, else seeded normal noise.

    Never zeros: they flip fewer bits and run faster, and every token would tie. The images are spread over the whole
    set, and none is in a batch twice; a set with fewer images than a batch is not enough, and noise is used.
    """
    total = count * batch_size
    if images is None or len(images) < batch_size:
        generator = torch.Generator().manual_seed(seed)
        shape = (batch_size, *preprocessing.input_size)
        return [torch.randn(shape, generator=generator).to(device, dtype) for _ in range(count)]
    transform, n = preprocessing.transform(), len(images)
    if n >= total:  # strided: a set sorted by class gives every batch a bit of each
        picks = [[i * n // total for i in range(first, total, count)] for first in range(count)]
    else:
        picks = [[i % n for i in range(first, first + batch_size)] for first in range(0, total, batch_size)]
    pixels = [torch.stack([transform(images.open(i)) for i in pick]) for pick in picks]
    return [preprocessing.normalise(batch.to(device)).to(dtype) for batch in pixels]


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
