"""What the Triton kernel must get right, for any device; as a script, under Triton's interpreter, printed as JSON.

The interpreter has to be chosen before Triton is imported, so on CPU this needs a process of its own.
"""

from __future__ import annotations

import json
import math
import os

import torch
from torch import Tensor

from tomebench.reduction.triton_attention import vector_bias_attention

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
# Both sides of every block boundary, the token counts of ViTs at 224 pixels with and without merging, and 384 pixels.
SHAPES = [(n, 64) for n in (1, 2, 7, 16, 17, 31, 32, 33, 63, 64, 65, 101, 129, 173, 197, 577)]
SHAPES += [(33, d) for d in (8, 16, 32, 72, 80, 88, 128)] + [(1, 72), (65, 72), (65, 128)]


def inputs(n: int, d: int, dtype: torch.dtype, device: str, *, batch: int = 2, heads: int = 2) -> tuple[Tensor, ...]:
    """Queries, keys and values as a ViT makes them, views of one tensor; logarithms of sizes from 1 to 30."""
    generator = torch.Generator().manual_seed(1000 * n + d)
    qkv = torch.randn(batch, n, 3, heads, d, generator=generator).to(device, dtype)
    bias = torch.randint(1, 31, (batch, n), generator=generator).float().log().to(device)
    return *qkv.permute(2, 0, 3, 1, 4).unbind(0), bias


def formula(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    scores = q.double() @ k.double().transpose(-2, -1) / math.sqrt(q.shape[-1])
    return (scores + bias.double()[:, None, None, :]).softmax(-1) @ v.double()


def error(out: Tensor, expected: Tensor) -> float:
    """Largest error, relative to the largest output."""
    return ((out.double() - expected).abs().max() / expected.abs().max()).item()


def errors(device: str, dtype: torch.dtype) -> dict[str, float]:
    """Relative error against the formula in float64 by case."""
    found = {}
    for n, d in SHAPES:
        # The interpreter takes tens of milliseconds for every pair of blocks in every head of every image.
        interpreted = device == "cpu"
        if interpreted and n > (200 if dtype == torch.float16 else 101):
            continue
        given = inputs(n, d, dtype, device, batch=1 if interpreted and n > 65 else 2, heads=1 if interpreted else 2)
        out = vector_bias_attention(*given)
        assert (out.dtype, out.shape) == (dtype, given[0].shape)
        found[f"N={n} d={d}"] = error(out, formula(*given))

    q, k, v, bias = inputs(101, 32, dtype, device, heads=1 if device == "cpu" else 2)
    zero = vector_bias_attention(q, k, v, torch.zeros_like(bias))
    plain = torch.nn.functional.scaled_dot_product_attention(q.double(), k.double(), v.double())
    found["a bias of zero is plain attention"] = error(zero, plain)

    dead = bias.clone()
    dead[0, :70] = -math.inf  # more than a block, and the first one
    dead[1, ::3] = -math.inf
    out = vector_bias_attention(q, k, v, dead)
    for image in range(2):
        one, live = slice(image, image + 1), dead[image].isfinite()
        expected = formula(q[one], k[one][:, :, live], v[one][:, :, live], bias[one, live])
        found[f"dead keys of image {image}"] = error(out[one], expected)
    return found


def facts(device: str) -> dict[str, bool]:
    """What holds exactly, by name."""
    found = {}
    q, k, v, bias = given = inputs(70, 16, torch.float16, device)
    out = vector_bias_attention(*given)
    alone = torch.cat([vector_bias_attention(*(t[i : i + 1] for t in given)) for i in range(2)])
    found["images do not touch each other"] = torch.equal(out, alone)
    found["the same call gives the same bits"] = torch.equal(out, vector_bias_attention(*given))

    layouts = {
        "contiguous": [t.contiguous() for t in (q, k, v)],
        "heads inside": [t.transpose(1, 2).contiguous().transpose(1, 2) for t in (q, k, v)],
        "batch inside": [t.permute(2, 1, 0, 3).contiguous().permute(2, 1, 0, 3) for t in (q, k, v)],
        "unaligned": [torch.nn.functional.pad(t, (1, 2))[..., 1:-2] for t in (q, k, v)],
        "each its own": [q.contiguous(), k, torch.nn.functional.pad(v, (3, 0))[..., 3:]],
    }
    for name, tensors in layouts.items():
        found[f"layout {name}"] = torch.equal(vector_bias_attention(*tensors, bias), out)
    wide = torch.stack([bias, bias], dim=-1)[..., 0]
    found["layout of the bias"] = torch.equal(vector_bias_attention(q, k, v, wide), out)
    expanded = vector_bias_attention(q, k, v, bias[:1].expand(2, -1))
    found["an expanded bias"] = torch.equal(expanded, vector_bias_attention(q, k, v, bias[:1].repeat(2, 1)))

    found["joining the heads is no copy"] = out.transpose(1, 2).is_contiguous()
    one_head = vector_bias_attention(*inputs(5, 16, torch.float16, device, batch=1, heads=1))
    found["also with one head"] = one_head.transpose(1, 2).is_contiguous()
    empty = vector_bias_attention(*(t[:0] for t in given))
    found["no images"] = empty.shape == (0, 2, 70, 16)

    operator = torch.ops.tomebench.vector_bias_attention.default
    torch.library.opcheck(operator, given, test_utils=("test_schema", "test_faketensor"))  # raises
    backend = "inductor" if device == "cuda" else "aot_eager"  # Inductor's CPU code needs a C++ compiler
    joined = torch.compile(
        lambda *args: vector_bias_attention(*args).transpose(1, 2).flatten(2) * 2, fullgraph=True, backend=backend
    )
    found["compiles as one graph"] = torch.equal(joined(*given), out.transpose(1, 2).flatten(2) * 2)

    sharp = vector_bias_attention(30 * q, 30 * k, v, bias)
    found["large scores are finite"] = bool(sharp.isfinite().all())
    needing = [t.clone().requires_grad_() for t in (q, k, v)]
    with torch.no_grad():
        found["a gradient nobody asks for"] = torch.equal(vector_bias_attention(*needing, bias), out)
    return found


def teach_the_interpreter_bfloat16() -> None:
    """Triton's interpreter multiplies bf16 by its bit patterns, and cuts off where hardware rounds; mend both."""
    import numpy as np
    import triton.language as tl
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

    product, cast = InterpreterBuilder.create_dot, InterpreterBuilder.cast_impl

    def widened(handle: TensorHandle) -> TensorHandle:
        if handle.dtype.scalar != tl.bfloat16:
            return handle
        return TensorHandle((handle.data.astype(np.uint32) << 16).view(np.float32), tl.float32)

    def create_dot(self, a, b, *rest):
        return product(self, widened(a), widened(b), *rest)

    def cast_impl(self, source, target):
        if (source.dtype.scalar, target.scalar) != (tl.float32, tl.bfloat16):
            return cast(self, source, target)
        bits = np.ascontiguousarray(source.data).view(np.uint32)
        nearest = bits + 0x7FFF + ((bits >> 16) & 1)  # ties to even
        return TensorHandle((nearest >> 16).astype(np.uint16), tl.bfloat16)

    InterpreterBuilder.create_dot, InterpreterBuilder.cast_impl = create_dot, cast_impl


if __name__ == "__main__":
    assert os.environ["TRITON_INTERPRET"] == "1"
    teach_the_interpreter_bfloat16()
    found = {name: errors("cpu", dtype) for name, dtype in DTYPES.items()}
    print(json.dumps({"errors": found, "facts": facts("cpu")}))
