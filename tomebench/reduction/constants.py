"""Cache of tensors that depend on shapes only, such as token indices: made once, not in every block of every pass."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, TypeVar

import torch
from torch.compiler import is_compiling

T = TypeVar("T")


class Constants:
    """Cache of the shape-dependent tensors of one model, kept as long as the model.

    At batch size 1 the time of a pass grows with its number of operations, so none is spent on what is the same in all
    passes. Entries are never freed: a CUDA graph reads the memory that they had when it was captured.
    """

    def __init__(self) -> None:
        self._kept: dict[Hashable, Any] = {}

    def __reduce__(self) -> tuple[type[Constants], tuple[()]]:
        """Copy and pickle as an empty cache, since the copy may live on another device."""
        return Constants, ()

    def get(self, make: Callable[..., T], *shape: Hashable, device: torch.device) -> T:
        """The cached result of ``make(*shape, device)``: one tensor or several, never to be written to.

        Under torch.compile nothing is cached: a generated kernel computes indices for free, but not reads of memory.
        """
        if is_compiling():
            return make(*shape, device)
        key = (make, shape, device)
        kept = self._kept.get(key)
        if kept is None:
            with torch.inference_mode(False):  # training cannot use tensors made in inference mode
                kept = self._kept[key] = make(*shape, device)
        return kept
