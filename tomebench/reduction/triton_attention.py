"""Proportional attention as a Triton kernel whose bias is one vector per image; inference only.

Source: ToMe (arXiv 2210.09461), section 3: softmax(q kᵀ / sqrt(d) + log s) v. log s is the same for every head and
every query, so N numbers per image are all that has to be read; a general attention mask has them N x N times, or at
least makes the kernel treat them so. Keys are walked in blocks with an online softmax (Milakov and Gimelshein, arXiv
1805.02867), so the N x N weights are never stored.

Scores, softmax and sums are fp32; the weights are rounded once, to the dtype of the values they multiply. On normal
inputs the error against float64, relative to the largest output, is at most 4e-6 (fp32), 1e-3 (fp16) and 8e-3 (bf16).

The module imports without Triton and without a GPU; :func:`available` says whether the kernel can run.
"""

from __future__ import annotations

import importlib
import math
from typing import Any

import torch
from torch import Tensor

from tomebench.errors import DeviceError

triton: Any
tl: Any
try:  # by name, because Triton has no types and is not there on every platform
    triton, tl = importlib.import_module("triton"), importlib.import_module("triton.language")
except ImportError:
    triton = tl = None

_DTYPES = (torch.float16, torch.bfloat16, torch.float32)
MAX_WIDTH = 128
"""Most channels d of an attention head that the kernel takes."""
_MIN_BLOCK = 16  # the smallest side of a product that tensor cores take
_LOG2E = math.log2(math.e)


def available(device: torch.device) -> bool:
    """Whether the kernel runs on a device: with Triton installed, on CUDA, or anywhere in Triton's interpreter."""
    return triton is not None and (device.type == "cuda" or _INTERPRETED)


def vector_bias_attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    """softmax(q kᵀ / sqrt(d) + bias) v with one bias per key, the same for all heads and queries.

    Works inside torch.compile, which sees one opaque operator.

    Args:
        q, k, v: [B, heads, N, d] in one dtype of fp16, bf16 and fp32, N >= 1, 1 <= d <= 128; any strides, as long as
            the last dimension is contiguous.
        bias: natural logarithms, float32 [B, N]; -inf for a key of weight 0, but not for all keys of an image, whose
            output would be nan.

    Returns:
        [B, heads, N, d] in q's dtype, stored as [B, N, heads, d], so that joining the heads is no copy.

    Raises:
        ValueError: shapes, dtypes, devices or strides are not as above.
        NotImplementedError: an input needs a gradient, and gradients are on.
        DeviceError: the kernel does not run on this device, see :func:`available`.
    """
    if q.ndim != 4 or k.shape != q.shape or v.shape != q.shape:
        raise ValueError(f"q, k and v must all be [B, heads, N, d], not {[tuple(t.shape) for t in (q, k, v)]}")
    batch, _, n, d = q.shape
    if n < 1 or not 1 <= d <= MAX_WIDTH:
        raise ValueError(f"N must be at least 1 and d in 1..{MAX_WIDTH}, not N = {n} and d = {d}")
    if q.dtype not in _DTYPES or k.dtype != q.dtype or v.dtype != q.dtype:
        raise ValueError(f"q, k and v must share fp16, bf16 or fp32, not {[t.dtype for t in (q, k, v)]}")
    if bias.shape != (batch, n) or bias.dtype != torch.float32:
        raise ValueError(f"bias must be float32 [{batch}, {n}], not {bias.dtype} {list(bias.shape)}")
    if any(t.device != q.device for t in (k, v, bias)):
        raise ValueError(f"all inputs must be on one device, not {[str(t.device) for t in (q, k, v, bias)]}")
    if any(t.stride(3) != 1 for t in (q, k, v)):
        raise ValueError("the last dimension of q, k and v must be contiguous")
    if torch.is_grad_enabled() and any(t.requires_grad for t in (q, k, v, bias)):
        raise NotImplementedError("inference only; use --attention efficient for training")
    if not available(q.device):
        raise DeviceError(f"the Triton attention kernel does not run on {q.device}")
    out: Tensor = _operator(q, k, v, bias)
    return out


def _empty_output(q: Tensor) -> Tensor:
    batch, heads, n, d = q.shape
    return q.new_empty(batch, n, heads, d).transpose(1, 2)


def _launch(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    out = _empty_output(q)
    batch, heads, n, d = q.shape
    options = _launch_options(n, d, q.dtype)
    grid = (triton.cdiv(n, options["BLOCK_M"]) * batch * heads,)
    strides = [stride for t in (q, k, v) for stride in t.stride()[:3]]
    align = math.gcd(8, *strides[1::3])  # what the strides of heads share: loads of eight elements need to know of it
    with torch.cuda.device_of(q):  # Triton launches on the current device; does nothing for a tensor on CPU
        _kernel[grid](q, k, v, bias.contiguous(), out, *strides, n, _LOG2E / math.sqrt(d), heads, d, align, **options)
    return out


# A custom_op, not a triton_op: that one needs Triton at import, and on older torch a kernel that is not interpreted.
# Opaque also means that compiled and eager runs launch the same kernel on the same strides.
_operator: Any = torch.library.custom_op(
    "tomebench::vector_bias_attention",
    _launch,
    mutates_args=(),
    schema="(Tensor q, Tensor k, Tensor v, Tensor bias) -> Tensor",
)
_operator.register_fake(lambda q, k, v, bias: _empty_output(q))


def _launch_options(n: int, d: int, dtype: torch.dtype) -> dict[str, int]:
    """Block sizes and number of warps of a launch.

    They are fixed rather than autotuned, because autotuning times candidates at the first call of every new shape: in
    the middle of a measurement, and with a result that may differ each time.
    """
    width = max(triton.next_power_of_2(d), _MIN_BLOCK)
    # The largest that spill no registers on any GPU since Ampere: fp32 products run without tensor cores and keep their
    # operands in registers, and wide heads leave room for fewer keys.
    block_m = block_n = 32 if dtype == torch.float32 else 64
    if width > 64:
        block_n //= 2
    fits = max(triton.next_power_of_2(n), _MIN_BLOCK)
    warps = 4 if fits >= block_m or dtype == torch.float32 else fits // _MIN_BLOCK
    blocks = {"BLOCK_M": min(block_m, fits), "BLOCK_N": min(block_n, fits), "BLOCK_D": width}
    return blocks | {"num_warps": warps, "num_stages": 2}


def _attention_kernel(  # one program: BLOCK_M queries of one head of one image against all its keys
    q: tl.tensor,
    k: tl.tensor,
    v: tl.tensor,
    bias: tl.tensor,
    out: tl.tensor,
    q_image: tl.tensor,  # strides, in elements
    q_head: tl.tensor,
    q_token: tl.tensor,
    k_image: tl.tensor,
    k_head: tl.tensor,
    k_token: tl.tensor,
    v_image: tl.tensor,
    v_head: tl.tensor,
    v_token: tl.tensor,
    n: tl.tensor,
    scale: tl.tensor,  # log2(e) / sqrt(d): the exponentials are powers of two, which is what the hardware has
    HEADS: tl.constexpr,
    D: tl.constexpr,
    ALIGN: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
) -> None:
    blocks = tl.cdiv(n, BLOCK_M)
    program = tl.program_id(0)
    head = program // blocks % HEADS
    image = (program // blocks // HEADS).to(tl.int64)  # a large batch has more than 2**31 elements
    first = program % blocks * BLOCK_M

    rows = first + tl.arange(0, BLOCK_M)
    cols = tl.arange(0, BLOCK_N)
    dims = tl.arange(0, BLOCK_D)
    in_rows = (rows[:, None] < n) & (dims[None, :] < D)
    q += image * q_image + tl.multiple_of(head * q_head, ALIGN)
    k += image * k_image + tl.multiple_of(head * k_head, ALIGN)
    v += image * v_image + tl.multiple_of(head * v_head, ALIGN)
    bias += image * n
    queries = tl.load(q + rows[:, None] * q_token + dims[None, :], mask=in_rows, other=0.0)

    highest = tl.full([BLOCK_M], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_M], tl.float32)
    mean = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    for start in range(0, n, BLOCK_N):
        in_block = (start + cols[:, None] < n) & (dims[None, :] < D)
        keys = tl.load(k + cols[:, None] * k_token + dims[None, :], mask=in_block, other=0.0)
        values = tl.load(v + cols[:, None] * v_token + dims[None, :], mask=in_block, other=0.0)
        # Past the last key the bias is -inf, so the same sum that adds it also masks.
        log_size = tl.load(bias + start + cols, mask=start + cols < n, other=float("-inf"))
        scores = tl.dot(queries, tl.trans(keys), input_precision="ieee") * scale
        scores += (log_size * 1.4426950408889634)[None, :]  # log2(e)
        new_highest = tl.maximum(highest, tl.max(scores, 1))
        # While all keys so far have a bias of -inf so is the maximum; subtracting 0 then gives weights of 0, not nan.
        shift = tl.where(new_highest == float("-inf"), 0.0, new_highest)
        weights = tl.exp2(scores - shift[:, None])
        decay = tl.exp2(highest - shift)
        total = total * decay + tl.sum(weights, 1)
        mean = tl.dot(weights.to(values.dtype), values, mean * decay[:, None], input_precision="ieee")
        highest = new_highest
        k += BLOCK_N * k_token
        v += BLOCK_N * v_token

    out += image * n * HEADS * D + head * D
    tl.store(out + rows[:, None] * (HEADS * D) + dims[None, :], mean / total[:, None], mask=in_rows)


# N changes from block to block of a merged model: without the exception 192 and 197 tokens would be two compilations.
_kernel: Any = triton and triton.jit(_attention_kernel, do_not_specialize=["n"])
_INTERPRETED = triton is not None and not isinstance(_kernel, triton.JITFunction)
