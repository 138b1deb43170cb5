"""``tomebench.apply``: wrap a model in a :class:`ReducedViT`, from a method's name, r and a schedule."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from torch import nn

from tomebench.backbones.adapt import adapt
from tomebench.backbones.hf_layers import is_of_transformers
from tomebench.errors import SpecError
from tomebench.reduction.learned import learned_module
from tomebench.reduction.method import Method
from tomebench.reduction.methods.flags import OPTIONS, Options
from tomebench.reduction.registry import method_class, option_names
from tomebench.reduction.schedule import Schedule, parse_schedule
from tomebench.reduction.vit import ReducedViT
from tomebench.schema import Rope, Route


def apply(
    model: nn.Module,
    r: int | Sequence[int],
    *,
    schedule: str = "constant",
    inflect: float | None = None,
    prop_attn: bool = True,
    method: str = "tome",
    attention: Route = "auto",
    prefix_only: bool = False,
    predictors: str | Path | None = None,
    rope: Rope = "keep",
    **options: Any,
) -> ReducedViT:
    """Reduce tokens in the blocks of a Vision Transformer.

    Args:
        model: a ViT of timm or transformers (``tomebench list models --all`` says which). It is neither changed nor
            copied: the result shares its weights.
        r: tokens to remove per layer, or a sequence with one value for each block. No block loses more than the method
            can remove: of ToMe half of the tokens that are not prefix tokens.
        schedule: constant, decreasing (from 2r to 0), increasing or inflect:<x>.
        inflect: the schedule as a number in [-1, 1]: -1 is decreasing, 0 constant, 1 increasing.
        prop_attn: proportional attention: a merged token counts as often as it has patches (its size). Turn it off for
            MAE-type models that were not trained with merging.
        method: see ``tomebench list methods``.
        attention: how attention is computed: auto, sdpa, padded, matmul, augmented; on CUDA also efficient, cudnn or
            triton; see :mod:`tomebench.reduction.attention`.
        prefix_only: keep only the prefix tokens after the last attention, where the class head reads nothing else; the
            logits are the same.
        predictors: file of the weights of a trained method, as ``tomebench train-predictors`` writes it.
        rope: rotation of a merged token in a rotary model: that of the token that stays (keep), or the mean by size of
            its group (mean).
        options: of the method (see ``tomebench list methods NAME``); of ToMe also ``matching``, which selects another
            method.

    Returns:
        A module that maps images to logits; its ``token_counts`` are the tokens left after each block. Of a model of
        transformers, one that takes ``pixel_values`` and gives the model's own outputs, see
        :class:`tomebench.backbones.hf_outputs.ReducedHF`. In training it keeps all activations, even where the model is
        set to recompute them (gradient checkpointing).

    Raises:
        SpecError: r, schedule or method cannot be read or do not fit the model.
        ModelError: ``predictors`` cannot be read, or are for another model or method.
        UnsupportedModelError: the model has a part that merging does not know.
    """
    backbone = adapt(model)
    mean, layers = _read_r(r)
    if layers is not None:
        if schedule != "constant" or inflect is not None:
            raise SpecError("a list of r is a schedule of its own; leave schedule and inflect out")
        shape = Schedule(layers=layers)
    elif inflect is not None:
        if schedule != "constant":
            raise SpecError(f"schedule {schedule!r} and inflect {inflect} contradict each other; give one of them")
        try:
            shape = Schedule(inflect=float(inflect))
        except (TypeError, ValueError):
            raise SpecError(f"inflect is {inflect!r}; give a number from -1 to 1") from None
    else:
        shape = parse_schedule(schedule)
        if shape.layers is not None:
            raise SpecError(f"schedule {schedule!r} leaves nothing for r={r} to say; give the list itself as r")
    if attention not in get_args(Route):
        raise SpecError(f"attention is {attention!r}; use {', '.join(get_args(Route))}")
    if rope not in get_args(Rope):
        raise SpecError(f"rope is {rope!r}; use {', '.join(get_args(Rope))}")
    chooses, r_layers = _method(method, options), shape.r_layers(mean, backbone.depth)
    if predictors is not None and not chooses.trained:
        raise SpecError(f"predictors are weights of a trained method, and {method} is none; leave predictors out")
    kind = ReducedViT
    if is_of_transformers(model):
        from tomebench.backbones.hf_outputs import ReducedHF

        kind = ReducedHF
    return kind(
        backbone,
        chooses,
        r_layers,
        prop_attn=prop_attn,
        attention=attention,
        prefix_only=prefix_only,
        rope=rope,
        learned=learned_module(backbone, chooses, r_layers, None if predictors is None else Path(predictors)),
    )


def _method(name: str, options: Mapping[str, Any]) -> Method:
    """Build a method from its name and options: those of ToMe, and those of the method's own class."""
    known = dict.fromkeys([*OPTIONS, *option_names(method_class(name))])
    if unknown := [option for option in options if option not in known]:
        raise SpecError(f"there is no option {unknown[0]!r}; use {', '.join(known)}")
    flags = {option: value for option, value in options.items() if option in OPTIONS}
    own = tuple((option, value) for option, value in options.items() if option not in flags)
    return Options(**flags, more=own).method(name)


def _read_r(r: int | Sequence[int]) -> tuple[int, tuple[int, ...] | None]:
    """Read r as (mean r of a schedule, None) or (0, r of each block); integers of any library are accepted."""
    try:
        if isinstance(r, Iterable):
            return 0, tuple(operator.index(value) for value in r)
        return operator.index(r), None
    except TypeError:
        raise SpecError(f"r is {r!r}; give a whole number such as 8, or a list with one for each block") from None
