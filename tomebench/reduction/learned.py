"""Learned: weights of a trained method, read from a safetensors file with what its metadata say of their training."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tomebench.errors import ModelError
from tomebench.regular import read_bytes

if TYPE_CHECKING:
    from torch import Tensor, nn

    from tomebench.reduction.backbone import Backbone
    from tomebench.reduction.method import Method

ABOUT = "tomebench"
"""The one key of the file's metadata: what is known of the training, as a JSON object."""
_LARGEST_HEADER = 16 * 2**20


@dataclass(frozen=True, eq=False)
class Learned:
    """Tensors and metadata of one file."""

    path: Path
    digest: str  # sha256:<16 hex digits> of the file
    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, Any]


def read_learned(path: Path) -> Learned:
    """Read the weights of a trained method; a file that has not changed since is read once.

    Raises:
        ModelError: no such file, or none of safetensors.
    """
    try:
        found = path.stat()
    except OSError as error:
        raise ModelError(f"predictors {path}: {error.strerror}; give the file that train-predictors wrote") from error
    return _read(path, found.st_mtime_ns, found.st_size)


def learned_module(backbone: Backbone, method: Method, r_layers: Sequence[int], file: Path | None) -> nn.Module | None:
    """The module of a trained method that removes tokens, from a file; None for any other method, or without a file.

    Raises:
        SpecError: the file does not go with these blocks.
        ModelError: it cannot be read, or is not for this model or method.
    """
    if file is None or not method.trained or not any(r_layers):
        return None
    width = backbone.macs().blocks[0].width
    patches = backbone.tokens - backbone.prefix
    return method.module(read_learned(file), r_layers, width=width, patches=patches)


@functools.lru_cache(maxsize=8)
def _read(path: Path, *_: int) -> Learned:
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        data = read_bytes(str(path))
        tensors = load(data)
        length = int.from_bytes(data[:8], "little")
        if length > _LARGEST_HEADER:
            raise ValueError("its header is too long")
        metadata = json.loads(json.loads(data[8 : 8 + length])["__metadata__"][ABOUT])
        if not isinstance(metadata, dict):
            raise ValueError("no metadata of predictors")
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, RecursionError) as error:
        what = " ".join(str(getattr(error, "strerror", None) or error).split())
        raise ModelError(
            f"predictors {path}: no readable safetensors file ({what:.120}); give the file that train-predictors wrote"
        ) from error
    return Learned(path, f"sha256:{hashlib.sha256(data).hexdigest()[:16]}", tensors, metadata)
