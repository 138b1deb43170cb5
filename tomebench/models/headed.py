"""Headed: a model with a class head from a file on its image features, in place of its own if it has one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from tomebench.backbones.adapt import adapt
from tomebench.datasets.decode import printable
from tomebench.errors import ModelError
from tomebench.models.class_heads import ClassEmbeddings, FeatureHead
from tomebench.models.digest import tensors_digest
from tomebench.models.head_files import read_head
from tomebench.models.hf_model import HFModel
from tomebench.models.weights_file import digest
from tomebench.words import counted

if TYPE_CHECKING:
    from tomebench.models.create import LoadedModel

_POSITIONS = ("pos_embed", "position_embedding", "position_ids", "relative_position", "rel_pos", "rope")


class Headed(nn.Module):
    """A model with a class head of ours on its image features.

    Args:
        model: maps images to features [B, D].
        class_head: maps features to scores [B, classes].
    """

    def __init__(self, model: nn.Module, class_head: FeatureHead) -> None:
        super().__init__()
        # Any: what other code reads of a model is looked up on it.
        self.model: Any = model
        self.class_head = class_head

    @property
    def num_classes(self) -> int:
        """Outputs of the class head."""
        return self.class_head.num_classes

    def forward(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] -> scores [B, classes]."""
        scores: Tensor = self.class_head(self.model(images))
        return scores

    # What preprocessing and counting read of the model, where it has it.

    preprocessing = property(lambda self: getattr(self.model, "preprocessing", None))
    pretrained_cfg = property(lambda self: getattr(self.model, "pretrained_cfg", None) or {})
    img_size = property(lambda self: getattr(self.model, "img_size", None))
    patch_embed = property(lambda self: getattr(self.model, "patch_embed", self.model))
    embeds = property(lambda self: getattr(self.model, "embeds", None))
    in_chans = property(lambda self: getattr(self.model, "in_chans", 3))
    grad_checkpointing = property(lambda self: getattr(self.model, "grad_checkpointing", False))


def remove_class_head(model: Any) -> None:
    """Take the class head off a model of timm or transformers, which then maps images to features [B, D].

    Args:
        model: changed in place.
    """
    if isinstance(model, HFModel):
        model.remove_class_head()
    else:
        model.reset_classifier(0)


def with_class_head(loaded: LoadedModel, path: Path, *, evaluated: bool) -> LoadedModel:
    """Put the class head of a file on a model.

    Args:
        loaded: its own head gives way to a k-NN head or a linear probe; a zero-shot head reads its outputs.
        path: of the file.
        evaluated: its answers count, so the head has to be fitted on features of these weights, if on any.

    Raises:
        ModelError: the file cannot be used, or its head reads features of another width or of other weights.
    """
    file, notes = read_head(path), loaded.notes
    if not isinstance(file.head, ClassEmbeddings):
        remove_class_head(loaded.model)
        if evaluated and file.weights not in (None, features_digest(loaded.model)):
            raise ModelError(
                f"class head {printable(path)}: it was fitted on features of other weights, of {file.model}; fit it on "
                "these with tomebench fit-head"
            )
    elif evaluated and file.weights not in (None, loaded.weights):
        notes += (f"the class embeddings are by the text model of {file.model}, the images are not its",)
    width, like = feature_width(loaded.model), next(loaded.model.parameters())
    if file.width != width:
        raise ModelError(
            f"class head {printable(path)}: it reads {counted(file.width, 'channel')}, and the image features of "
            f"{loaded.timm_id} have {width}; write it for this model"
        )
    model = Headed(loaded.model, file.head.to(like.device)).eval()
    head = replace(loaded.head, num_classes=model.num_classes, found=(), fitted_on=file.fitted_on)
    if head.chosen is None and head.order is None:  # the order of a file's classes is its own, and no guess
        head = replace(head, chosen=file.names)
    weights = f"{loaded.weights} with {file.head.KIND} head {digest(path)}"
    return replace(loaded, model=model, head=head, weights=weights, notes=notes)


def features_digest(model: nn.Module) -> str:
    """Digest of what a model without class head makes features by, but for positions: those follow the image size."""
    return f"sha256:{tensors_digest(model, without=_POSITIONS)}"


@torch.no_grad()
def feature_width(model: nn.Module) -> int:
    """Channels of a model's outputs."""
    backbone, like = adapt(model), next(model.parameters())
    tokens = torch.zeros(1, backbone.tokens, backbone.macs().blocks[-1].width, device=like.device, dtype=like.dtype)
    return int(backbone.head(tokens, None, False).shape[-1])
