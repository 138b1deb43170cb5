"""The reference of a sweep: another model, or the model at another input size, timed in every round at r = 0.

Runs of several models share no rounds. Each is paired with the same reference in its own rounds, in the same dtype and
batch size, so that their speed-ups over it compare.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from tomebench.backbones.adapt import adapt
from tomebench.errors import InputError, SpecError
from tomebench.models.create import LoadedModel, build_model, load_model
from tomebench.models.hf_files import is_hf
from tomebench.models.preprocess import Preprocessing
from tomebench.models.spec import ModelSpec
from tomebench.runs.setting_values import reference_parts
from tomebench.sweeps.cells import ResolvedCell, mac_terms, reduced_vit
from tomebench.sweeps.config import SweepConfig
from tomebench.sweeps.inputs import INPUT_BATCHES, preprocessing_of, timing_inputs, weights_dtype


class Reference(NamedTuple):
    """A reference that is known by its shapes."""

    name: str  # as asked for, with its input size: deit_b_16@224
    own: bool  # it is the model of the run itself at its size, whose r = 0 stands for it
    gmacs: float  # 1e9 multiply-accumulates per image


class ReferencePass(NamedTuple):
    """A reference that can be run."""

    name: str
    model: nn.Module  # as its library made it, with random weights
    wrapped: nn.Module  # at r = 0
    inputs: list[Tensor]  # each [batch_size, 3, H, W], of its own input size


def resolve_reference(
    config: SweepConfig, loaded: LoadedModel, build: Callable[[ModelSpec], LoadedModel] | None = None
) -> Reference | None:
    """The reference of a configuration, from shapes alone; None where it names none.

    Args:
        config: of the sweep.
        loaded: its model, which may be on the device meta.
        build: builds a model for its shapes.

    Raises:
        InputError: the reference is unknown, or cannot be built or run as the configuration says.
    """
    if config.reference is None:
        return None
    spec = _spec(config, config.reference)
    try:
        built = build_model(spec, meta=True) if build is None else build(spec)
        backbone = adapt(built.model)
        terms = mac_terms(built, backbone)
        size = _preprocessing(config, spec, built).input_size
    except InputError as error:
        raise type(error)(f"reference {config.reference}: {error}") from error
    if config.prefix_only and not backbone.head_reads_prefix_only:
        raise SpecError(f"prefix-only: the head of the reference {spec.name} pools over all tokens; leave one out")
    known = spec.name == config.model or not is_hf(spec.name)  # folders of one name are not one model
    own = (
        known
        and config.class_head is None
        and (built.timm_id, size) == (loaded.timm_id, preprocessing_of(config, loaded.model).input_size)
    )
    whole = terms.gmacs(backbone.tokens, [backbone.tokens] * backbone.depth)
    return Reference(f"{spec.name}@{size[-1]}", own, whole)


def load_reference(
    config: SweepConfig, reference: Reference, baseline: ResolvedCell, batch_size: int, device: torch.device
) -> ReferencePass | None:
    """Build the model of a reference on the device; None where r = 0 of the run stands for it.

    Args:
        config: of the sweep.
        reference: its reference.
        baseline: the cell of r = 0, whose settings it runs with.
        batch_size: images per pass.
        device: where it runs.

    Raises:
        InputError: as :func:`resolve_reference`.
    """
    if reference.own or config.reference is None or config.budget == "none":
        return None
    spec = _spec(config, config.reference)
    loaded = load_model(spec, pretrained=False)  # speed does not depend on the weights
    model = loaded.model.to(device=device, dtype=weights_dtype(config)).train(config.mode == "train")
    backbone = adapt(model)
    at_zero = dataclasses.replace(baseline, r_asked=(0,) * backbone.depth)
    preprocessing = _preprocessing(config, spec, loaded)
    inputs = timing_inputs(None, preprocessing, batch_size, device, weights_dtype(config), config.seed, INPUT_BATCHES)
    return ReferencePass(reference.name, model, reduced_vit(backbone, config, at_zero), inputs)


def _spec(config: SweepConfig, reference: str) -> ModelSpec:
    name, size = reference_parts(reference)
    return ModelSpec(name, num_classes=config.num_classes, img_size=size, offline=config.offline, seed=config.seed)


def _preprocessing(config: SweepConfig, spec: ModelSpec, loaded: LoadedModel) -> Preprocessing:
    return Preprocessing.from_model(loaded.model, spec.img_size, rules=config.preprocessing)
