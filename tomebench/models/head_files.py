"""Files of class heads on image features: safetensors, which ``embed-classes`` and ``fit-head`` write."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from tomebench.datasets.class_lists import as_names
from tomebench.datasets.classes import ClassNames
from tomebench.datasets.decode import printable
from tomebench.errors import InputError, ModelError
from tomebench.models.class_heads import ClassEmbeddings, FeatureHead, LinearProbe, NearestNeighbours
from tomebench.models.weights_file import read_content, short
from tomebench.vocabulary import MOST_CLASSES
from tomebench.whole import write_whole
from tomebench.words import counted

EMBEDDINGS, SCALE, BIAS = "class_embeddings", "logit_scale", "logit_bias"
"""Tensors of a zero-shot head: [classes, D]; what cosines are multiplied by, and what is added to them."""
FEATURES, LABELS = "features", "labels"
"""Tensors of a k-NN head: [n, D], and their classes, int64 [n]."""
WEIGHT, OFFSET = "weight", "bias"
"""Tensors of a linear probe: [classes, D] and [classes]."""
FITTED_ON = "fitted_on"
"""Digests of the images that a head was fitted on, uint8 [n, 16]."""
_DIGEST = 16  # bytes of :func:`tomebench.datasets.files.bytes_digest`
ABOUT = "tomebench"
"""The one key of the file's metadata: class names, and where the head comes from, as a JSON object."""
MOST_NEIGHBOURS = 1000
"""Most neighbours that vote: a pass holds a number for each image, neighbour and class."""


@dataclass(frozen=True)
class HeadFile:
    """A class head from a file."""

    head: FeatureHead
    names: ClassNames | None  # of its classes
    fitted_on: frozenset[str]  # digests of the images that it was fitted on; empty where it was not fitted
    weights: str | None  # of the model that it belongs to; None: unknown
    model: str | None  # name of that model

    @property
    def width(self) -> int:
        """Channels of the features that it reads."""
        return int(self.head.weight.shape[1])


def write_head(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """Write a class head, whole or not at all.

    Args:
        path: of the file.
        tensors: by the names above.
        about: ``classes``, their names in order; what is no tensor of a head; and what else is to be known of it.

    Raises:
        OSError: it cannot be written.
    """
    whole = {name: tensor.contiguous() for name, tensor in tensors.items()}
    write_whole(path, save(whole, metadata={ABOUT: json.dumps(dict(about), allow_nan=False)}))


def check_head_file(path: Path) -> None:
    """Raise unless a class head can be written to a file, which is new or holds one.

    Raises:
        InputError: it holds something else, or is not named as safetensors are.
    """
    if path.suffix != ".safetensors":
        raise InputError(f"--out {path}: give the name of a .safetensors file")
    if path.exists():
        try:
            read_head(path)
        except ModelError as error:
            raise InputError(f"--out {path} is there already, and holds no class head; give another name") from error


def read_head(path: Path) -> HeadFile:
    """Read a class head.

    Raises:
        ModelError: the file cannot be used.
    """
    what = f"class head {printable(path)}"
    if not path.is_file():
        raise ModelError(f"{what}: no such file; tomebench embed-classes or fit-head writes one")
    content = read_content(path)
    tensors = {
        name: each.float() if each.is_floating_point() else each
        for name, each in (content if isinstance(content, dict) else {}).items()
        if isinstance(each, Tensor) and not each.is_complex()
    }
    about = _about(path, what)
    if EMBEDDINGS in tensors:
        head: FeatureHead = _zero_shot(tensors, what)
    elif FEATURES in tensors:
        head = _neighbours(tensors, about, what)
    elif WEIGHT in tensors:
        head = _linear(tensors, what)
    else:
        raise ModelError(
            f"{what}: holds no tensor {EMBEDDINGS}, {FEATURES} or {WEIGHT} of a class head; give a file of "
            "embed-classes or fit-head"
        )
    names = as_names(about.get("classes"), printable(path))
    if names is not None and len(names.names) != head.num_classes:
        raise ModelError(
            f"{what}: {counted(len(names.names), 'name')} for {counted(head.num_classes, 'class')}; write it again"
        )
    digests = tensors.get(FITTED_ON, torch.empty(0, _DIGEST, dtype=torch.uint8))
    if digests.dtype != torch.uint8 or digests.ndim != 2 or digests.shape[1] != _DIGEST:
        raise ModelError(f"{what}: {FITTED_ON} holds no digests; fit it again")
    weights, model = (each if isinstance(each := about.get(key), str) else None for key in ("weights", "model"))
    return HeadFile(head, names, frozenset(bytes(row).hex() for row in digests.numpy()), weights, model)


def _about(path: Path, what: str) -> dict[str, Any]:
    try:
        with safe_open(path, "pt") as file:
            about = json.loads((file.metadata() or {}).get(ABOUT, "{}"))
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{what}: its metadata cannot be read ({short(error)}); write it again") from error
    return about if isinstance(about, dict) else {}


def _matrix(tensors: Mapping[str, Tensor], name: str, what: str) -> Tensor:
    """A tensor with a row for each class or image, in float32."""
    found = tensors[name]
    if found.ndim != 2 or found.dtype != torch.float32 or 0 in found.shape:
        raise ModelError(f"{what}: {name} is no matrix of numbers; write it again")
    if not bool(torch.isfinite(found).all()):
        raise ModelError(f"{what}: {name} holds what is no number; write it again")
    return found


def _zero_shot(tensors: Mapping[str, Tensor], what: str) -> ClassEmbeddings:
    embeddings = _matrix(tensors, EMBEDDINGS, what)
    if bool((embeddings.norm(dim=-1) == 0).any()):
        raise ModelError(f"{what}: a class has an embedding of zeros; embed the classes again")
    numbers = []
    for name, usual in ((SCALE, 1.0), (BIAS, 0.0)):
        each = tensors.get(name, torch.tensor(usual))
        if each.numel() != 1 or not bool(torch.isfinite(each).all()):
            raise ModelError(f"{what}: {name} is not one number; embed the classes again")
        numbers.append(float(each))
    return ClassEmbeddings(embeddings, *numbers)


def _neighbours(tensors: Mapping[str, Tensor], about: Mapping[str, Any], what: str) -> NearestNeighbours:
    features, labels = _matrix(tensors, FEATURES, what), tensors.get(LABELS)
    if labels is None or labels.dtype != torch.int64 or labels.shape != features.shape[:1]:
        raise ModelError(f"{what}: {LABELS} holds no class of each of the {FEATURES}; fit it again")
    classes = about.get("classes")
    count = len(classes) if isinstance(classes, list) else int(labels.max()) + 1
    if int(labels.min()) < 0 or int(labels.max()) >= count or count > MOST_CLASSES:
        raise ModelError(f"{what}: {LABELS} holds a class that it does not name; fit it again")
    k, temperature, most = about.get("k"), about.get("temperature"), min(len(features), MOST_NEIGHBOURS)
    if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= most:
        raise ModelError(f"{what}: its k is no number from 1 to {most}; fit it again")
    if isinstance(temperature, bool) or not isinstance(temperature, int | float) or not 0 < temperature < math.inf:
        raise ModelError(f"{what}: its temperature is no number above 0; fit it again")
    return NearestNeighbours(features, labels, count, k, float(min(temperature, sys.float_info.max)))


def _linear(tensors: Mapping[str, Tensor], what: str) -> LinearProbe:
    weight, bias = _matrix(tensors, WEIGHT, what), tensors.get(OFFSET)
    if bias is None or bias.shape != weight.shape[:1] or not bool(torch.isfinite(bias).all()):
        raise ModelError(f"{what}: {OFFSET} holds no number for each row of {WEIGHT}; fit it again")
    return LinearProbe(weight, bias.float())
