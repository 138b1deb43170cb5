"""From a configuration to the list of cells it asks for, each with its tokens and costs. Loads no weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from tomebench.backbones.timm_vit import TimmViT
from tomebench.datasets.images import open_dataset
from tomebench.errors import ModelError
from tomebench.measure.accuracy import require_matching_head
from tomebench.measure.device import DTYPES, arithmetic, resolve_device
from tomebench.measure.estimate import macs_per_second, sweep_seconds
from tomebench.measure.probe import AUTO_BATCH_CAP
from tomebench.measure.speed import BUDGETS
from tomebench.models.create import LoadedModel, build_model
from tomebench.models.preprocess import Preprocessing
from tomebench.reduction.registry import get_method
from tomebench.reduction.schedule import parse_schedule, token_trace
from tomebench.rspec import parse_r
from tomebench.schema import Cell, Resolved
from tomebench.sweeps.config import SweepConfig


@dataclass(frozen=True)
class PlannedCell:
    """A cell and what it comes to."""

    cell: Cell
    resolved: Resolved
    r_asked: tuple[int, ...]  # tokens to remove in each block, before the cap


def plan_sweep(config: SweepConfig) -> list[PlannedCell]:
    """The cells of a sweep, from shapes alone.

    A batch size of "auto" is shown as 0 and a device of "auto" as it is: both are settled when the sweep runs.

    Raises:
        InputError: the model, images, r, schedule or method is unknown or cannot be combined.
    """
    if config.checkpoint is not None and not config.checkpoint.is_file():
        raise ModelError(f"checkpoint {config.checkpoint}: no such file; give a .safetensors or .pth file")
    loaded = build_model(config.model, img_size=config.img_size, meta=True)
    if config.data is not None:
        images = open_dataset(config.data, limit=config.limit, seed=config.seed)
        require_matching_head(int(getattr(loaded.model, "num_classes", 0)), images.info)
    batch_size = config.batch_size if isinstance(config.batch_size, int) else 0
    return plan_cells(config, loaded, weights="", batch_size=batch_size, device=config.device)


def plan_cells(
    config: SweepConfig, loaded: LoadedModel, *, weights: str, batch_size: int, device: str
) -> list[PlannedCell]:
    """The cells of a sweep of a model that is at hand, the baseline r = 0 always among them.

    Raises:
        InputError: as :func:`plan_sweep`.
    """
    get_method(config.method)  # an unknown name is refused here rather than after the weights are loaded
    backbone = TimmViT(loaded.model)
    try:
        terms = backbone.macs()
    except (AssertionError, RuntimeError) as error:  # what timm's patch embedding says of a size it cannot take
        raise ModelError(f"{loaded.timm_id} cannot take {config.img_size} pixels: {str(error).rstrip('.')}") from error
    preprocessing = Preprocessing.from_model(loaded.model, config.img_size)
    unwrapped = terms.gmacs(backbone.tokens, [backbone.tokens] * backbone.depth)
    planned = []
    for schedule, r in _axis(config):
        asked = parse_schedule(schedule).r_layers(r, backbone.depth)
        trace = token_trace(asked, backbone.tokens, backbone.prefix)
        cell = Cell(
            model=loaded.timm_id,
            weights=weights,
            img_size=preprocessing.input_size[-1],
            method=config.method,
            options=(("prop_attn", config.prop_attn),),
            schedule=schedule,
            r=r,
            batch_size=batch_size,
            dtype=config.dtype,
            device=device,
        )
        resolved = Resolved(
            timm_id=loaded.timm_id,
            r_layers=trace.r_layers,
            tokens=trace.tokens,
            tokens_in=backbone.tokens,
            clamped=trace.clamped,
            gmacs=terms.gmacs(backbone.tokens, trace.tokens),
            gmacs_unwrapped=unwrapped,
            gmacs_matching=terms.gmacs_matching(backbone.tokens, trace.tokens),
            params_m=_parameters(loaded.model) / 1e6,
            attn_kernel=backbone.attention_kernel,
            crop_pct=preprocessing.crop_pct,
            interpolation=preprocessing.interpolation,
            mean=preprocessing.mean,
            std=preprocessing.std,
        )
        planned.append(PlannedCell(cell, resolved, asked))
    return planned


def _axis(config: SweepConfig) -> Sequence[tuple[str, int]]:
    """(schedule, r) of every cell in the order of the table; r = 0 comes first."""
    shape = parse_schedule(config.schedule)
    if shape.layers is not None:
        mean = max(1, round(sum(shape.layers) / len(shape.layers)))  # 0 is the baseline's
        return [("constant", 0), (config.schedule, mean)]
    return [(config.schedule, r) for r in sorted({0, *parse_r(config.r)})]


def _parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def estimate_seconds(config: SweepConfig, planned: Sequence[PlannedCell]) -> float:
    """About how long the sweep takes on this machine at its best: from MACs and a short probe of the device.

    Raises:
        InputError: the device is not available, or the images cannot be listed.
    """
    device = resolve_device(config.device, config.dtype)
    batch_size = config.batch_size if isinstance(config.batch_size, int) else AUTO_BATCH_CAP[device.type]
    images = len(open_dataset(config.data, limit=config.limit, seed=config.seed)) if config.data else 0
    with arithmetic(config.dtype, config.threads):
        rate = macs_per_second(device, DTYPES[config.dtype])
    gmacs = [cell.resolved.gmacs for cell in planned]
    return sweep_seconds(gmacs, batch_size, images, rate, BUDGETS[config.budget], device.type)
