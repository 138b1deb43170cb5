"""Proportional attention: a token of size s is attended to as if it were there s times."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from tomebench.errors import DeviceError
from tomebench.reduction import attention
from tomebench.reduction.attention import attend, check_route, choose_route, kernel_name, log_size_bias
from tomebench.schema import Route

CPU_ROUTES: tuple[Route, ...] = ("auto", "sdpa", "padded", "matmul", "augmented")
TOLERANCES = {torch.float32: 4e-6, torch.float16: 3e-3, torch.bfloat16: 2e-2}
"""Largest error of attention, relative to its largest output, against float64: what SPEED.md states."""


def tolerance(route: Route, dtype: torch.dtype) -> float:
    """That of a route: ``matmul`` rounds the scores, too, to the dtype of the model."""
    return TOLERANCES[dtype] * (2 if route == "matmul" and dtype.itemsize == 2 else 1)


def largest_error(route: Route, dtype: torch.dtype, n: int, device: str) -> float:
    """Of biased attention on n tokens of heads as wide as those of a ViT."""
    exact = random_qkv(n, n, width=64)
    size = torch.randint(1, 30, (2, n), generator=torch.Generator().manual_seed(n)).float()
    expected = attend(*exact, size, dropout=0.0, fused=False)
    with torch.inference_mode():
        q, k, v = (t.to(device, dtype) for t in exact)
        out = attend(q, k, v, size.to(device), dropout=0.0, fused=True, route=route)
    return (out.double().cpu() - expected).abs().max().item() / expected.abs().max().item()


def random_qkv(n: int, seed: int, *, batch: int = 2, heads: int = 3, width: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    """Float64 queries, keys and values [B, heads, N, d]."""
    generator = torch.Generator().manual_seed(seed)
    q, k, v = torch.randn(3, batch, heads, n, width, dtype=torch.float64, generator=generator)
    return q, k, v


@given(st.integers(1, 20), st.integers(0, 2**31), st.booleans(), st.sampled_from(CPU_ROUTES))
def test_equals_attention_over_repeated_tokens(n: int, seed: int, fused: bool, route: Route) -> None:
    q, k, v = random_qkv(n, seed)
    size = torch.randint(1, 8, (2, n), generator=torch.Generator().manual_seed(seed))
    out = attend(q, k, v, size.float(), dropout=0.0, fused=fused, route=route)
    for image in range(2):
        often = torch.repeat_interleave(torch.arange(n), size[image])
        weights = (q[image] @ k[image, :, often].transpose(-2, -1) / q.shape[-1] ** 0.5).softmax(-1)
        expected = weights @ v[image, :, often]
        torch.testing.assert_close(out[image], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("fused", [True, False])
def test_sizes_of_one_are_no_bias(fused: bool) -> None:
    q, k, v = random_qkv(9, 0)
    plain = attend(q, k, v, None, dropout=0.0, fused=fused)
    ones = attend(q, k, v, torch.ones(2, 9), dropout=0.0, fused=fused)
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
    assert bias.stride(-1) == 1
    # Kernels of a GPU copy a bias unless every row starts on a boundary of eight elements and is contiguous.
    elsewhere = log_size_bias(size.to("meta"), dtype)
    assert elsewhere is not None
    assert (elsewhere.shape, elsewhere.dtype) == (bias.shape, dtype)
    assert elsewhere.stride(-1) == 1
    assert elsewhere.stride(0) % 8 == 0
    assert elsewhere.storage_offset() % 8 == 0
    assert elsewhere.stride(0) - n < 8


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("route", CPU_ROUTES)
def test_every_route_agrees_with_the_formula_in_float64(route: Route, dtype: torch.dtype) -> None:
    for n in (1, 2, 8, 11, 16, 17, 101, 109, 173, 189, 192, 197):
        worst = {}
        for sizes in (30, 1):  # with and without a bias that does anything
            exact = random_qkv(n, n, width=16)
            size = torch.randint(1, sizes + 1, (2, n), generator=torch.Generator().manual_seed(n)).float()
            expected = attend(*exact, size, dropout=0.0, fused=False)
            q, k, v = (t.to(dtype) for t in exact)
            for name, given_size in (("sizes", size), ("none", None if sizes == 1 else size)):
                out = attend(q, k, v, given_size, dropout=0.0, fused=True, route=route)
                assert out.dtype == dtype
                assert out.shape == q.shape
                worst[name] = (out.double() - expected).abs().max().item() / expected.abs().max().item()
        assert max(worst.values()) <= tolerance(route, dtype), (n, worst)
        assert largest_error(route, dtype, n, "cpu") <= tolerance(route, dtype)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("route", CPU_ROUTES)
def test_gradients_flow_through_biased_attention(route: Route, fused: bool) -> None:
    q, k, v = (t.requires_grad_(True) for t in random_qkv(5, 1, batch=1, heads=1))
    size = torch.tensor([[1.0, 2.0, 1.0, 5.0, 3.0]])
    assert torch.autograd.gradcheck(lambda *qkv: attend(*qkv, size, dropout=0.0, fused=fused, route=route), (q, k, v))


@pytest.mark.parametrize("route", ["auto", "sdpa", "augmented"])
def test_without_sizes_the_default_routes_have_the_bits_of_plain_attention(route: Route) -> None:
    q, k, v = (t.float() for t in random_qkv(13, 4, width=16))
    plain = F.scaled_dot_product_attention(q, k, v)
    assert torch.equal(attend(q, k, v, None, dropout=0.0, fused=True, route=route), plain)


def test_a_padded_multiple_of_sixteen_is_plain_attention() -> None:
    q, k, v = (t.float() for t in random_qkv(32, 4, width=16))
    plain = F.scaled_dot_product_attention(q, k, v)
    assert torch.equal(attend(q, k, v, None, dropout=0.0, fused=True, route="padded"), plain)


def test_the_rule_changes_kernels_only_where_a_bias_forces_it() -> None:
    for device in ("cpu", "cuda"):
        assert choose_route("auto", device, biased=False) == "sdpa"
        for asked in get_args(Route)[1:]:
            assert choose_route(asked, device, biased=True) == asked
    assert choose_route("auto", "cpu", biased=True) == "sdpa"
    assert choose_route("auto", "cuda", biased=True) == "efficient"


@pytest.mark.parametrize(
    ("route", "biased", "fused", "device", "name"),
    [
        ("auto", False, True, "cpu", "sdpa-flash"),
        ("auto", True, True, "cpu", "sdpa-flash+bias"),
        ("auto", True, False, "cpu", "unfused+bias"),
        ("padded", False, True, "cpu", "padded sdpa-flash"),
        ("padded", True, True, "cpu", "padded sdpa-flash+bias"),
        ("matmul", True, True, "cpu", "matmul"),
        ("augmented", True, True, "cpu", "augmented"),
        ("augmented", False, True, "cpu", "sdpa-flash"),
        ("auto", True, True, "cuda", "sdpa-efficient+bias"),
        ("cudnn", False, True, "cuda", "sdpa-cudnn"),
    ],
)
def test_the_kernel_that_runs_has_a_name(route: Route, biased: bool, fused: bool, device: str, name: str) -> None:
    found = kernel_name(
        route, shape=(2, 3, 37, 64), biased=biased, fused=fused, dtype=torch.float32, device=torch.device(device)
    )
    assert found == name


@pytest.mark.parametrize("route", ["efficient", "cudnn", "triton"])
def test_cuda_routes_are_refused_elsewhere(route: Route) -> None:
    with pytest.raises(DeviceError, match=f"attention {route} needs a CUDA GPU, not cpu"):
        check_route(route, torch.device("cpu"), "bf16", training=False)
    check_route("auto", torch.device("cpu"), "fp32", training=True)


@pytest.mark.parametrize("dtype", ["fp32", "tf32"])
def test_cudnn_is_refused_where_it_has_no_kernel(dtype: str) -> None:
    with pytest.raises(DeviceError, match=f"cudnn has no {dtype}"):
        check_route("cudnn", torch.device("cuda"), dtype, training=False)


def test_on_cuda_the_choice_is_narrowed_for_the_call_and_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen on a CPU, where the switches exist and change nothing; compiled too, in one graph."""
    attended, seen = F.scaled_dot_product_attention, list[bool]()

    def watched(*args: Tensor, **kwargs: object) -> Tensor:
        seen.append(torch.backends.cuda.cudnn_sdp_enabled())
        return attended(*args, **kwargs)

    q, k, v = random_qkv(9, 0)
    size = torch.rand(2, 9) + 1
    expected = attend(q, k, v, size, dropout=0.0, fused=True, route="sdpa")
    before = torch.backends.cuda.cudnn_sdp_enabled()
    monkeypatch.setattr(attention, "choose_route", lambda asked, device_type, *, biased: "efficient")
    monkeypatch.setattr(F, "scaled_dot_product_attention", watched)
    assert before
    torch.testing.assert_close(attend(q, k, v, size, dropout=0.0, fused=True), expected)
    assert seen == [False]
    assert torch.backends.cuda.cudnn_sdp_enabled()
    with pytest.raises(RuntimeError):
        attend(q, k[..., :2], v, size, dropout=0.0, fused=True)
    assert torch.backends.cuda.cudnn_sdp_enabled()
    monkeypatch.setattr(F, "scaled_dot_product_attention", attended)
    compiled = torch.compile(attend, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(q, k, v, size, dropout=0.0, fused=True), expected)
    assert torch.backends.cuda.cudnn_sdp_enabled()


def test_naming_a_kernel_takes_no_memory() -> None:
    shape = (65536, 16, 4096, 64)  # half a terabyte
    where = {"dtype": torch.float32, "device": torch.device("cpu")}
    assert kernel_name("auto", shape=shape, biased=False, fused=True, **where) == "sdpa-flash"
    assert kernel_name("auto", shape=shape, biased=True, fused=True, **where) == "sdpa-flash+bias"


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("route", get_args(Route))
def test_every_cuda_route_agrees_with_the_formula_in_float64(route: Route, dtype: torch.dtype) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    if route == "cudnn" and dtype == torch.float32:
        pytest.skip("cuDNN has no fp32 attention")
    for n in range(2, 200):
        error = largest_error(route, dtype, n, "cuda")
        assert error <= tolerance(route, dtype), (n, error)


def test_dropout_drops_the_weights_timm_drops() -> None:
    q, k, v = random_qkv(6, 2)
    torch.manual_seed(1)
    out = attend(q, k, v, None, dropout=0.5, fused=False)
    torch.manual_seed(1)
    weights = F.dropout(((q * 0.5) @ k.transpose(-2, -1)).softmax(-1), 0.5)
    assert torch.equal(out, weights @ v)
    assert not torch.equal(out, attend(q, k, v, None, dropout=0.0, fused=False))
