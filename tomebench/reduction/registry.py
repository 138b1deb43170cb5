"""The reduction methods, by name. An entry is data; its code is imported when it is used."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import NamedTuple, cast

from torch import Tensor

from tomebench.errors import SpecError
from tomebench.reduction.constants import Constants
from tomebench.reduction.options import PAPER, Combine, Options
from tomebench.reduction.plan import MergePlan


class Heads(NamedTuple):
    """What the heads of a block computed on, each [B, heads, N, d]; after q/k norm where a model has it."""

    q: Tensor
    k: Tensor
    v: Tensor


@dataclass(frozen=True, slots=True)
class Context:
    """What a method may look at when it decides about one layer."""

    x: Tensor  # tokens after the attention residual [B, N, C]
    x_pre: Tensor  # tokens before the block [B, N, C]
    heads: Heads
    size: Tensor | None  # original patches per token, float32 [B, N]; None is all ones
    counted: Tensor | None  # the same as attention counted it; None where it counted every token once
    r: int  # tokens to remove, in [0, (N - prefix) // 2]
    prefix: int
    layer: int
    depth: int
    constants: Constants = field(default_factory=Constants)  # of the model: what depends on shapes only


@dataclass(frozen=True)
class Method:
    """One way to reduce tokens."""

    choose: Callable[[Context], MergePlan]
    """Decides which tokens go where in one layer: returns a plan that leaves N - ctx.r tokens."""
    combine: Combine = "weighted"
    """What becomes of a group."""
    merges: bool = True
    """Tokens are merged, and so differ in size; False if they are only dropped."""


@dataclass(frozen=True)
class MethodInfo:
    """A line of ``tomebench list methods``."""

    name: str
    target: str  # "module:function", from Options to Method
    doc: str


METHODS: Mapping[str, MethodInfo] = {
    info.name: info
    for info in (
        MethodInfo(
            "tome",
            "tomebench.reduction.tome:tome",
            "Token Merging: bipartite soft matching on attention keys (Bolya et al., ICLR 2023)",
        ),
    )
}


def get_method(name: str, options: Options = PAPER) -> Method:
    """The method of that name.

    Args:
        name: see ``METHODS``.
        options: how it chooses and combines.

    Raises:
        SpecError: no such method; the message names the nearest one.
    """
    if name not in METHODS:
        near = difflib.get_close_matches(name, METHODS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"choose from {', '.join(METHODS)}"
        raise SpecError(f"unknown method {name!r}; {hint}")
    module, _, function = METHODS[name].target.partition(":")
    return cast(Method, getattr(import_module(module), function)(options))
