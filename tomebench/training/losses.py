"""The masked pass of DynamicViT in training, its teacher, and its four losses.

Source: Rao et al., DynamicViT, NeurIPS 2021, sections 3.2 to 3.4. In training no token is removed, so that batches keep
one shape and decisions get gradients: a dropped token is masked in attention, and each decision is drawn by the
straight-through Gumbel-softmax. No code of the authors was used.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from tomebench.reduction.backbone import Backbone
from tomebench.reduction.predictors import KEEP, Predictors
from tomebench.reduction.tokens import Tokens

CLASSES, TEACHER, TOKENS, RATIO = 1.0, 0.5, 0.5, 2.0
"""Weights of the losses: cross-entropy, divergence from the teacher, distillation of tokens, ratio."""
_LEAST = 1e-6
"""Weight in attention of a token that is dropped, beside 1: a logarithm of 0 would have no gradient."""


class Masked(NamedTuple):
    """Result of a masked pass."""

    logits: Tensor  # [B, classes]
    features: Tensor  # after the final norm [B, N, C]
    kept: tuple[Tensor, ...]  # of each stage: 1 for the patches that are kept after it, else 0, [B, T]


class Losses(NamedTuple):
    """The four losses of a batch, not weighted."""

    classes: Tensor
    teacher: Tensor
    tokens: Tensor
    ratio: Tensor

    @property
    def total(self) -> Tensor:
        """Their weighted sum."""
        return CLASSES * self.classes + TEACHER * self.teacher + TOKENS * self.tokens + RATIO * self.ratio


def masked_pass(backbone: Backbone, predictors: Predictors, images: Tensor, noise: torch.Generator) -> Masked:
    """Run all tokens through a model, with those masked that its predictors drop.

    Args:
        backbone: of the model.
        predictors: that decide; a patch that one has dropped stays dropped.
        images: [B, 3, H, W].
        noise: of the Gumbel noise, on the CPU.
    """
    tokens, prefix = backbone.embed(images), backbone.prefix
    x, size, kept = tokens.x, None, list[Tensor]()
    for layer in range(backbone.depth):
        if layer in predictors.blocks:
            before = kept[-1] if kept else None
            own = decide(predictors(layer, x[:, prefix:], before), noise)
            kept.append(own if before is None else own * before)
            size = attention_weights(kept[-1], prefix)
        x, _ = backbone.attention(layer, Tokens(x, size, tokens.position), "matmul")
        x = backbone.mlp(layer, x)
    features = backbone.norm(x)
    pooled = None if not kept else _softened(F.pad(kept[-1], (prefix, 0), value=1.0))
    pooled = pooled if backbone.head_counts_sizes(True) else None
    return Masked(backbone.head(features, pooled, True), features, tuple(kept))


def decide(log_probability: Tensor, noise: torch.Generator) -> Tensor:
    """Draw decisions by the straight-through Gumbel-softmax.

    Args:
        log_probability: of dropping and of keeping each patch, [B, T, 2].
        noise: on the CPU.

    Returns:
        1 for a patch to keep, else 0, [B, T]; the gradient is that of the softmax.
    """
    shape, device = log_probability.shape, log_probability.device
    drawn = torch.empty(shape, dtype=torch.float32).exponential_(generator=noise).to(device)
    soft = (log_probability - drawn.log()).softmax(dim=-1)
    hard = F.one_hot(soft.argmax(dim=-1), 2).to(soft.dtype)
    return (hard - soft.detach() + soft)[..., KEEP]


def attention_weights(kept: Tensor, prefix: int) -> Tensor:
    """How much each token counts in the attention of each: G of the paper, [B, T] -> [B, N, N].

    1 where the key is kept or of the prefix, and for every token itself; a millionth elsewhere.
    """
    keys = F.pad(kept, (prefix, 0), value=1.0).unsqueeze(1)
    own = torch.eye(keys.shape[2], dtype=keys.dtype, device=keys.device)
    return _softened(keys + (1 - keys) * own)


def losses(run: Masked, teacher: Masked, labels: Tensor, shares: Sequence[float]) -> Losses:
    """The losses of a batch.

    Args:
        run: of the model that drops.
        teacher: of the one that keeps all.
        labels: int64 [B].
        shares: part of all patches that is to be kept after each stage.

    Returns:
        Cross-entropy; Kullback-Leibler divergence from the teacher's classes to the model's, mean over images; squared
        difference to the teacher's features, mean over channels and over the patches of the batch that are kept in the
        end; and (share - part that is kept)², mean over images and stages.
    """
    classes = F.cross_entropy(run.logits, labels)
    ours, theirs = run.logits.log_softmax(dim=-1), teacher.logits.log_softmax(dim=-1)
    divergence = F.kl_div(ours, theirs, reduction="batchmean", log_target=True)
    last = run.kept[-1]
    patches = slice(run.features.shape[1] - last.shape[1], None)
    apart = (run.features[:, patches] - teacher.features[:, patches]).square().mean(dim=2)
    tokens = (apart * last).sum() / last.sum().clamp_min(1)
    parts = torch.stack([kept.mean(dim=1) for kept in run.kept])
    wanted = torch.tensor(shares, dtype=parts.dtype, device=parts.device).unsqueeze(1)
    return Losses(classes, divergence, tokens, (wanted - parts).square().mean())


def _softened(weight: Tensor) -> Tensor:
    return _LEAST + (1 - _LEAST) * weight
