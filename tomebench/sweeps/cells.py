"""Expand a configuration into its cells, with tokens per block and GMACs of each, from shapes; loads no weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from tomebench.backbones.adapt import adapt
from tomebench.datasets.images import ImageSet
from tomebench.errors import ModelError, SpecError
from tomebench.measure.device import DTYPES, resolve_device
from tomebench.measure.predict import require_matching_head
from tomebench.models.create import LoadedModel, build_model
from tomebench.reduction.backbone import Backbone
from tomebench.reduction.choices import written
from tomebench.reduction.learned import learned_module, read_learned
from tomebench.reduction.macs import MacTerms
from tomebench.reduction.methods.flags import PAPER, Options
from tomebench.reduction.schedule import TokenTrace, parse_schedule
from tomebench.reduction.vit import ReducedViT
from tomebench.rspec import parse_r
from tomebench.schema import OFF_THE_SHELF, TRAINED, Cell, Resolved
from tomebench.sweeps.config import Choice, SweepConfig
from tomebench.sweeps.inputs import list_images, preprocessing_of


@dataclass(frozen=True)
class ResolvedCell:
    """A cell with its resolved form: tokens per block, GMACs, parameters, preprocessing."""

    cell: Cell
    resolved: Resolved
    r_asked: tuple[int, ...]  # tokens to remove in each block, before clamping
    options: Options = PAPER
    apart: tuple[str, ...] = ()  # its method and schedule, each where the sweep has several

    @property
    def changed(self) -> list[str]:
        """``name=value`` of every option that is not at its default."""
        return [f"{name}={written(value)}" for name, value in self.options.changed()]

    @property
    def name(self) -> str:
        """Name of the cell within its sweep: ``r=8``, what tells it apart, and the options that are not the default."""
        return " ".join([f"r={self.cell.r}", *self.apart, *self.changed])


def resolve_sweep(
    config: SweepConfig, images: ImageSet | None = None, built: LoadedModel | None = None
) -> list[ResolvedCell]:
    """The cells of a sweep, from shapes alone.

    A batch size of "auto" is given as 0 and a device of "auto" as "auto": both are chosen when the sweep runs.

    Args:
        config: of the sweep.
        images: the images of the configuration, if they are already listed.
        built: the model of the configuration, if it is already built.

    Raises:
        InputError: the model, images, r, schedule or method is unknown or cannot be combined.
    """
    loaded = built or build_model(config.model_spec, meta=True)
    if config.data is not None:
        images = list_images(config, loaded.head) if images is None else images
        require_matching_head(loaded.head.num_classes, images.info)
    batch_size = config.batch_size if isinstance(config.batch_size, int) else 0
    return resolve_cells(config, loaded, weights="", batch_size=batch_size, device=config.device)


def resolve_cells(
    config: SweepConfig,
    loaded: LoadedModel,
    *,
    weights: str,
    batch_size: int,
    device: str,
    begun: tuple[str, str] | None = None,
) -> list[ResolvedCell]:
    """The cells of a sweep whose model is loaded; the baseline r = 0 is always the first of them.

    Args:
        config: of the sweep.
        loaded: its model.
        weights: what its weights are, as :class:`~tomebench.schema.Cell` has it.
        batch_size: images per pass.
        device: name of the device.
        begun: method and schedule of the baseline of the run that goes on; by default the first of the configuration.

    Raises:
        InputError: as :func:`resolve_sweep`.
    """
    backbone = adapt(loaded.model)
    terms = mac_terms(loaded, backbone)
    if config.prefix_only and not backbone.head_reads_prefix_only:
        raise SpecError(f"prefix-only: the head of {loaded.timm_id} pools over all tokens; leave --prefix-only out")
    preprocessing = preprocessing_of(config, loaded.model)
    at = resolve_device("auto") if device == "auto" else torch.device(device)
    unwrapped = terms.gmacs(backbone.tokens, [backbone.tokens] * backbone.depth)
    params, cells = _parameters(loaded.model) / 1e6, []
    learned = None if config.predictors is None else read_learned(config.predictors)
    kernels: dict[
        tuple[TokenTrace, bool, bool], tuple[str, ...]
    ] = {}  # of cells that leave as many tokens in each block
    for schedule, r, (method, options, prop_attn) in _axis(config, begun):
        asked = parse_schedule(schedule).r_layers(r, backbone.depth)
        reduced = _reduced(backbone, config, method, asked, options, prop_attn)
        trace = reduced.trace
        alike = (trace, reduced.prop_attn, reduced.sized)
        if alike not in kernels:
            kernels[alike] = reduced.attention_kernels(max(batch_size, 1), DTYPES[config.dtype], at)
        # Tokens that prefix_only drops in the last block are not matched, and leave no padding.
        matched = (*trace.tokens[:-1], (backbone.tokens, *trace.tokens)[-2]) if config.prefix_only else trace.tokens
        cell = Cell(
            model=loaded.timm_id,
            weights=weights,
            img_size=preprocessing.input_size[-1],
            method=method,
            options=options.changed(),
            schedule=schedule,
            r=r,
            batch_size=batch_size,
            dtype=config.dtype,
            device=device,
            attention=config.attention,
            compile=config.compile,
            mode=config.mode,
            cuda_graphs=config.cuda_graphs,
            prop_attn=reduced.prop_attn,
            prefix_only=config.prefix_only,
            preprocessing=config.preprocessing,
            rope=config.rope,
            predictors="" if reduced.learned is None or learned is None else learned.digest,
        )
        resolved = Resolved(
            timm_id=loaded.timm_id,
            r_layers=trace.r_layers,
            tokens=trace.tokens,
            tokens_in=backbone.tokens,
            clamped=trace.clamped,
            gmacs=terms.gmacs(backbone.tokens, trace.tokens),
            gmacs_unwrapped=unwrapped,
            gmacs_matching=terms.gmacs_matching(backbone.tokens, matched, reduced.method),
            params_m=params,
            attn_kernel=" then ".join(dict.fromkeys(kernels[alike])),
            crop_pct=preprocessing.crop_pct,
            crop_mode=preprocessing.crop_mode,
            interpolation=preprocessing.interpolation,
            mean=preprocessing.mean,
            std=preprocessing.std,
            training=TRAINED if reduced.learned is not None else OFF_THE_SHELF,
            padded=reduced.method.pads and matched[-1] < backbone.tokens,
        )
        several = ((method, config.methods), (schedule, config.schedules))
        cells.append(ResolvedCell(cell, resolved, asked, options, tuple(own for own, all in several if len(all) > 1)))
    return cells


def about_training(config: SweepConfig, loaded: LoadedModel, images: ImageSet | None) -> list[str]:
    """Sentences about how weights of a trained method and what they are measured with do not go together."""
    if config.predictors is None or images is None:
        return []
    said, metadata = [], read_learned(config.predictors).metadata
    if metadata.get("data") == images.info.digest:
        said.append("the predictors were trained on these images, so top-1 says little about others")
    if metadata.get("weights") not in (None, loaded.weights):
        said.append(
            f"the predictors were trained with other weights of the model, {metadata['weights']}; give those with "
            "--checkpoint"
        )
    return said


def mac_terms(loaded: LoadedModel, backbone: Backbone) -> MacTerms:
    """MACs of a model's matmuls.

    Raises:
        ModelError: the model cannot take images of the size that it was built for.
    """
    try:
        return backbone.macs()
    except (AssertionError, RuntimeError) as error:  # timm's patch embedding: a size that it cannot take
        embed: Any = backbone.model.patch_embed
        size = embed.img_size[0]
        raise ModelError(f"{loaded.timm_id} cannot take {size} pixels: {str(error).rstrip('.')}") from error


def reduced_vit(
    backbone: Backbone, config: SweepConfig, cell: ResolvedCell, kind: type[ReducedViT] = ReducedViT
) -> ReducedViT:
    """Wrap a backbone for one cell; another ``kind`` removes as many tokens in its own way, as the ceiling does.

    Args:
        backbone: of the model.
        config: of the sweep: attention route, dtype.
        cell: the cell.
        kind: class of the wrapper.
    """
    return _reduced(backbone, config, cell.cell.method, cell.r_asked, cell.options, cell.cell.prop_attn, kind)


def _reduced(
    backbone: Backbone,
    config: SweepConfig,
    method: str,
    r_asked: Sequence[int],
    options: Options,
    prop_attn: bool,
    kind: type[ReducedViT] = ReducedViT,
) -> ReducedViT:
    chooses = options.method(method)
    return kind(
        backbone,
        chooses,
        r_asked,
        prop_attn=prop_attn,
        attention=config.attention,
        prefix_only=config.prefix_only,
        rope=config.rope,
        learned=learned_module(backbone, chooses, r_asked, config.predictors) if kind.reduces_by_method else None,
    )


def variant_count(config: SweepConfig) -> int:
    """Number of different variants in a round: cells, ceilings if there are any, unwrapped model and reference."""
    cells = len(_axis(config))
    return cells + (cells - 1 if config.ceiling else 0) + 1 + (config.reference is not None)


def _axis(config: SweepConfig, begun: tuple[str, str] | None = None) -> Sequence[tuple[str, int, Choice]]:
    """Schedule, r and choice of every cell in table order; the first is the baseline.

    Options have no effect at r = 0, so the baseline has the paper's.
    """
    others = sorted({*parse_r(config.r)} - {0}, reverse=True)
    if config.cells is not None:
        # Every n-th value, so that each part has fast and slow cells; each part also times r = 0, its own reference.
        part, parts = map(int, config.cells.split("/"))
        others = others[part - 1 :: parts]
    shapes = []
    for schedule in config.schedules:
        layers = parse_schedule(schedule).layers
        mean = None if layers is None else max(1, round(sum(layers) / len(layers)))  # 0 is the baseline's
        shapes += [(r, schedule) for r in ([mean] if mean else others)]
    shapes.sort(key=lambda shape: shape[0])
    usual = config.schedules[0] if not config.schedules[0].startswith("list:") else "constant"
    method, schedule = begun or (config.methods[0], usual)
    choices = config.cell_choices
    reduced = [(own, r, choice) for r, own in shapes for choice in choices]
    return [(schedule, 0, Choice(method, PAPER, config.prop_attn)), *reduced]


def _parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())
