"""Check of the baseline: the wrapped model at r = 0 is the model itself."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from tomebench.errors import UnsupportedModelError
from tomebench.measure.device import DTYPES
from tomebench.sweeps.events import Event, Note
from tomebench.sweeps.failures import CellFailed, guarded
from tomebench.sweeps.job import Job


def check_baseline(job: Job) -> Iterator[Event]:
    """Check that the wrapped model at r = 0 gives the logits of the unwrapped one, within rounding."""
    images = job.inputs[0]
    half = job.config.mode == "train" and job.config.dtype in ("bf16", "fp16")
    both = (job.passes.models[job.baseline], job.loaded.model)
    try:
        with torch.inference_mode(), torch.autocast(job.device.type, DTYPES[job.config.dtype], enabled=half):
            wrapped, unwrapped = (guarded(job.baseline, model)(images).float() for model in both)
        with job.blame(job.baseline):
            wrapped, unwrapped = wrapped.cpu(), unwrapped.cpu()  # CUDA runs asynchronously: errors surface here
    except CellFailed as failure:
        yield job.failed(failure)  # raises: without the baseline nothing can be compared
        return
    if not unwrapped.isfinite().all():
        yield Note("the unwrapped model gives NaN or infinite logits; check its weights and --dtype")
    same = (wrapped == unwrapped) | (wrapped.isnan() & unwrapped.isnan())
    if same.all():
        return
    tolerance = 0.05 if job.config.dtype in ("bf16", "fp16") else 1e-3
    worst = (wrapped - unwrapped)[~same].abs().max().item()
    if not worst <= tolerance * max(unwrapped.abs().max().item(), 1.0):  # NaN is not within any tolerance
        raise UnsupportedModelError(
            f"{job.loaded.timm_id}: the wrapped model at r = 0 differs from the model itself by up to {worst:.2g}; "
            "its forward does something that merging does not know"
        )
    yield Note(f"r = 0 differs from the unwrapped model by up to {worst:.2g} (rounding)")
