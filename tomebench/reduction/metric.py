"""The similarity metric of tokens (keys, queries, values, tokens), their similarity, and the attention they receive."""

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
"""Numbers of heads, and a divisor of d, with which torch's mean is fastest on a CPU; it sums more in another order."""
_SHORTEST = 1e-12
"""Least norm that a row is divided by for ``cosine``: a row of zeros has similarity 0 with every other."""


def metric_of(ctx: Context, metric: Metric, heads: HeadsChoice) -> Tensor:
    """The similarity metric of all tokens of a layer, [B, N, d]."""
    if metric in ("x", "x_pre"):
        return ctx.x if metric == "x" else ctx.x_pre
    of_heads: Tensor = getattr(ctx.heads, {"k": "unrotated", "k_rot": "k"}.get(metric, metric))
    return head_mean(of_heads, ctx.constants) if heads == "mean" else of_heads.transpose(1, 2).flatten(2)


def comparable(metric: Tensor, distance: Distance) -> Tensor:
    """Metric rows [B, N, d] as :func:`similarity` takes them: in fp32 or wider, for ``cosine`` normalised to length 1.

    Scores in half precision match one token in seven with another partner.
    """
    wide = cast(metric, wider(metric.dtype))
    if distance != "cosine":
        return wide
    return wide / torch.linalg.vector_norm(wide, dim=-1, keepdim=True).clamp_min_(_SHORTEST)


def similarity(a: Tensor, b: Tensor, distance: Distance) -> Tensor:
    """Similarity of tokens, larger is more alike: rows of :func:`comparable` [B, K, d], [B, M, d] -> [B, K, M]."""
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
    """Mean over attention heads: [B, heads, N, d] -> [B, N, d], summed in fp32 or wider.

    The result has the dtype of ``heads`` on a CPU, and is fp32 or wider elsewhere.
    """
    if not heads.is_cpu:
        return heads.mean(dim=1, dtype=wider(heads.dtype))
    # torch's mean over a few short rows is up to twice as slow on a CPU as what follows.
    batch, count, n, d = heads.shape
    if heads.dtype.itemsize == 2:
        # Average pooling is vectorised for channels-last images: a token becomes one of heads x 1 pixels, d channels.
        pictures = heads.transpose(1, 2).reshape(batch * n, count, 1, d).permute(0, 3, 1, 2)
        return F.avg_pool2d(pictures, (count, 1)).reshape(batch, n, d)
    if count == 1 or (count in _MANY and d % _REGISTER == 0):
        return heads.mean(dim=1)
    first, second, *others = heads.unbind(dim=1)
    total = first + second
    for head in others:
        total += head
    # Dividing by a Python number would make a tensor of another dtype and cast it, in every pass.
    return total.div_((constants or Constants()).get(_scalar, float(count), total.dtype, device=total.device))


def _scalar(value: float, dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.tensor(value, dtype=dtype, device=device)


def class_attention(ctx: Context) -> Tensor:
    """Attention of the class token to each token, averaged over heads: float32 or wider [B, N].

    Without class token: :func:`received_attention`. Costs N · C MACs.
    """
    return _attention(ctx, 1 if ctx.class_token else None)


def attention_of_heads(ctx: Context) -> Tensor:
    """Attention of the class token to each token in every head: float32 or wider [B, heads, N].

    Without class token: the mean of what it receives from the tokens that are not padding. Costs as
    :func:`class_attention`.
    """
    if ctx.class_token:
        return _attention_of(ctx, 1).squeeze(2)
    received = _attention_of(ctx)
    if ctx.size is None:
        return received.mean(dim=2)
    real = (ctx.size > 0).to(received.dtype)
    return (received * real[:, None, :, None]).sum(dim=2) / real.sum(dim=1)[:, None, None]


def by_class_attention(ctx: Context) -> tuple[Tensor, Tensor]:
    """Patches by :func:`class_attention`: that of each, [B, T], and their numbers without the prefix, int64 [B, T].

    The patch with most attention comes first; ties go to the lower index.
    """
    score = class_attention(ctx)[:, ctx.prefix :]
    return score, score.argsort(dim=1, descending=True, stable=True)


def received_attention(ctx: Context) -> Tensor:
    """Attention that each token receives from all tokens on average: float32 or wider [B, N]. Costs N² · C MACs."""
    return _attention(ctx)


def attention_matrix(ctx: Context) -> Tensor:
    """Attention of every token to every token, float32 or wider [B, heads, N, N], rows sum to 1. Costs N² · C MACs."""
    return _attention_of(ctx)


def _attention(ctx: Context, count: int | None = None) -> Tensor:
    return _attention_of(ctx, count).mean(dim=(1, 2))


def _attention_of(ctx: Context, count: int | None = None) -> Tensor:
    """Attention of the first ``count`` tokens, or of all, to every token in every head [B, heads, count, N]."""
    queries = ctx.heads.q[:, :, :count]
    wide = wider(queries.dtype)
    with without_autocast(queries.device.type):
        scores = queries.to(wide) @ ctx.heads.k.to(wide).transpose(-2, -1) / math.sqrt(queries.shape[-1])
    if ctx.heads.bias is not None:
        scores = scores + ctx.heads.bias[..., :count, :].to(wide)
    if ctx.bias_size is not None:
        scores = scores + ctx.bias_size.to(wide).log()[:, None, None, :]
    return scores.softmax(dim=-1)
