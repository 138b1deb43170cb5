"""Compute the static tier: logits of a fixed input on the CPU in double precision, tokens and costs; nothing is timed.

In single precision, two processors that sum in another order round differently, at some point merge another pair of
tokens, and then differ by far more than rounding. In double precision that does not happen in practice.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from tomebench.ambient import in_usual_state
from tomebench.backbones.adapt import adapt
from tomebench.errors import DeviceError, InputError
from tomebench.gate.records import CellRecord, Snapshot, Static, cut, packed_logits
from tomebench.gate.snapshot import apart, asked
from tomebench.measure.probe import is_oom
from tomebench.models.create import LoadedModel, load_model
from tomebench.models.digest import tensors_digest
from tomebench.reduction.attention import check_route
from tomebench.schema import Resolved, Route
from tomebench.sweeps.cells import ResolvedCell, reduced_vit, resolve_cells
from tomebench.sweeps.config import SweepConfig
from tomebench.sweeps.inputs import preprocessing_of

IMAGES = 2
"""Number of images in the fixed input."""


@in_usual_state
def static_snapshot(config: SweepConfig) -> Snapshot:
    """Compute the static tier of every cell of a configuration, measured or not.

    A cell that cannot be computed has a ``static_problem`` instead.

    Raises:
        InputError: the model or its weights cannot be loaded.
    """
    on_cpu = config.model_copy(update={"dtype": "fp32", "attention": _route(config), "device": "cpu"})
    loaded = load_model(config.model_spec, pretrained=config.data is not None)
    cells = resolve_cells(on_cpu, loaded, weights=loaded.weights, batch_size=IMAGES, device="cpu")
    return Snapshot(testbed="", settings=config.stored(), cells=tuple(_cells(on_cpu, config, loaded, cells)))


def _route(config: SweepConfig) -> Route:
    """The attention route asked for, where a CPU has it, since most errors of a route show there too."""
    try:
        check_route(config.attention, torch.device("cpu"), "fp32", training=False)
    except InputError:
        return "auto"
    return config.attention


def _cells(
    on_cpu: SweepConfig, config: SweepConfig, loaded: LoadedModel, cells: Sequence[ResolvedCell]
) -> Iterator[CellRecord]:
    weights = tensors_digest(loaded.model)
    backbone = adapt(loaded.model.double())
    size = preprocessing_of(config, loaded.model).input_size
    # The stream of RandomState is frozen: the same numbers on every platform and with every version.
    images = np.random.RandomState(0).standard_normal((IMAGES, *size))
    digest = hashlib.sha256(images.astype("<f8").tobytes()).hexdigest()[:16]
    for cell in cells:
        settings, resolved = config.stored(), cell.resolved
        what, own = asked(cell.cell, settings), apart(cell.cell, settings)
        try:
            with torch.inference_mode():
                logits = reduced_vit(backbone, on_cpu, cell)(torch.from_numpy(images)).numpy()
        except Exception as error:
            if is_oom(error):  # a limit of this machine, not a fault of the model
                raise DeviceError(f"r = {cell.cell.r} does not fit in memory in double precision here") from error
            problem = f"fails with {type(error).__name__}: " + str(error).partition("\n")[0]
            yield CellRecord(asked=what, apart=own, static_problem=cut(problem))
            continue
        if not np.isfinite(logits).all():
            yield CellRecord(asked=what, apart=own, static_problem="NaN or infinite logits")
            continue
        facts = Static(
            r_layers=resolved.r_layers,
            tokens=resolved.tokens,
            gmacs=resolved.gmacs,
            params_m=resolved.params_m,
            preprocessing=_preprocessing(resolved),
            weights=weights,
            input=digest,
            shape=logits.shape,
            logits=packed_logits(logits),
        )
        yield CellRecord(asked=what, apart=own, static=facts)


def _preprocessing(resolved: Resolved) -> str:
    mean, std = (" ".join(f"{x:.6g}" for x in values) for values in (resolved.mean, resolved.std))
    return f"crop {resolved.crop_pct:.6g}, {resolved.interpolation}, mean {mean}, std {std}"
