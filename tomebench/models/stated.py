"""Class names and preprocessing settings that stand in a checkpoint beside its weights, or in files next to it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from torch import nn

from tomebench.datasets.class_lists import CONFIG, all_beside, lists_in, lists_in_config
from tomebench.datasets.classes import ClassNames
from tomebench.datasets.decode import printable
from tomebench.errors import ConfigError
from tomebench.models.checkpoint import Checkpoint
from tomebench.models.preprocess import checked_settings
from tomebench.regular import read_bytes

_SETTINGS = ("mean", "std", "interpolation", "crop_pct", "crop_mode")
_LARGEST = 16 << 20


def class_names(checkpoint: Checkpoint) -> list[ClassNames]:
    """Every list of class names in a checkpoint and in the files beside it.

    Raises:
        DataError: a list beside it cannot be read.
    """
    content = checkpoint.content or {}
    found: list[ClassNames] = []
    for place in (content, *_bags(content)):
        found += lists_in(place, printable(checkpoint.path.name))
    if (config := checkpoint.path.parent / CONFIG).is_file():
        found += lists_in_config(config)
    return found + all_beside(checkpoint.path.parent, of="the checkpoint")


def other_preprocessing(checkpoint: Checkpoint, model: nn.Module, name: str) -> str | None:
    """A note where a checkpoint, or the ``config.json`` beside it, has other preprocessing than the model; else None.

    Args:
        checkpoint: whose weights the model gets.
        model: with timm's ``pretrained_cfg``, by which images are preprocessed.
        name: of the model.
    """
    own: Mapping[str, Any] = getattr(model, "pretrained_cfg", None) or {}
    for where, place, how in _places(checkpoint):
        differing = {
            key: value
            for key in _SETTINGS
            if (value := _checked(key, place.get(key))) is not None and own.get(key) not in (None, value)
        }
        if differing:
            said = ", ".join(f"{key} {_shown(value)} (not {_shown(own[key])})" for key, value in differing.items())
            return f"{where} says {said}; images are preprocessed as {name} wants them, {how} takes the others"
    return None


def _places(checkpoint: Checkpoint) -> Iterator[tuple[str, Mapping[Any, Any], str]]:
    """Places with settings of preprocessing, the most specific first: (name, settings, how to have them used)."""
    path = checkpoint.path
    for bag in _bags(checkpoint.content or {}):
        yield f"the checkpoint {printable(path.name)}", bag, "preprocessing= of tomebench.sweep(model, ...)"
    with suppress(OSError, ValueError, RecursionError):  # a damaged one is named where class names are read from it
        config = json.loads(read_bytes(str(path.parent / CONFIG), most=_LARGEST))
        if isinstance(config, dict) and isinstance(inner := config.get("pretrained_cfg"), dict):
            yield f"the {CONFIG} beside the checkpoint", inner, f"--model local-dir:{printable(path.parent)}"


def _checked(key: str, value: Any) -> Any:
    """A setting in the type that a model's ``pretrained_cfg`` has; None where the value cannot be used."""
    if value in (None, "", "random"):
        return None
    try:
        return checked_settings({key: value})[key]
    except ConfigError:
        return None


def _shown(value: Any) -> str:
    return " ".join(f"{each:g}" for each in value) if isinstance(value, tuple) else str(value)


def _bags(content: Mapping[Any, Any]) -> Iterator[Mapping[Any, Any]]:
    """The dictionaries of a checkpoint in which training code keeps its settings."""
    for key in ("args", "hyper_parameters", "config", "meta"):
        bag = content.get(key)
        if isinstance(bag, argparse.Namespace):
            yield vars(bag)
        elif isinstance(bag, Mapping):
            yield bag
