"""Inputs of a sweep: list and check its images, load and normalise batches, choose the batches to time on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from tomebench.datasets.cache import PixelCache
from tomebench.datasets.checks import check_images
from tomebench.datasets.classes import ClassHead
from tomebench.datasets.images import ImageSet, in_random_order, open_dataset
from tomebench.datasets.loader import Batch, batches, time_limit
from tomebench.datasets.workers import default_workers
from tomebench.identity import decoding
from tomebench.measure.cgroup import usable_cpus
from tomebench.measure.device import DTYPES
from tomebench.models.preprocess import Preprocessing
from tomebench.sweeps.config import SweepConfig

INPUT_BATCHES = 4
"""Input batches rotated while timing, so that no pass has the images of the pass before."""


def weights_dtype(config: SweepConfig) -> torch.dtype:
    """Dtype of weights and images: training keeps fp32 and casts by autocast."""
    return torch.float32 if config.mode == "train" else DTYPES[config.dtype]


def list_images(config: SweepConfig, head: ClassHead) -> ImageSet:
    """List the images of a configuration without opening any of them; in a random order where cells may be stopped.

    Args:
        config: of the sweep; names images.
        head: classification head of its model, whose classes the labels refer to.

    Raises:
        DataError: they cannot be listed.
    """
    assert config.data is not None
    found = open_dataset(
        config.data,
        limit=config.limit,
        seed=config.seed,
        head=head,
        labels=config.labels,
        real=config.real,
        offline=config.offline,
    )
    return found if config.until is None else in_random_order(found, config.seed)


def usable_images(config: SweepConfig, listed: ImageSet, stop_if_asked: Callable[[], None]) -> ImageSet:
    """Check all listed images, and leave out those that cannot be decoded, as far as ``allow_missing`` permits.

    The note of the result says how many were left out. ``stop_if_asked`` is called meanwhile and may raise.

    Raises:
        DataError: more images than permitted cannot be decoded, or they are not those that ``verify`` names.
    """
    return check_images(
        listed,
        allow_missing=config.allow_missing,
        verify=config.verify,
        whole=config.limit is None,
        stop_if_asked=stop_if_asked,
    )


def preprocessing_of(config: SweepConfig, model: nn.Module) -> Preprocessing:
    """Preprocessing of a configuration's images: resize, crop, normalisation.

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

    Never zeros: they flip fewer bits and run faster, and all similarities of tokens would tie. The images are spread
    over the whole set, and none is in a batch twice. Noise is used where there are fewer images than a batch holds.
    """
    total = count * batch_size
    if images is None or len(images) < batch_size:
        generator = torch.Generator().manual_seed(seed)
        shape = (batch_size, *preprocessing.input_size)
        return [torch.randn(shape, generator=generator).to(device, dtype) for _ in range(count)]
    transform, n = preprocessing.transform(), len(images)
    if n >= total:  # strided: each batch of a set sorted by class has several classes
        picks = [[i * n // total for i in range(first, total, count)] for first in range(count)]
    else:
        picks = [[i % n for i in range(first, first + batch_size)] for first in range(0, total, batch_size)]
    pixels = [torch.stack([transform(images.open(i)) for i in pick]) for pick in picks]
    return [preprocessing.normalise(batch.to(device)).to(dtype) for batch in pixels]


@dataclass(frozen=True)
class Reading:
    """Loader of a sweep's images: decodes batches and puts them on the device."""

    config: SweepConfig
    image_set: ImageSet
    preprocessing: Preprocessing
    batch_size: int
    device: torch.device
    processes: int = 1  # of the sweep, that share the CPUs of this machine
    troubles: list[str] = field(default_factory=list)  # warnings about problems that were worked around

    def workers(self, images: int) -> int:
        """Number of worker processes that decode so many images ahead."""
        if self.config.workers is not None:
            return self.config.workers
        return default_workers(images, usable_cpus() / self.processes)

    @property
    def patience(self) -> float:
        """Seconds after which a batch counts as hanging; enough to read it again here after a worker has died."""
        limit = time_limit(self.batch_size)
        return limit if self.workers(len(self.image_set)) == 0 else 3 * limit

    def batches(self, only: Sequence[int] | range, *, cached: bool = True) -> Iterator[Batch]:
        """Decode the batches with indices ``only``, in order; uint8 on the host; without the pixel cache if asked."""
        return batches(
            self.image_set,
            self.preprocessing.transform(),
            self.batch_size,
            workers=self.workers(len(only) * self.batch_size),
            only=only,
            cache=self._cache() if cached else None,
            pin=self.device.type == "cuda",
            bytes_per_image=self.preprocessing.bytes_per_image,
            trouble=self.troubles.append,
        )

    def prepare(self, images: Tensor) -> Tensor:
        """Move uint8 images to the device and normalise them: the input [B, 3, H, W] of the models."""
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
            **pixels.more,
            **decoding(),
        }
        info, shape = self.image_set.info, pixels.input_size
        return PixelCache.open(self.config.cache, info.name, key, len(info.labels), shape, pixels.pixel_type)
