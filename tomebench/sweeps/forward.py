"""Forward passes as a sweep runs them: without gradients, on rotating batches, and saying which cell failed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from tomebench.datasets.images import ImageSet
from tomebench.measure.probe import AUTO_BATCH_CAP, auto_batch_size, is_oom
from tomebench.models.preprocess import Preprocessing
from tomebench.schema import Status

INPUT_BATCHES = 4
"""Batches rotated while timing, so that a step never sees the images of the step before."""


class CellFailed(Exception):
    """A cell's forward pass failed: out of memory (status oom), or for any other reason (failed)."""

    def __init__(self, key: str, status: Status, message: str) -> None:
        super().__init__(message)
        self.key, self.status = key, status


def forward_step(key: str, model: nn.Module, inputs: Sequence[Tensor]) -> Callable[[], object]:
    """One forward pass; each call takes the next batch."""
    run, turn = guarded(key, model), 0

    def step() -> Tensor:
        nonlocal turn
        turn += 1
        return run(inputs[turn % len(inputs)])

    return step


def guarded(key: str, model: nn.Module) -> Callable[[Tensor], Tensor]:
    """A forward pass without gradients that says whose it was when it fails."""

    def run(images: Tensor) -> Tensor:
        try:
            with torch.inference_mode():
                return model(images)
        except (RuntimeError, MemoryError) as error:
            if not is_oom(error):
                raise CellFailed(key, "failed", " ".join(str(error).split())[:200]) from error
        # Outside the handler, where the traceback no longer holds the tensors of the failed pass.
        raise CellFailed(key, "oom", f"out of memory at batch size {len(images)}")

    return run


def choose_batch_size(model: nn.Module, preprocessing: Preprocessing, device: torch.device, dtype: torch.dtype) -> int:
    """The largest power of two, up to a cap per kind of device, whose forward pass fits in memory.

    Raises:
        DeviceError: not even one image fits.
    """

    def make_step(batch: int) -> Callable[[], object]:
        images = torch.zeros(batch, *preprocessing.input_size, device=device, dtype=dtype)

        def step() -> Tensor:
            with torch.inference_mode():
                return model(images)

        return step

    return auto_batch_size(make_step, AUTO_BATCH_CAP[device.type])


def timing_inputs(
    images: ImageSet | None,
    preprocessing: Preprocessing,
    batch_size: int,
    device: torch.device,
    dtype: torch.dtype,
    seed: int,
) -> list[Tensor]:
    """Batches to time on, each [batch_size, 3, H, W]: real images when there are some, else seeded normal noise.

    Never zeros: they flip fewer bits and run faster, and every token would tie. The images are spread over the whole
    set, and none is in a batch twice; a set with fewer images than a batch is not enough, and noise is used.
    """
    total = INPUT_BATCHES * batch_size
    if images is None or len(images) < batch_size:
        generator = torch.Generator().manual_seed(seed)
        shape = (batch_size, *preprocessing.input_size)
        return [torch.randn(shape, generator=generator).to(device, dtype) for _ in range(INPUT_BATCHES)]
    transform, n = preprocessing.transform(), len(images)
    if n >= total:  # strided: a set sorted by class gives every batch a bit of each
        picks = [[i * n // total for i in range(first, total, INPUT_BATCHES)] for first in range(INPUT_BATCHES)]
    else:
        picks = [[i % n for i in range(first, first + batch_size)] for first in range(0, total, batch_size)]
    return [torch.stack([transform(images.open(i)) for i in pick]).to(device, dtype) for pick in picks]
