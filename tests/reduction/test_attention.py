"""Proportional attention: a token of size s is attended to as if it were there s times."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from tomebench.reduction.attention import attend, log_size_bias


def random_qkv(n: int, seed: int, *, batch: int = 2, heads: int = 3, width: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    """Float64 queries, keys and values [B, heads, N, d]."""
    generator = torch.Generator().manual_seed(seed)
    q, k, v = torch.randn(3, batch, heads, n, width, dtype=torch.float64, generator=generator)
    return q, k, v


@given(st.integers(1, 20), st.integers(0, 2**31), st.booleans())
def test_equals_attention_over_repeated_tokens(n: int, seed: int, fused: bool) -> None:
    q, k, v = random_qkv(n, seed)
    size = torch.randint(1, 8, (2, n), generator=torch.Generator().manual_seed(seed))
    out = attend(q, k, v, log_size_bias(size.float(), torch.float64), dropout=0.0, fused=fused)
    for image in range(2):
        often = torch.repeat_interleave(torch.arange(n), size[image])
        weights = (q[image] @ k[image, :, often].transpose(-2, -1) / q.shape[-1] ** 0.5).softmax(-1)
        expected = weights @ v[image, :, often]
        torch.testing.assert_close(out[image], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("fused", [True, False])
def test_sizes_of_one_are_no_bias(fused: bool) -> None:
    q, k, v = random_qkv(9, 0)
    plain = attend(q, k, v, None, dropout=0.0, fused=fused)
    ones = attend(q, k, v, log_size_bias(torch.ones(2, 9), torch.float64), dropout=0.0, fused=fused)
    torch.testing.assert_close(ones, plain, rtol=0, atol=1e-15)
    assert log_size_bias(None, torch.float32) is None


@pytest.mark.parametrize("fused", [True, False])
def test_without_a_bias_the_bits_are_those_of_timm(fused: bool) -> None:
    from timm.layers import Attention

    torch.manual_seed(0)
    module = Attention(24, num_heads=3).eval()
    module.fused_attn = fused
    x = torch.randn(2, 11, 24)
    q, k, v = module.qkv(x).reshape(2, 11, 3, 3, 8).permute(2, 0, 3, 1, 4).unbind(0)
    out = attend(q, k, v, None, dropout=0.0, fused=fused).transpose(1, 2).reshape(2, 11, 24)
    assert torch.equal(module.proj(out), module(x))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("n", [1, 7, 8, 9, 197])
def test_bias_shape_values_and_storage(n: int, dtype: torch.dtype) -> None:
    size = torch.randint(1, 300, (3, n), generator=torch.Generator().manual_seed(n)).float()
    bias = log_size_bias(size, dtype)
    assert bias is not None
    assert (bias.shape, bias.dtype) == ((3, 1, 1, n), dtype)
    torch.testing.assert_close(bias[:, 0, 0].double(), size.double().log(), rtol=torch.finfo(dtype).eps, atol=0)
    # Fused kernels copy a bias unless every row starts on a boundary of eight elements and is contiguous.
    assert bias.stride(-1) == 1
    assert bias.stride(0) % 8 == 0
    assert bias.storage_offset() % 8 == 0
    assert bias.stride(0) - n < 8


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("n", [8, 11, 109, 197])
def test_fused_and_unfused_agree(n: int, dtype: torch.dtype) -> None:
    exact_q, exact_k, exact_v = random_qkv(n, n, width=16)
    size = torch.randint(1, 30, (2, n), generator=torch.Generator().manual_seed(n)).float()
    exact = attend(exact_q, exact_k, exact_v, log_size_bias(size, torch.float64), dropout=0.0, fused=False)
    q, k, v = (t.to(dtype) for t in (exact_q, exact_k, exact_v))
    tolerance = 1e-5 if dtype == torch.float32 else 5e-2
    for fused in (True, False):
        out = attend(q, k, v, log_size_bias(size, dtype), dropout=0.0, fused=fused)
        assert out.dtype == dtype
        torch.testing.assert_close(out.double(), exact, rtol=0, atol=tolerance)


@pytest.mark.parametrize("fused", [True, False])
def test_gradients_flow_through_biased_attention(fused: bool) -> None:
    q, k, v = (t.requires_grad_(True) for t in random_qkv(5, 1, batch=1, heads=1))
    bias = log_size_bias(torch.tensor([[1.0, 2.0, 1.0, 5.0, 3.0]]), torch.float64)
    assert torch.autograd.gradcheck(lambda *qkv: attend(*qkv, bias, dropout=0.0, fused=fused), (q, k, v))


def test_dropout_drops_the_weights_timm_drops() -> None:
    q, k, v = random_qkv(6, 2)
    torch.manual_seed(1)
    out = attend(q, k, v, None, dropout=0.5, fused=False)
    torch.manual_seed(1)
    weights = F.dropout(((q * 0.5) @ k.transpose(-2, -1)).softmax(-1), 0.5)
    assert torch.equal(out, weights @ v)
    assert not torch.equal(out, attend(q, k, v, None, dropout=0.0, fused=False))
