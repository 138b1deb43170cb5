"""What a reduction method is given, and what it declares.

A method is a frozen dataclass in a file of its own, see :mod:`tomebench.reduction.methods`. Its fields are its options,
the default first; what it needs of torch it imports where it computes, so that options are read without.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from tomebench.reduction.choices import check

if TYPE_CHECKING:
    from torch import Tensor

    from tomebench.reduction.constants import Constants
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
    r: int  # tokens to remove, from 1 to the method's cap
    prefix: int
    layer: int
    depth: int
    constants: Constants  # of the model: what depends on shapes only


class BlockSize(NamedTuple):
    """Of one block what the cost of choosing depends on."""

    head: int  # d, channels of a head
    heads: int  # channels of all heads side by side
    token: int  # C, channels of a token


class Method(ABC):
    """One way to reduce tokens.

    ``choose`` decides about one layer, ``cost`` says what that takes and ``cap`` how many tokens can go: without one of
    them a method is refused. So is a value of an option that its type does not allow.
    """

    source: ClassVar[str]
    """The paper: authors, title, venue and year."""
    merges: ClassVar[bool] = True
    """Tokens are merged, and so differ in size; False if they are only dropped."""

    def __post_init__(self) -> None:
        check(self)

    @abstractmethod
    def choose(self, ctx: Context) -> MergePlan:
        """Decide which tokens go where in one layer: a plan that leaves N - ctx.r tokens."""

    @abstractmethod
    def cost(self, n: int, r: int, block: BlockSize) -> float:
        """Multiply-accumulates of choosing which r of n tokens of an image go, the prefix counted like the others."""

    @abstractmethod
    def cap(self, n: int, prefix: int) -> int:
        """The most tokens that a layer can remove of n, of which ``prefix`` never go."""
