"""Choose the batch size of a sweep that asks for "auto": the largest power of two that fits in memory."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from tomebench.backbones.adapt import adapt
from tomebench.measure.device import DTYPES
from tomebench.measure.probe import auto_batch_cap, auto_batch_size
from tomebench.measure.training import Trainer
from tomebench.models.preprocess import Preprocessing
from tomebench.sweeps.cells import variant_count
from tomebench.sweeps.config import SweepConfig
from tomebench.sweeps.inputs import INPUT_BATCHES, weights_dtype
from tomebench.sweeps.passes import without_gradients


def choose_batch_size(config: SweepConfig, model: nn.Module, preprocessing: Preprocessing, device: torch.device) -> int:
    """The largest power of two, up to a cap per kind of device, whose pass (or training step) fits in memory.

    Room is left for what a sweep keeps allocated besides: the input batches that it rotates, and one more batch for
    every CUDA graph, which reads from a buffer of its own.

    Raises:
        DeviceError: not even one image fits.
    """
    trainer = Trainer(model, DTYPES[config.dtype], device) if config.mode == "train" else None
    model.train(trainer is not None)  # with the dropout that the training steps have
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
                torch.cuda.synchronize(device)  # this GPU only: synchronising another one would allocate memory on it

        return step

    backbone = adapt(model)
    gmacs = backbone.macs().gmacs(backbone.tokens, [backbone.tokens] * backbone.depth)
    size = auto_batch_size(make_step, auto_batch_cap(device.type, gmacs))
    model.eval()
    return size
