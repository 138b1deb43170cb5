"""Predictors of DynamicViT: before some blocks, a small network says of every patch how surely it is to be kept.

Source: Rao et al., DynamicViT: Efficient Vision Transformers with Dynamic Token Sparsification, NeurIPS 2021.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tomebench.errors import ModelError, SpecError
from tomebench.reduction.learned import Learned
from tomebench.reduction.plan import cast, wider
from tomebench.words import counted

DROP, KEEP = 0, 1
"""The two decisions, as a predictor numbers them."""
_LEAST = 1e-6
"""Least number of kept patches that a mean is divided by."""


class Predictor(nn.Module):
    """One predictor, for tokens of ``width`` channels.

    u = GELU(Linear(LN x)); the first half of its channels is the patch's own, of the other half the mean over all
    patches that are kept is taken; three linear layers C -> C/2 -> C/4 -> 2 with GELU between them decide.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.own = width // 2
        self.read = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU())
        half, quarter = max(width // 2, 1), max(width // 4, 1)
        self.decide = nn.Sequential(
            nn.Linear(width, half), nn.GELU(), nn.Linear(half, quarter), nn.GELU(), nn.Linear(quarter, 2)
        )

    def forward(self, x: Tensor, kept: Tensor | None = None) -> Tensor:
        """Log-probabilities of dropping and of keeping each patch.

        Args:
            x: patches, without the prefix [B, T, C].
            kept: which of them are kept, 1 or 0 [B, T]; None: all.

        Returns:
            float32 or wider [B, T, 2].
        """
        u = self.read(x)
        own, others = u[..., : self.own], u[..., self.own :]
        if kept is None:
            mean = others.mean(dim=1, keepdim=True)
        else:
            weight = kept.unsqueeze(2)
            mean = (others * weight).sum(dim=1, keepdim=True) / weight.sum(dim=1, keepdim=True).clamp_min(_LEAST)
        logits: Tensor = self.decide(torch.cat([own, mean.expand_as(others)], dim=2))
        return F.log_softmax(cast(logits, wider(logits.dtype)), dim=-1)


class Predictors(nn.Module):
    """Predictors before the blocks ``blocks`` (from 1 up, numbered from 0) of a model of C = ``width`` channels."""

    def __init__(self, blocks: Sequence[int], width: int) -> None:
        super().__init__()
        self.width = width
        self.at = nn.ModuleDict({str(block): Predictor(width) for block in blocks})

    @property
    def blocks(self) -> tuple[int, ...]:
        """The blocks before which there is a predictor."""
        return tuple(int(block) for block in self.at)

    def forward(self, block: int, x: Tensor, kept: Tensor | None = None) -> Tensor:
        """As :meth:`Predictor.forward`, by the predictor before a block."""
        found: Tensor = self.at[str(block)](x, kept)
        return found


def load_predictors(learned: Learned) -> Predictors:
    """Make the predictors of a file.

    Raises:
        ModelError: the file holds other tensors than those of predictors, or says something else of them.
    """
    try:
        blocks, width = stages(learned.metadata), int(learned.metadata["width"])
        kept_share(learned.metadata)
        with torch.device("meta"):  # what the file says takes no memory before its tensors fit, nor random numbers
            made = Predictors(blocks, width)
        made.load_state_dict(dict(learned.tensors), assign=True)
    except (KeyError, ValueError, TypeError, AttributeError, RuntimeError) as error:
        what = "its metadata name none" if isinstance(error, KeyError) else " ".join(str(error).split())
        raise ModelError(
            f"predictors {learned.path}: holds no predictors ({what:.120}); give the file that train-predictors wrote"
        ) from error
    return made.requires_grad_(False).eval()


def stages(metadata: Mapping[str, Any]) -> tuple[int, ...]:
    """The blocks before which a file has predictors, as its metadata say."""
    return tuple(map(int, metadata["blocks"].split(",")))


def kept_share(metadata: Mapping[str, Any]) -> float:
    """Part of the patches that each predictor of a file was trained to keep; 0.7, the paper's, where it does not say.

    Raises:
        TypeError, ValueError: what it says is no part.
    """
    share = float(metadata.get("keep", 0.7))
    if not 0 < share < 1:
        raise ValueError(f"a share to keep of {share:g}")
    return share


def check_blocks(blocks: Sequence[int], depth: int) -> None:
    """Check where predictors are to stand.

    Raises:
        SpecError: not in order, not in the model, or before its first block.
    """
    if not blocks or list(blocks) != sorted(set(blocks)) or blocks[0] < 1 or blocks[-1] >= depth:
        raise SpecError(
            f"predictors cannot stand before the blocks {','.join(map(str, blocks))} of a model of "
            f"{counted(depth, 'block')}; give blocks from 1 to {depth - 1}, in order"
        )


def usual_blocks(depth: int) -> tuple[int, ...]:
    """The blocks after a quarter, a half and three quarters of a model: 3, 6 and 9 of 12, as in the paper."""
    return tuple(sorted({max(depth * part // 4, 1) for part in (1, 2, 3)} & {*range(1, depth)}))


def native_r(blocks: Sequence[int], keep: float, patches: int, depth: int) -> tuple[int, ...]:
    """Tokens that each block removes so that floor(patches · keep^s) are left before the s-th of ``blocks``."""
    r, left = [0] * depth, patches
    for stage, block in enumerate(blocks, 1):
        stays = max(math.floor(patches * Fraction(str(keep)) ** stage), 1)
        r[block - 1], left = left - stays, stays
    return tuple(r)
