"""Tensors that depend on shapes only, such as the numbers of tokens: made once and not in every block of every pass."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, TypeVar

import torch
from torch.compiler import is_compiling

T = TypeVar("T")


class Constants:
    """The constants of one model, kept for as long as it is.

    At batch 1 a pass is as long as its list of operations, so none is spent on what is the same in every pass. None is
    ever given up either: a CUDA graph reads the memory that they had when it was captured.
    """

    def __init__(self) -> None:
        self._kept: dict[Hashable, Any] = {}

    def __reduce__(self) -> tuple[type[Constants], tuple[()]]:
        """A copy makes its own: it may live on another device."""
        return Constants, ()

    def get(self, make: Callable[..., T], *shape: Hashable, device: torch.device) -> T:
        """What ``make(*shape, device)`` returns: one tensor or several, which nobody may write to.

        To a compiler it is called anew: index arithmetic is free in a generated kernel, memory to read is not.
        """
        if is_compiling():
            return make(*shape, device)
        key = (make, shape, device)
        kept = self._kept.get(key)
        if kept is None:
            with torch.inference_mode(False):  # or training could not use them
                kept = self._kept[key] = make(*shape, device)
        return kept
