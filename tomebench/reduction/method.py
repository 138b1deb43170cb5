"""Method: interface of a reduction method (choose a plan, cost, cap); Context: the tensors that it chooses from.

A method is a frozen dataclass in a file of its own, see :mod:`tomebench.reduction.methods`. Its fields are its options,
the default first. It imports torch inside its functions only, so that reading options needs no torch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from tomebench.reduction.choices import check

if TYPE_CHECKING:
    from torch import Tensor, nn

    from tomebench.reduction.constants import Constants
    from tomebench.reduction.learned import Learned
    from tomebench.reduction.plan import MergePlan


class Heads(NamedTuple):
    """Queries, keys and values as a block's attention uses them, each [B, heads, N, d], after q/k norm and rotation."""

    q: Tensor
    k: Tensor
    v: Tensor
    content: Tensor | None = None  # keys before they are rotated [B, key heads, N, d]; None: they are not rotated
    bias: Tensor | None = None  # added to the scores of queries and keys [B or 1, heads, N, N]; None: nothing is

    @property
    def unrotated(self) -> Tensor:
        """Keys before rotation [B, key heads, N, d]; there may be fewer key heads than heads."""
        return self.k if self.content is None else self.content


@dataclass(frozen=True, slots=True)
class Context:
    """Input of a method for one layer: tokens, queries, keys and values, sizes, and the r to remove."""

    x: Tensor  # tokens to reduce: after the attention residual, or with ``after_mlp`` at the end of the block [B, N, C]
    x_pre: Tensor  # tokens before the block [B, N, C]
    heads: Heads
    size: Tensor | None  # original patches per token, float32 [B, N], 0 for padding; None is all ones
    bias_size: Tensor | None  # sizes in the attention bias of this block; None where it had no bias
    r: int  # tokens to remove, from 1 to the method's cap
    prefix: int
    layer: int
    depth: int
    constants: Constants  # the model's cache of tensors that depend on shapes only
    class_token: bool  # whether token 0 is a class token
    before_mlp: Tensor | None = None  # with ``after_mlp``: tokens after the attention residual [B, N, C]
    learned: nn.Module | None = None  # with ``trained``: what ``module`` made of the method's weights


class BlockSize(NamedTuple):
    """Channel widths of one block, on which the MACs of choosing a plan depend."""

    head_dim: int  # d, channels of one attention head
    heads_dim: int  # channels of all heads side by side
    token_dim: int  # C, channels of a token
    mlp_macs: int = 0  # MACs of the MLP for one token
    class_token: bool = True  # whether the model has one

    def ranking_macs(self, n: int) -> int:
        """MACs of the attention by which n tokens are ranked: of the class token, or without one, of all tokens."""
        return n * self.heads_dim * (1 if self.class_token else n)


class Method(ABC):
    """Base class of a reduction method; the fields of the dataclass are its options.

    ``choose`` gives the plan of one layer, ``cost`` the MACs of choosing it, and ``cap`` the most tokens that a layer
    can remove; a method without one of them is refused.

    Raises:
        SpecError: the value of an option is none that its type allows.
    """

    source: ClassVar[str]
    """The paper: authors, title, venue and year."""
    merges: ClassVar[bool] = True
    """True if tokens are merged, so that sizes differ; False if the method only prunes."""
    after_mlp: ClassVar[bool] = False
    """True if the method reduces tokens at the end of the block; else between the attention residual and the MLP."""
    reads_mlp: ClassVar[bool] = False
    """True if the method compares tokens before and after the MLP."""
    pads: ClassVar[bool] = False
    """True if how many tokens are left depends on the image: its plans have padding, which attention masks by size 0,
    with or without proportional attention. The tokens of a schedule are then the most that are left."""
    trained: ClassVar[bool] = False
    """True if the method has weights of its own, which come from training; see :meth:`module`."""

    def __post_init__(self) -> None:
        check(self)

    @property
    def counts_sizes(self) -> bool:
        """Whether attention counts merged tokens by size, as far as proportional attention is on.

        A method whose authors do otherwise has an option ``count_sizes``, whose default is theirs.
        """
        return bool(getattr(self, "count_sizes", True))

    @abstractmethod
    def choose(self, ctx: Context) -> MergePlan:
        """Choose the plan of one layer, which leaves N - ctx.r tokens."""

    @abstractmethod
    def cost(self, n: int, r: int, block: BlockSize) -> float:
        """MACs of choosing which r of the n tokens of an image go, prefix tokens counted like the others."""

    @abstractmethod
    def cap(self, n: int, prefix: int) -> int:
        """The most of n tokens that a layer can remove; ``prefix`` of the n are never removed."""

    def check_depth(self, depth: int) -> None:  # noqa: B027 - most methods go with any model
        """Check that the options go with a model of ``depth`` blocks, such as a list with a value for each.

        Raises:
            SpecError: they do not.
        """

    def module(self, learned: Learned, r_layers: Sequence[int], *, width: int, patches: int) -> nn.Module:
        """Make the module of a ``trained`` method, which ``choose`` finds in the context.

        Args:
            learned: weights of a file.
            r_layers: tokens to remove in each block.
            width: C, channels of a token of the model.
            patches: before the first block, at the model's own image size.

        Raises:
            SpecError: the weights are not for tokens that are removed in these blocks.
            ModelError: they are not for this model, or no weights of this method.
        """
        raise NotImplementedError(f"{type(self).__name__} has no weights of its own")
