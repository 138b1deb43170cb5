"""Published pretrained weights: fetch them through timm, or take them from the local cache of the Hugging Face hub."""

from __future__ import annotations

import textwrap
from typing import Any

import timm
from huggingface_hub import constants, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError
from timm.models import get_pretrained_cfg
from torch import nn

from tomebench.errors import ModelError
from tomebench.models.sources import HUB, not_cached, quiet_hub, split_hub_id


def is_cached(timm_id: str) -> bool:
    """Whether the pretrained weights of a timm model are in the local cache."""
    repository, revision = _repository(timm_id)
    names = ("model.safetensors", "pytorch_model.bin")
    return bool(repository) and any(
        isinstance(try_to_load_from_cache(repository, name, revision=revision), str) for name in names
    )


def _repository(timm_id: str) -> tuple[str, str | None]:
    """Hub repository of a timm model's weights, and its revision; empty where the hub has none."""
    if timm_id.startswith(HUB):
        return split_hub_id(timm_id)
    config = get_pretrained_cfg(timm_id, allow_unregistered=True)
    hub_id = "" if config is None else config.hf_hub_id or ""
    return (f"{hub_id}{timm_id}" if hub_id.endswith("/") else hub_id), None


def fetch(timm_id: str, img_size: int | None, offline: bool) -> nn.Module:
    """Load a timm model with the pretrained weights of its tag or repository: fp32, on the CPU, in evaluation mode.

    Args:
        timm_id: with tag, or ``hf-hub:ORG/NAME``.
        img_size: input height and width in pixels; None: the model's own.
        offline: take them from the local cache only.

    Raises:
        ModelError: there are none, or they cannot be had.
    """
    config = None if timm_id.startswith(HUB) else get_pretrained_cfg(timm_id, allow_unregistered=True)
    if not timm_id.startswith(HUB) and (config is None or not config.has_weights):
        raise ModelError(f"timm has no pretrained weights for {timm_id}; pass a file with --checkpoint")
    if (offline or constants.HF_HUB_OFFLINE) and not is_cached(timm_id):
        raise not_cached("model.safetensors", _repository(timm_id)[0] or timm_id, offline)
    kwargs: dict[str, Any] = {} if img_size is None else {"img_size": img_size}
    with quiet_hub(offline):
        try:
            model: nn.Module = timm.create_model(timm_id, pretrained=True, **kwargs)
        except (OSError, RuntimeError, ValueError, HfHubHTTPError) as error:
            reason = textwrap.shorten(str(error), 160, placeholder=" ...")
            raise ModelError(
                f"the pretrained weights of {timm_id} cannot be fetched ({reason}); pass a file with --checkpoint"
            ) from error
    return model.eval()
