"""Registry of backbone adapters by model class. An entry is data; its code is imported when it is used.

To add an adapter:

1. Write ``tomebench/backbones/NAME.py``: a class that is made of a model and has what
   :class:`tomebench.reduction.backbone.Backbone` asks for.
2. Add an entry to ``ADAPTERS``.
   A class of transformers needs an entry in :mod:`tomebench.backbones.hf_kinds` alone.
3. Compare r = 0 with the model itself in ``tests/backbones``.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module

from torch import nn

from tomebench.backbones.hf_kinds import KINDS, TRANSFORMERS
from tomebench.backbones.timm_vit import TimmViT
from tomebench.errors import UnsupportedModelError
from tomebench.reduction.backbone import Backbone

_ROOM = "tomebench.backbones"
HF_CLASSES: tuple[str, ...] = tuple(KINDS)
"""Names of the classes of transformers that are adapted."""
ADAPTERS: Mapping[str, str] = {
    "timm.models.vision_transformer.VisionTransformer": f"{_ROOM}.timm_vit:TimmViT",
    "timm.models.deit.VisionTransformerDistilled": f"{_ROOM}.timm_vit:TimmViT",
    "timm.models.eva.Eva": f"{_ROOM}.timm_eva:TimmEva",
    "timm.models.naflexvit.NaFlexVit": f"{_ROOM}.timm_naflex:TimmNaFlex",
    "timm.models.beit.Beit": f"{_ROOM}.timm_relative:TimmRelative",
    "timm.models.vision_transformer_relpos.VisionTransformerRelPos": f"{_ROOM}.timm_relative:TimmRelative",
    "tomebench.models.headed.Headed": f"{_ROOM}.headed:HeadedBackbone",
    "tomebench.models.hf_model.HFModel": f"{_ROOM}.hf_vit:HFViT",
    **dict.fromkeys(TRANSFORMERS, f"{_ROOM}.hf_vit:HFViT"),
}
"""The adapter of each class of models, as ``module:class``; a class by its module and name, so that none is imported.

A subclass needs an entry of its own, since nothing says what it changes.
"""


def is_adapted(model: nn.Module) -> bool:
    """Whether there is an adapter of the model's class, or of one that it inherits from."""
    return any(f"{kind.__module__}.{kind.__qualname__}" in ADAPTERS for kind in type(model).__mro__)


def adapt(model: nn.Module) -> Backbone:
    """The adapter of a model, which is used as it is: nothing is stored on it.

    Raises:
        UnsupportedModelError: the model has a part that merging does not know; names its class and attribute.
    """
    kind = type(model)
    target = ADAPTERS.get(f"{kind.__module__}.{kind.__qualname__}")
    if target is None:
        return TimmViT(model)  # raises, and names the part of the model that it does not know
    module, _, name = target.partition(":")
    try:
        kind_of_adapter = getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise UnsupportedModelError(f"the adapter {target} cannot be imported: {error}") from error
    adapter: Backbone = kind_of_adapter(model)
    return adapter
