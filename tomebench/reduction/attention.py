"""Proportional attention on fused kernels: a token that stands for s patches counts s times.

Source: ToMe (arXiv 2210.09461), section 3: softmax(q kᵀ / sqrt(d) + log s).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

_ALIGN = 8  # elements; fused kernels copy a bias whose rows do not start on this boundary


def log_size_bias(size: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """Attention bias that makes each key count as often as its size says.

    Args:
        size: float32 [B, N], > 0; None means all ones.
        dtype: dtype of the queries; fused kernels want the bias in the same.

    Returns:
        [B, 1, 1, N], to be broadcast over heads and queries; None when no bias is needed.
    """
    if size is None:
        return None
    n = size.shape[1]
    wide = torch.promote_types(dtype, torch.float32)  # never less exact than the sizes themselves
    storage = F.pad(size.to(wide).log().to(dtype), (0, -n % _ALIGN))
    return storage[:, None, None, :n]


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, *, dropout: float, fused: bool) -> Tensor:
    """softmax(q kᵀ / sqrt(d) + bias) v.

    Both forms repeat what timm does, operation by operation, so that without a bias the result has the same bits.

    Args:
        q, k, v: [B, heads, N, d].
        bias: [B, 1, 1, N] or None.
        dropout: probability of dropping an attention weight, in [0, 1).
        fused: use PyTorch's scaled_dot_product_attention rather than separate operations.
    """
    if fused:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=dropout)
    weights = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
    if bias is not None:
        weights = weights + bias
    weights = F.dropout(weights.softmax(dim=-1), dropout, training=dropout > 0)
    return weights @ v
