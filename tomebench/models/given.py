"""A model passed as an ``nn.Module`` instead of by name: check it and copy it, so that measuring does not change it."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from tomebench.backbones.adapt import is_adapted
from tomebench.datasets.class_lists import as_names
from tomebench.errors import ModelError, UnsupportedModelError
from tomebench.models.create import LoadedModel, head_of
from tomebench.models.digest import layers_digest, tensors_digest
from tomebench.models.hf_model import HFModel, is_placeholder, resize
from tomebench.models.hf_pixels import preprocessing_of
from tomebench.models.preprocess import Preprocessing, checked_settings
from tomebench.models.spec import PREFIX
from tomebench.reduction.vit import ReducedViT


def given_name(model: nn.Module) -> str:
    """Name of a passed model in the settings of a run: ``python:`` and timm's architecture name, else its class."""
    return PREFIX + _architecture(model)


def given_model(
    model: nn.Module,
    *,
    preprocessing: Any = None,
    class_names: str | None = None,
    evaluated: bool = False,
) -> LoadedModel:
    """Copy a model for measuring.

    Args:
        model: a ViT of timm or transformers, on any device; neither it nor its weights are changed.
        preprocessing: some of timm's settings (``mean``, ``std``, ``interpolation``, ``crop_pct``, ``crop_mode``) in
            place of those that the model carries in ``pretrained_cfg``; or an image processor of transformers.
        class_names: file with the names of the classes, or how folder names are sorted.
        evaluated: images are to be evaluated, so the model has to say how they are preprocessed.

    Returns:
        The copy in fp32, on the CPU and in evaluation mode; identified by a digest of its tensors and its layers.

    Raises:
        ModelError: tensors that are quantised, without storage or cannot be copied, or nothing says how images are
            preprocessed.
        UnsupportedModelError: a wrapper around a model, or one that merges tokens already.
        ConfigError: an unknown setting, or a value that it cannot have.
    """
    _refuse_wrapped(model)
    processor = preprocessing if hasattr(preprocessing, "to_dict") else None
    stated = checked_settings({} if processor is not None else preprocessing or {})
    published = getattr(model, "pretrained_cfg", None)
    if evaluated and processor is None and not published and not {"mean", "std"} <= {*stated}:
        raise ModelError(
            "the model has no pretrained_cfg, so nothing says how its images are normalised; pass preprocessing="
            "{'mean': (...), 'std': (...), 'interpolation': ..., 'crop_pct': ...}, or transformers' image processor"
        )
    odd = [name for name, value in model.state_dict().items() if not isinstance(value, Tensor) or value.is_quantized]
    if odd:
        raise ModelError(f"the model's {odd[0]} is no tensor of numbers, as in a quantised model; pass one in fp32")
    if any(tensor.is_meta for tensor in model.state_dict().values()):
        raise ModelError("the model is on meta, without weights; pass one with weights")
    try:
        mine: Any = copy.deepcopy(model).cpu().float().eval().requires_grad_(True)
    except (RuntimeError, TypeError) as error:
        raise ModelError(
            f"the model cannot be copied ({str(error)[:120]}); pass it without hooks and graphs"
        ) from error
    listed = as_names(_as_dict(published).get("label_names"), "label_names of the model's pretrained_cfg")
    if type(model).__module__.startswith("transformers."):
        mine = HFModel(mine)
        if mine.num_classes:
            listed = as_names(mine.model.config.id2label, "id2label of the model's config")
            listed = None if listed is None or is_placeholder(listed) else listed
    mine.pretrained_cfg = {**_as_dict(published), **stated}
    if processor is not None:
        own = None if isinstance(mine, HFModel) else Preprocessing.from_model(mine).input_size[-1]
        mine.preprocessing = preprocessing_of(processor, own)
        if isinstance(mine, HFModel):
            resize(mine.model, mine.preprocessing.input_size[-1])
    head = head_of(mine, class_names, [] if listed is None else [listed])
    digest = hashlib.sha256(f"{tensors_digest(model)}{layers_digest(model)}".encode()).hexdigest()[:16]
    return LoadedModel(mine, _architecture(model), f"sha256:{digest}", head)


def _refuse_wrapped(model: nn.Module) -> None:
    if isinstance(model, ReducedViT):
        raise UnsupportedModelError("the model merges tokens already; pass the one it was made of, r does the merging")
    inside = [(name, child) for name, child in model.named_children() if is_adapted(child)]
    if inside and not is_adapted(model):
        what = f"{type(model).__name__} holds a {type(inside[0][1]).__name__} as .{inside[0][0]}"
        raise UnsupportedModelError(f"{what}; pass that, if its answers are the wrapper's")


def _architecture(model: nn.Module) -> str:
    return str(_as_dict(getattr(model, "pretrained_cfg", None)).get("architecture") or type(model).__name__)


def _as_dict(config: Any) -> dict[str, Any]:
    """A ``pretrained_cfg`` of timm as a dict: it may be None, a mapping, or an object with ``to_dict``."""
    if config is None:
        return {}
    return dict(config) if isinstance(config, Mapping) else dict(config.to_dict())
