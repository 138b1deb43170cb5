"""What goes through the passes of a sweep: its images, the batches that are timed, and how large a batch can be."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from tomebench.backbones.adapt import adapt
from tomebench.datasets.checks import check_images
from tomebench.datasets.images import ImageSet
from tomebench.measure.device import DTYPES
from tomebench.measure.probe import auto_batch_cap, auto_batch_size
from tomebench.measure.training import Trainer
from tomebench.models.preprocess import Preprocessing
from tomebench.sweeps.config import SweepConfig
from tomebench.sweeps.passes import without_gradients
from tomebench.sweeps.plan import variant_count

INPUT_BATCHES = 4
"""Batches rotated while timing, so that a step never sees the images of the step before."""


def weights_dtype(config: SweepConfig) -> torch.dtype:
    """Dtype of weights and images: training keeps fp32 and leaves the rest to autocast."""
    return torch.float32 if config.mode == "train" else DTYPES[config.dtype]


def choose_batch_size(config: SweepConfig, model: nn.Module, preprocessing: Preprocessing, device: torch.device) -> int:
    """The largest power of two, up to a cap per kind of device, whose pass (or training step) fits in memory.

    Beside it there is room for what a sweep keeps: the batches that it rotates, and one more for every CUDA graph,
    which reads from a place of its own.

    Raises:
        DeviceError: not even one image fits.
    """
    trainer = Trainer(model, DTYPES[config.dtype], device) if config.mode == "train" else None
    model.train(trainer is not None)  # with the dropout that its steps will have
    forward = without_gradients(model)
    batches = INPUT_BATCHES + (variant_count(config) if config.cuda_graphs else 0)

    def make_step(batch: int) -> Callable[[], object]:
        kept = torch.zeros(batches, batch, *preprocessing.input_size, device=device, dtype=weights_dtype(config))
        labels = torch.zeros(batch, dtype=torch.int64, device=device)

        def step() -> None:
            if trainer is None:
                forward(kept[0])
            else:
                trainer.step(model, kept[0], labels)
            if device.type == "cuda":
                torch.cuda.synchronize(device)  # of no other GPU, where it would take memory

        return step

    backbone = adapt(model)
    gmacs = backbone.macs().gmacs(backbone.tokens, [backbone.tokens] * backbone.depth)
    size = auto_batch_size(make_step, auto_batch_cap(device.type, gmacs))
    model.eval()
    return size


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
