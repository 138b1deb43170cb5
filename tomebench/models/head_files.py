"""Files of class heads on image features: safetensors, which ``embed-classes`` and ``fit-head`` write."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from tomebench.datasets.class_lists import as_names
from tomebench.datasets.classes import ClassNames
from tomebench.datasets.decode import printable
from tomebench.errors import ModelError
from tomebench.models.class_heads import AnyHead, ClassEmbeddings, LinearProbe, NearestNeighbours
from tomebench.models.weights_file import read_content, short
from tomebench.words import counted

EMBEDDINGS, SCALE, BIAS = "class_embeddings", "logit_scale", "logit_bias"
"""Tensors of a zero-shot head: [classes, D]; what cosines are multiplied by, and what is added to them."""
FEATURES, LABELS = "features", "labels"
"""Tensors of a k-NN head: [n, D], and their classes, int64 [n]."""
WEIGHT, OFFSET = "weight", "bias"
"""Tensors of a linear probe: [classes, D] and [classes]."""
FITTED_ON = "fitted_on"
"""Digests of the images that a head was fitted on, uint8 [n, 16]."""
ABOUT = "tomebench"
"""The one key of the file's metadata: class names, and where the head comes from, as a JSON object."""


@dataclass(frozen=True)
class HeadFile:
    """A class head from a file."""

    head: AnyHead
    names: ClassNames | None  # of its classes
    fitted_on: frozenset[str]  # digests of the images that it was fitted on; empty where it was not fitted
    weights: str | None  # of the model whose features it was fitted on; None: any of its width will do

    @property
    def width(self) -> int:
        """Channels of the features that it reads."""
        return int(self.head.weight.shape[1])


def write_head(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """Write a class head.

    Args:
        path: of the file.
        tensors: by the names above.
        about: ``classes``, their names in order; what is no tensor of a head; and what else is to be known of it.
    """
    whole = {name: tensor.contiguous() for name, tensor in tensors.items()}
    save_file(whole, path, metadata={ABOUT: json.dumps(dict(about), allow_nan=False)})


def read_head(path: Path) -> HeadFile:
    """Read a class head.

    Raises:
        ModelError: the file cannot be used.
    """
    what = f"class head {printable(path)}"
    if not path.is_file():
        raise ModelError(f"{what}: no such file; tomebench embed-classes or fit-head writes one")
    content = read_content(path)
    tensors = content if isinstance(content, dict) else {}
    about = _about(path, what)
    if EMBEDDINGS in tensors:
        head: AnyHead = _zero_shot(tensors, what)
    elif FEATURES in tensors:
        head = _neighbours(tensors, about, what)
    elif WEIGHT in tensors:
        head = _linear(tensors, what)
    else:
        raise ModelError(
            f"{what}: holds no tensor {EMBEDDINGS}, {FEATURES} or {WEIGHT} of a class head; give a file of "
            "embed-classes or fit-head"
        )
    names = as_names(about.get("classes"), f"classes in {printable(path)}")
    if names is not None and len(names.names) != head.num_classes:
        raise ModelError(
            f"{what}: {counted(len(names.names), 'name')} for {counted(head.num_classes, 'class')}; write it again"
        )
    digests = tensors.get(FITTED_ON, torch.empty(0, 16, dtype=torch.uint8))
    if not isinstance(digests, Tensor) or digests.dtype != torch.uint8 or digests.ndim != 2:
        raise ModelError(f"{what}: {FITTED_ON} holds no digests; fit it again")
    weights = about.get("weights")
    return HeadFile(
        head,
        names,
        frozenset(bytes(row).hex() for row in digests.numpy()),
        weights if isinstance(weights, str) and not isinstance(head, ClassEmbeddings) else None,
    )


def _about(path: Path, what: str) -> dict[str, Any]:
    try:
        with safe_open(path, "pt") as file:
            about = json.loads((file.metadata() or {}).get(ABOUT, "{}"))
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{what}: its metadata cannot be read ({short(error)}); write it again") from error
    return about if isinstance(about, dict) else {}


def _matrix(tensors: Mapping[str, Any], name: str, what: str) -> Tensor:
    """A tensor of a row for each class or image, in float32."""
    found = tensors[name]
    if not isinstance(found, Tensor) or found.ndim != 2 or not found.is_floating_point() or 0 in found.shape:
        raise ModelError(f"{what}: {name} is no matrix of numbers; write it again")
    if not bool(torch.isfinite(found).all()):
        raise ModelError(f"{what}: {name} holds what is no number; write it again")
    return found.float()


def _zero_shot(tensors: Mapping[str, Any], what: str) -> ClassEmbeddings:
    embeddings = _matrix(tensors, EMBEDDINGS, what)
    if bool((embeddings.norm(dim=-1) == 0).any()):
        raise ModelError(f"{what}: a class has an embedding of zeros; embed the classes again")
    numbers = []
    for name, usual in ((SCALE, 1.0), (BIAS, 0.0)):
        each = tensors.get(name, torch.tensor(usual))
        if not isinstance(each, Tensor) or each.numel() != 1 or not bool(torch.isfinite(each).all()):
            raise ModelError(f"{what}: {name} is not one number; embed the classes again")
        numbers.append(float(each))
    return ClassEmbeddings(embeddings, *numbers)


def _neighbours(tensors: Mapping[str, Any], about: Mapping[str, Any], what: str) -> NearestNeighbours:
    features, labels = _matrix(tensors, FEATURES, what), tensors.get(LABELS)
    if not isinstance(labels, Tensor) or labels.dtype != torch.int64 or labels.shape != features.shape[:1]:
        raise ModelError(f"{what}: {LABELS} holds no class of each of the {FEATURES}; fit it again")
    classes = about.get("classes")
    count = len(classes) if isinstance(classes, list) else int(labels.max()) + 1
    k, temperature = about.get("k"), about.get("temperature")
    if int(labels.min()) < 0 or int(labels.max()) >= count:
        raise ModelError(f"{what}: {LABELS} holds a class that it does not name; fit it again")
    if not isinstance(k, int) or not 1 <= k <= len(features):
        raise ModelError(f"{what}: its k is no number from 1 to {len(features)}; fit it again")
    if not isinstance(temperature, int | float) or not (math.isfinite(temperature) and temperature > 0):
        raise ModelError(f"{what}: its temperature is no number above 0; fit it again")
    return NearestNeighbours(features, labels, count, k, temperature)


def _linear(tensors: Mapping[str, Any], what: str) -> LinearProbe:
    weight, bias = _matrix(tensors, WEIGHT, what), tensors.get(OFFSET)
    if not isinstance(bias, Tensor) or bias.shape != weight.shape[:1] or not bool(torch.isfinite(bias).all()):
        raise ModelError(f"{what}: {OFFSET} holds no number for each row of {WEIGHT}; fit it again")
    return LinearProbe(weight, bias.float())
