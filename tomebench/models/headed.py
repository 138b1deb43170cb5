"""Zero-shot class heads: scores of classes by the cosine of image features and an embedding of each class."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from tomebench.backbones.adapt import adapt
from tomebench.datasets.class_lists import as_names
from tomebench.datasets.classes import ClassNames
from tomebench.datasets.decode import printable
from tomebench.errors import ModelError
from tomebench.models.weights_file import digest, read_content, short
from tomebench.words import counted

if TYPE_CHECKING:
    from tomebench.models.create import LoadedModel

EMBEDDINGS, SCALE, BIAS = "class_embeddings", "logit_scale", "logit_bias"
"""Names of the tensors of a file: [classes, D]; what cosines are multiplied by, and what is added to them."""
ABOUT = "tomebench"
"""The one key of the file's metadata: class names, templates and the model, as a JSON object."""


class ClassEmbeddings(nn.Module):
    """Zero-shot class head: image features [B, D] to scores [B, classes], their scaled cosines with class embeddings.

    Args:
        embeddings: of the classes [classes, D]; they need not be of length one.
        scale: what cosines are multiplied by.
        bias: what is added then.
    """

    weight: Tensor

    def __init__(self, embeddings: Tensor, scale: float = 1.0, bias: float = 0.0) -> None:
        super().__init__()
        self.register_buffer("weight", embeddings / embeddings.norm(dim=-1, keepdim=True))
        self.scale, self.bias = scale, bias

    def forward(self, features: Tensor) -> Tensor:
        """[B, D] -> [B, classes]."""
        cosines = (features / features.norm(dim=-1, keepdim=True)) @ self.weight.t()
        return cosines * self.scale + self.bias


class Headed(nn.Module):
    """A model with a class head of ours on its image features.

    Args:
        model: maps images to features [B, D].
        class_head: maps features to scores [B, classes].
    """

    def __init__(self, model: nn.Module, class_head: ClassEmbeddings) -> None:
        super().__init__()
        # Any: what other code reads of a model is looked up on it.
        self.model: Any = model
        self.class_head = class_head

    @property
    def num_classes(self) -> int:
        """Outputs of the class head."""
        return int(self.class_head.weight.shape[0])

    def forward(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] -> scores [B, classes]."""
        scores: Tensor = self.class_head(self.model(images))
        return scores

    # What preprocessing and counting read of the model, where it has it.

    preprocessing = property(lambda self: getattr(self.model, "preprocessing", None))
    pretrained_cfg = property(lambda self: getattr(self.model, "pretrained_cfg", None))
    img_size = property(lambda self: getattr(self.model, "img_size", None))
    patch_embed = property(lambda self: getattr(self.model, "patch_embed", self.model))
    in_chans = property(lambda self: getattr(self.model, "in_chans", 3))


def with_class_embeddings(loaded: LoadedModel, path: Path) -> LoadedModel:
    """Put a zero-shot class head on a model.

    Args:
        loaded: its outputs are image features.
        path: file of class embeddings.

    Raises:
        ModelError: the file cannot be used, or its embeddings have another width than the features.
    """
    tensors, names = _read(path)
    embeddings = tensors[EMBEDDINGS]
    backbone = adapt(loaded.model)
    like = next(loaded.model.parameters())
    tokens = torch.zeros(1, backbone.tokens, backbone.macs().blocks[-1].width, device=like.device, dtype=like.dtype)
    with torch.no_grad():
        width = backbone.head(tokens, None, False).shape[-1]
    if embeddings.shape[1] != width:
        raise ModelError(
            f"class embeddings {printable(path)}: they have {counted(embeddings.shape[1], 'channel')}, and the image "
            f"features of {loaded.timm_id} {width}; embed the classes with its own text model"
        )
    scale, bias = (float(tensors.get(name, torch.tensor(other))) for name, other in ((SCALE, 1.0), (BIAS, 0.0)))
    model = Headed(loaded.model, ClassEmbeddings(embeddings, scale, bias).to(like.device)).eval()
    head = replace(loaded.head, num_classes=model.num_classes, found=() if names is None else (names,))
    return replace(loaded, model=model, head=head, weights=f"{loaded.weights} with classes {digest(path)}")


def write_class_embeddings(path: Path, embeddings: Tensor, scale: float, bias: float, about: dict[str, Any]) -> None:
    """Write a file of class embeddings.

    Args:
        path: of the file.
        embeddings: float32 [classes, D].
        scale: what cosines are multiplied by.
        bias: what is added then.
        about: ``classes``, their names in order; and what else is to be known of them.
    """
    tensors = {EMBEDDINGS: embeddings.contiguous(), SCALE: torch.tensor(scale), BIAS: torch.tensor(bias)}
    save_file(tensors, path, metadata={ABOUT: json.dumps(about, allow_nan=False)})


def _read(path: Path) -> tuple[dict[str, Tensor], ClassNames | None]:
    what = f"class embeddings {printable(path)}"
    if not path.is_file():
        raise ModelError(f"{what}: no such file; tomebench embed-classes writes one")
    content = read_content(path)
    found = content.get(EMBEDDINGS) if isinstance(content, dict) else None
    if not isinstance(found, Tensor) or found.ndim != 2 or not found.is_floating_point() or 0 in found.shape:
        raise ModelError(f"{what}: holds no tensor {EMBEDDINGS} of a row for each class; give a file of embed-classes")
    if not bool(torch.isfinite(found).all()) or bool((found.norm(dim=-1) == 0).any()):
        raise ModelError(f"{what}: a class has an embedding of zeros or of no numbers; embed the classes again")
    tensors = {EMBEDDINGS: found.float()}
    for name in (SCALE, BIAS):
        if isinstance(each := content.get(name), Tensor):
            if each.numel() != 1 or not bool(torch.isfinite(each).all()):
                raise ModelError(f"{what}: {name} is not one number; embed the classes again")
            tensors[name] = each.float().reshape(())
    try:
        with safe_open(path, "pt") as file:
            about = json.loads((file.metadata() or {}).get(ABOUT, "{}"))
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{what}: its metadata cannot be read ({short(error)}); embed the classes again") from error
    names = as_names(about.get("classes") if isinstance(about, dict) else None, f"classes in {printable(path)}")
    if names is not None and len(names.names) != len(found):
        raise ModelError(
            f"{what}: {counted(len(names.names), 'name')} for {counted(len(found), 'class')}; embed the classes again"
        )
    return tensors, names
