"""Proportional attention: the size bias (log s for a key that stands for s patches) on fused attention kernels.

Source: ToMe (arXiv 2210.09461), section 3: softmax(q kᵀ / sqrt(d) + log s).

Flash attention takes no bias, so there are several *routes* to it; which is fastest depends on device, dtype and N:

=========  ======  =====================================================================================
route      device  what runs where some size is not 1 (SPEED.md beside this file has the measurements)
=========  ======  =====================================================================================
auto       any     PyTorch's fused attention; on CUDA pinned to its memory-efficient kernel
sdpa       any     PyTorch's fused attention, whichever kernel it picks for the bias
padded     any     as sdpa, on queries and keys padded to a multiple of 16; padded keys get weight 0
matmul     any     two matrix products and a softmax in the dtype of the model
augmented  any     no bias: values are multiplied by s and divided by a column that sums s
efficient  cuda    PyTorch's memory-efficient kernel
cudnn      cuda    cuDNN's kernel
triton     cuda    this package's kernel with one bias per key; inference only
=========  ======  =====================================================================================

While all sizes are 1, ``auto``, ``sdpa``, ``augmented`` and ``triton`` run exactly what the model itself runs. The
others use their own kernel in every block, so that r = 0 and the merged model are compared on the same kernel.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor
from torch.compiler import is_compiling
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from tomebench.errors import DeviceError
from tomebench.reduction.plan import cast, wider
from tomebench.schema import Route

CUDA_ROUTES = frozenset({"efficient", "cudnn", "triton"})
"""Routes that exist on CUDA only."""

_ALIGN = 8  # elements; fused kernels of a GPU copy a bias whose rows do not start on this boundary
_PAD_TO = 16  # tokens; the width of a vector register of fp32
_PINNED = {"efficient": [SDPBackend.EFFICIENT_ATTENTION], "cudnn": [SDPBackend.CUDNN_ATTENTION]}
_FALLBACK = [SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]  # the second, for float64 and odd head widths


def choose_route(asked: Route, device_type: str, *, biased: bool) -> Route:
    """Resolve the route ``auto``; any other route is returned as it is.

    Without a bias it is always ``sdpa``, because that is what the model itself runs. With one it is ``sdpa`` on CPU:
    other routes may be faster there (bf16 without AMX), but r = 0 would not share the gain, and the speed-up would
    credit merging with it. On CUDA, PyTorch may pick cuDNN for a biased call, which has had wrong results with masks.
    """
    if asked != "auto":
        return asked
    return "efficient" if biased and device_type == "cuda" else "sdpa"


def check_route(route: Route, device: torch.device, dtype: str, *, training: bool) -> None:
    """Raise if a route cannot run on a device, in a dtype or with gradients.

    Args:
        route: as asked for.
        device: where it is to run.
        dtype: fp32, tf32, bf16 or fp16.
        training: gradients are needed.

    Raises:
        DeviceError: the route needs CUDA or half precision, Triton is not installed, or it has no gradients.
    """
    if route in CUDA_ROUTES and device.type != "cuda":
        raise DeviceError(
            f"attention {route} needs a CUDA GPU, not {device}; use auto, sdpa, padded, matmul or augmented"
        )
    if route == "cudnn" and dtype not in ("bf16", "fp16"):
        raise DeviceError(f"attention cudnn has no {dtype}; use --dtype bf16 or fp16, or --attention auto")
    if route != "triton":
        return
    from tomebench.reduction import triton_attention

    if not triton_attention.available(device):
        raise DeviceError("attention triton needs the triton package, which is not installed; use --attention auto")
    if training:
        raise DeviceError("attention triton has no gradients; use --attention auto with --mode train")


def log_size_bias(size: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """The size bias of proportional attention: log of each key's size, to be added to the attention scores.

    Args:
        size: float32 [B, N], > 0 (0 for a key that gets weight 0), or [B, N, N] with a row for each query; None means
            all ones.
        dtype: dtype of the queries; fused kernels want the bias in the same.

    Returns:
        [B, 1, 1, N] or [B, 1, N, N], to be broadcast over heads and queries; None when no bias is needed.
    """
    if size is None:
        return None
    bias = cast(cast(size, wider(dtype)).log(), dtype)  # never less exact than the sizes themselves
    if size.ndim == 3:
        return bias.unsqueeze(1)
    batch, n = size.shape
    if size.device.type == "cpu" or n % _ALIGN == 0:
        return bias.view(batch, 1, 1, n)
    return F.pad(bias, (0, -n % _ALIGN))[:, None, None, :n]


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    size: Tensor | None,
    *,
    dropout: float,
    fused: bool,
    route: Route = "auto",
    bias: Tensor | None = None,
) -> Tensor:
    """Compute proportional attention: softmax(q kᵀ / sqrt(d) + bias + log size) v.

    The fused and the unfused form repeat what timm does, operation by operation, so that without sizes the result has
    the same bits.

    Args:
        q, k, v: [B, heads, N, d].
        size: patches that each key stands for, float32 [B, N], or for ``matmul`` to each query, [B, N, N]; None means
            all ones, and no bias.
        dropout: probability of dropping an attention weight, in [0, 1).
        fused: the model uses PyTorch's scaled_dot_product_attention rather than separate operations.
        route: see the module; without ``fused``, ``auto`` is ``matmul``.
        bias: of the model's own for each head and pair of tokens, [B or 1, heads, N, N] in the dtype of the queries;
            routes ``auto``, ``sdpa`` and ``matmul`` only.

    Returns:
        [B, heads, N, d].

    Raises:
        DeviceError: another route, and a bias of the model's own.
    """
    if bias is not None:
        _check_own_bias(route)
    if route == "auto" and not fused:
        route = "matmul"
    asked, route = route, choose_route(route, q.device.type, biased=size is not None)
    if route == "padded":
        return _padded(q, k, v, size, dropout)
    if route == "matmul":
        return _matmul(q, k, v, (bias, log_size_bias(size, q.dtype)), dropout)
    if route == "augmented" and size is not None:
        return _augmented(q, k, v, size, dropout)
    if route == "triton" and size is not None:
        from tomebench.reduction.triton_attention import vector_bias_attention

        return vector_bias_attention(q, k, v, size.log())
    bias = _sum(bias, log_size_bias(size, q.dtype))
    if route in _PINNED:
        with _fallbacks() if asked == "auto" else sdpa_kernel(_PINNED[route]):
            return F.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=dropout)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=dropout)


def kernel_name(
    route: Route,
    *,
    shape: tuple[int, int, int, int],
    biased: bool,
    fused: bool,
    dtype: torch.dtype,
    device: torch.device,
    own_bias: bool = False,
) -> str:
    """The attention kernel that :func:`attend` runs, such as ``sdpa-flash`` or ``sdpa-efficient+bias``.

    Args:
        route: as asked for.
        shape: of the queries, [B, heads, N, d].
        biased: some size is not 1, so that there is a size bias.
        fused: as for :func:`attend`.
        dtype: of the queries.
        device: where it runs; on one that this machine lacks, PyTorch's own choice is not known: ``sdpa``.
        own_bias: the model adds a bias of its own, so that there is one with all sizes 1, too.

    Raises:
        DeviceError: the route does not take attention heads of this width d, or a bias of the model's own.
    """
    if own_bias:
        _check_own_bias(route)
    if route == "auto" and not fused:
        return "unfused" + "+bias" * (biased or own_bias)
    asked, route = route, choose_route(route, device.type, biased=biased)
    if not biased and route in ("augmented", "triton"):
        route = "sdpa"
    if route == "triton":
        from tomebench.reduction.triton_attention import MAX_WIDTH

        if shape[-1] > MAX_WIDTH:
            raise DeviceError(f"attention triton takes heads up to {MAX_WIDTH} wide, not {shape[-1]}; use another")
    suffix = "+bias" * (biased or own_bias)
    absent = device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count()
    if route in _PINNED and (asked != "auto" or absent):
        return f"sdpa-{route}{suffix}"
    if route not in ("sdpa", "padded", *_PINNED):
        return route
    name = "padded sdpa" if route == "padded" else "sdpa"
    if absent:
        return name + suffix
    batch, heads, n, d = shape
    extra = -n % _PAD_TO if route == "padded" else 0
    n += extra
    q = torch.empty(1, 1, 1, d, dtype=dtype, device=device).expand(batch, heads, n, d)  # no memory, however large
    bias = log_size_bias(torch.ones(1, n, device=device), dtype) if biased or extra else None
    if own_bias:
        bias = torch.empty(1, 1, 1, n, dtype=dtype, device=device).expand(batch, heads, n, n)
    with sdpa_kernel(_FALLBACK) if route in _PINNED else nullcontext():
        choice = SDPBackend(torch._fused_sdp_choice(q, q, q, bias, 0.0, False))
    return f"{name}-{choice.name.removesuffix('_ATTENTION').lower()}{suffix}"


def _check_own_bias(route: Route) -> None:
    """Refuse a route that would leave out a bias of the model's own."""
    if route not in ("auto", "sdpa", "matmul"):
        raise DeviceError(f"attention {route} does not take the position bias of this model; use auto, sdpa or matmul")


def _fallbacks() -> AbstractContextManager[object]:
    """Context in which PyTorch uses the memory-efficient attention kernel or its fallback.

    ``sdpa_kernel`` sets the switches of all kernels, in every block that merges and in no other. In eager mode the time
    on the host would count as a cost of merging at batch size 1, so there cuDNN alone is switched off. A compiled graph
    pays once, and torch.compile supports ``sdpa_kernel`` only.
    """
    return sdpa_kernel(_FALLBACK) if is_compiling() else _without_cudnn()


@contextmanager
def _without_cudnn() -> Iterator[None]:
    """As :func:`_fallbacks`, for attention with a bias: flash kernels take none, so only cuDNN has to be excluded."""
    allowed = torch.backends.cuda.cudnn_sdp_enabled()
    torch.backends.cuda.enable_cudnn_sdp(False)
    try:
        yield
    finally:
        torch.backends.cuda.enable_cudnn_sdp(allowed)


def _sum(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    if one is None or other is None:
        return other if one is None else one
    return one + other


def _padded(q: Tensor, k: Tensor, v: Tensor, size: Tensor | None, dropout: float) -> Tensor:
    """Attention on N padded to a multiple of 16: fused kernels are slow on an incomplete last block of keys."""
    batch, _, n, _ = q.shape
    extra = -n % _PAD_TO
    if size is None and not extra:
        return F.scaled_dot_product_attention(q, k, v, dropout_p=dropout)
    if size is None:
        size = torch.ones(batch, n, device=q.device)
    bias = log_size_bias(F.pad(size, (0, extra)), q.dtype)  # log 0 is -inf: a padded key gets weight 0
    q, k, v = (F.pad(t, (0, 0, 0, extra)) for t in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=dropout)[:, :, :n]


def _matmul(q: Tensor, k: Tensor, v: Tensor, biases: Iterable[Tensor | None], dropout: float) -> Tensor:
    weights = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
    for bias in biases:
        weights = weights if bias is None else weights + bias
    weights = F.dropout(weights.softmax(dim=-1), dropout, training=dropout > 0)
    return weights @ v


def _augmented(q: Tensor, k: Tensor, v: Tensor, size: Tensor, dropout: float) -> Tensor:
    """Proportional attention without a bias: attend to s v and to s, and divide.

    Σ_j e_j s_j v_j / Σ_j e_j s_j is the biased softmax, as the denominator of the unbiased one cancels. The sizes are a
    further column of the values, padded to keep rows aligned.
    """
    weight = size[:, None, :, None].to(v.dtype)
    column = F.pad(weight.expand(-1, v.shape[1], -1, -1), (0, _ALIGN - 1))
    out = F.scaled_dot_product_attention(q, k, torch.cat([v * weight, column], dim=-1), dropout_p=dropout)
    d = v.shape[-1]
    return out[..., :d] / out[..., d : d + 1]
