"""What tokens are compared by, and how alike two of them are."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from tomebench.reduction.choices import Distance, HeadsChoice, Metric
from tomebench.reduction.constants import Constants
from tomebench.reduction.method import Context
from tomebench.reduction.plan import autocasts, cast, wider, without_autocast

_MANY, _REGISTER = range(8, 17), 32
"""Heads, and values in a few vector registers, with which a CPU reduces fastest; more it adds in another order."""
_SHORTEST = 1e-12
"""A row that is shorter is not made longer; all zeros are alike to nothing."""


def metric_of(ctx: Context, metric: Metric, heads: HeadsChoice) -> Tensor:
    """What similarity is measured on, [B, N, d]."""
    if metric in ("x", "x_pre"):
        return ctx.x if metric == "x" else ctx.x_pre
    of_heads: Tensor = getattr(ctx.heads, metric)
    return head_mean(of_heads, ctx.constants) if heads == "mean" else of_heads.transpose(1, 2).flatten(2)


def comparable(metric: Tensor, distance: Distance) -> Tensor:
    """Rows [B, N, d] as :func:`similarity` takes them: of length one where only the direction counts.

    In fp32 or better: half-precision scores pick another partner for one token in seven.
    """
    wide = cast(metric, wider(metric.dtype))
    if distance != "cosine":
        return wide
    return wide / torch.linalg.vector_norm(wide, dim=-1, keepdim=True).clamp_min_(_SHORTEST)


def similarity(a: Tensor, b: Tensor, distance: Distance) -> Tensor:
    """How alike tokens are, more being more alike: comparable rows [B, K, d] and [B, M, d] -> [B, K, M]."""
    if autocasts(a.device.type):
        with torch.autocast(a.device.type, enabled=False):
            return similarity(a, b, distance)
    product = torch.bmm(a, b.transpose(1, 2))
    if distance == "softmax":
        return (product / math.sqrt(a.shape[-1])).softmax(dim=-1)
    if distance == "euclidean":  # its square, which orders pairs alike: |a|² + |b|² - 2ab
        return 2 * product - (a * a).sum(dim=-1).unsqueeze(2) - (b * b).sum(dim=-1).unsqueeze(1)
    return product


def head_mean(heads: Tensor, constants: Constants | None = None) -> Tensor:
    """Mean over heads: [B, heads, N, d] -> [B, N, d], summed in fp32 or wider.

    In the dtype of the keys on a CPU, in fp32 or wider elsewhere.
    """
    if not heads.is_cpu:
        return heads.mean(dim=1, dtype=wider(heads.dtype))
    # The CPU's reduction over a few short rows is up to twice as slow as what follows.
    batch, count, n, d = heads.shape
    if heads.dtype.itemsize == 2:
        # Every token is a picture, heads high, with d channels that come last in memory: pooling is vectorised there.
        pictures = heads.transpose(1, 2).reshape(batch * n, count, 1, d).permute(0, 3, 1, 2)
        return F.avg_pool2d(pictures, (count, 1)).reshape(batch, n, d)
    if count == 1 or (count in _MANY and d % _REGISTER == 0):
        return heads.mean(dim=1)
    first, second, *others = heads.unbind(dim=1)
    total = first + second
    for head in others:
        total += head
    # A number would be made a tensor of another dtype, and that be cast, each time.
    return total.div_((constants or Constants()).get(_scalar, float(count), total.dtype, device=total.device))


def _scalar(value: float, dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.tensor(value, dtype=dtype, device=device)


def class_attention(ctx: Context) -> Tensor:
    """How much the class token attends to each token, averaged over heads: float32 or wider [B, N].

    Models without one: :func:`received_attention`. Costs N · C.
    """
    return _attention(ctx, ctx.heads.q[:, :, :1] if ctx.prefix else ctx.heads.q)


def received_attention(ctx: Context) -> Tensor:
    """How much each token is attended to by all tokens on average: float32 or wider [B, N]. Costs N² · C."""
    return _attention(ctx, ctx.heads.q)


def _attention(ctx: Context, queries: Tensor) -> Tensor:
    wide = wider(queries.dtype)
    with without_autocast(queries.device.type):
        scores = queries.to(wide) @ ctx.heads.k.to(wide).transpose(-2, -1) / math.sqrt(queries.shape[-1])
    if ctx.counted is not None:
        scores = scores + ctx.counted.to(wide).log()[:, None, None, :]
    return scores.softmax(dim=-1).mean(dim=(1, 2))
