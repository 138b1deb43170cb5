"""From a name (alias, preset, timm id with tag) to a model with random, shipped, given or downloaded weights."""

from __future__ import annotations

import difflib
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from huggingface_hub import constants, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import logging as hub_logging
from timm.models import get_pretrained_cfg
from torch import nn

from tomebench.errors import ModelError
from tomebench.models import mae_vit, torchvision_vit
from tomebench.models.aliases import ALIASES, MAE, PRESETS, TORCHVISION
from tomebench.models.checkpoint import load_checkpoint


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to run: fp32, on the CPU (or on meta), in evaluation mode."""

    model: nn.Module
    timm_id: str  # with tag; for a preset its name
    weights: str  # random:<seed>, pretrained or sha256:<digest>


def resolve_model_name(name: str) -> str:
    """The full id with tag that a name stands for; presets stand for themselves.

    Raises:
        ModelError: unknown name or tag; the message names the nearest one.
    """
    if name in PRESETS:
        return name
    name = ALIASES[name].timm_id if name in ALIASES else name
    base, _, tag = name.partition(".")
    if not timm.is_model(base):
        near = difflib.get_close_matches(base, [*PRESETS, *ALIASES], n=1)
        near += difflib.get_close_matches(base, timm.list_models(), n=2)
        hint = f"did you mean {' or '.join(near)}?" if near else "see: tomebench list models"
        raise ModelError(f"unknown model {name[:80]!r}; {hint}")
    if tag:
        tags = [full.partition(".")[2] for full in timm.list_pretrained(f"{base}.*")]
        if tag not in tags:
            hint = f"it has {', '.join(tags)}" if tags else "it has none"
            raise ModelError(f"model {base!r} has no tag {tag!r}; {hint}")
        return name
    config = get_pretrained_cfg(base, allow_unregistered=True)
    return f"{base}.{config.tag}" if config is not None and config.tag else base


@dataclass(frozen=True)
class WeightsFile:
    """A file of weights, as its authors publish it."""

    name: str
    where: str

    def __str__(self) -> str:
        return f"{self.name}, published {self.where}"


def weights_file(name: str) -> WeightsFile | None:
    """The file of a preset's weights; None for the demo's, which are shipped, and for what timm fetches."""
    if name in TORCHVISION:
        preset = TORCHVISION[name]
        return WeightsFile(torchvision_vit.file_name(preset), f"by torchvision as {preset.weights}")
    if name in MAE:
        return WeightsFile(MAE[name].file, f"at {MAE[name].url}")
    return None


def build_model(name: str, *, img_size: int | None = None, meta: bool = False, seed: int = 0) -> LoadedModel:
    """Build a model with random weights; needs no network.

    Args:
        name: alias, preset or timm id.
        img_size: input height and width in pixels; None is the model's own.
        meta: build it without storage, for its shapes only.
        seed: of the random weights; the caller's random state is left alone.

    Raises:
        ModelError: unknown name, or an image size that the model cannot take.
    """
    timm_id = resolve_model_name(name)
    kwargs: dict[str, Any] = {} if img_size is None else {"img_size": img_size}
    with torch.random.fork_rng(devices=[]), torch.device("meta" if meta else "cpu"):
        torch.manual_seed(seed)
        model: nn.Module
        try:
            if timm_id in TORCHVISION:
                model = torchvision_vit.create_model(TORCHVISION[timm_id], **kwargs)
            elif timm_id in MAE:
                model = mae_vit.create_model(MAE[timm_id], **kwargs)
            elif timm_id in PRESETS:
                from tomebench.models.digits_vit import create_model

                model = create_model(**kwargs)
            else:
                model = timm.create_model(timm_id, **kwargs)
        except (TypeError, AssertionError, ValueError, RuntimeError) as error:
            what = f"at {img_size} pixels" if img_size is not None else "with its default settings"
            raise ModelError(f"model {timm_id} cannot be built {what}: {error}") from error
    if getattr(getattr(model, "patch_embed", None), "num_patches", 1) == 0:
        raise ModelError(f"model {timm_id} cannot be built at {img_size} pixels: that is less than one patch")
    return LoadedModel(model.eval(), timm_id, f"random:{seed}")


def load_model(
    name: str,
    *,
    checkpoint: Path | None = None,
    pretrained: bool = False,
    img_size: int | None = None,
    offline: bool = False,
    seed: int = 0,
) -> LoadedModel:
    """Build a model and give it weights.

    Args:
        name: alias, preset or timm id.
        checkpoint: file with the weights; goes before everything else.
        pretrained: fetch the weights that the id names through timm. The demo's preset always has its own; the other
            presets take them from a file.
        img_size: input height and width in pixels; None is the model's own.
        offline: refuse to touch the network, as HF_HUB_OFFLINE does; weights must be in the local cache.
        seed: of random weights, which are used when nothing else is asked for.

    Raises:
        ModelError: unknown name, or weights that cannot be had or do not fit.
    """
    file = weights_file(name)
    if pretrained and checkpoint is None and file is not None:
        raise ModelError(f"{name} takes its weights from a file: {file}; pass it with --checkpoint")
    loaded = build_model(name, img_size=img_size, seed=seed)
    if checkpoint is not None:
        return LoadedModel(loaded.model, loaded.timm_id, load_checkpoint(loaded.model, checkpoint))
    if loaded.timm_id in PRESETS and file is None:
        from tomebench.models.digits_vit import WEIGHTS

        return LoadedModel(loaded.model, loaded.timm_id, load_checkpoint(loaded.model, WEIGHTS))
    if not pretrained:
        return loaded
    return LoadedModel(_fetch(loaded.timm_id, img_size, offline), loaded.timm_id, "pretrained")


def is_cached(timm_id: str) -> bool:
    """Whether the pretrained weights of a timm model have been fetched before."""
    repository = _repository(timm_id)
    return bool(repository) and isinstance(try_to_load_from_cache(repository, "model.safetensors"), str)


def _repository(timm_id: str) -> str:
    """Where the weights of a timm model are on the hub; empty where they are not."""
    config = get_pretrained_cfg(timm_id, allow_unregistered=True)
    hub_id = "" if config is None else config.hf_hub_id or ""
    return f"{hub_id}{timm_id}" if hub_id.endswith("/") else hub_id


def _fetch(timm_id: str, img_size: int | None, offline: bool) -> nn.Module:
    """A timm model with the pretrained weights of its tag."""
    config = get_pretrained_cfg(timm_id, allow_unregistered=True)
    if config is None or not config.has_weights:
        raise ModelError(f"timm has no pretrained weights for {timm_id}; pass a file with --checkpoint")
    asked = "--offline" if offline else "HF_HUB_OFFLINE"
    offline = offline or constants.HF_HUB_OFFLINE
    if offline and not is_cached(timm_id):
        raise ModelError(
            f"{asked}: model.safetensors of {_repository(timm_id) or timm_id} is not in the local cache; "
            "download it beforehand or pass a file with --checkpoint"
        )
    kwargs: dict[str, Any] = {} if img_size is None else {"img_size": img_size}
    verbosity = hub_logging.get_verbosity()
    hub_logging.set_verbosity_error()  # it logs every retry; the error below says it once
    try:
        model: nn.Module = timm.create_model(timm_id, pretrained=True, **kwargs)
    except (OSError, RuntimeError, ValueError, HfHubHTTPError) as error:
        reason = textwrap.shorten(str(error), 160, placeholder=" ...")
        raise ModelError(
            f"the pretrained weights of {timm_id} cannot be fetched ({reason}); pass a file with --checkpoint"
        ) from error
    finally:
        hub_logging.set_verbosity(verbosity)
    return model.eval()
