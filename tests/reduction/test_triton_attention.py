"""The kernel with one bias per key: the formula in every dtype and layout, on CPU under Triton's interpreter."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from reduction import triton_cases
from torch import Tensor

from tomebench.errors import DeviceError
from tomebench.reduction import triton_attention
from tomebench.reduction.triton_attention import available, vector_bias_attention

TOLERANCES = {"float32": 4e-6, "float16": 1e-3, "bfloat16": 8e-3}
"""What the module states: largest error, relative to the largest output, against float64."""

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
needs_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")


@pytest.fixture(scope="module")
def interpreted() -> dict[str, Any]:
    environment = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, triton_cases.__file__], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@needs_triton
@pytest.mark.parametrize("dtype", TOLERANCES)
def test_equals_the_formula_in_float64(dtype: str, interpreted: dict[str, Any]) -> None:
    found = interpreted["errors"][dtype]
    assert len(found) > 20
    assert {case: error for case, error in found.items() if not error <= TOLERANCES[dtype]} == {}


@needs_triton
def test_layouts_images_and_the_operator(interpreted: dict[str, Any]) -> None:
    assert [name for name, holds in interpreted["facts"].items() if not holds] == []


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("dtype", TOLERANCES)
def test_equals_the_formula_in_float64_on_a_gpu(dtype: str) -> None:
    found = triton_cases.errors("cuda", triton_cases.DTYPES[dtype])
    assert {case: error for case, error in found.items() if not error <= TOLERANCES[dtype]} == {}


@pytest.mark.gpu
@needs_gpu
def test_layouts_images_and_the_operator_on_a_gpu() -> None:
    assert [name for name, holds in triton_cases.facts("cuda").items() if not holds] == []


@needs_triton
@pytest.mark.skipif(triton_attention._INTERPRETED, reason="the interpreter compiles nothing")
@pytest.mark.parametrize(("capability", "dtype", "d"), [(80, "fp32", 64), (86, "fp16", 72), (90, "bf16", 64)])
def test_compiles_for_gpus_that_are_not_here(
    capability: int, dtype: str, d: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The interpreter takes Python that the compiler does not, and knows no limit of shared memory.
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    torch_dtype = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[dtype]
    options = triton_attention._launch_options(197, d, torch_dtype)
    launch = {name: options.pop(name) for name in ("num_warps", "num_stages")}
    constants = {"HEADS": 12, "D": d, "ALIGN": 8} | options
    pointers = dict.fromkeys(("q", "k", "v", "out"), f"*{dtype}") | {"bias": "*fp32", "scale": "fp32"}
    names = triton_attention._kernel.arg_names
    signature = {name: "constexpr" if name in constants else pointers.get(name, "i32") for name in names}
    source = ASTSource(triton_attention._kernel, signature, constants)
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=launch)
    assert compiled.metadata.shared <= 99 * 1024  # what the smallest of these GPUs has


def test_imports_without_triton() -> None:
    code = (
        "import sys; sys.modules['triton'] = None\n"
        "import torch; from tomebench.reduction.triton_attention import available\n"
        "print(available(torch.device('cuda')), available(torch.device('cpu')))"
    )
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["False", "False"], done.stderr


@needs_triton
def test_runs_on_cuda_and_where_kernels_are_interpreted(monkeypatch: pytest.MonkeyPatch) -> None:
    for interpreted in (False, True):
        monkeypatch.setattr(triton_attention, "_INTERPRETED", interpreted)
        assert available(torch.device("cuda", 1))
        assert available(torch.device("cpu")) == interpreted


def qkv_and_bias(**changes: Tensor) -> dict[str, Tensor]:
    return {name: torch.ones(2, 3, 5, 16) for name in "qkv"} | {"bias": torch.zeros(2, 5)} | changes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({name: torch.ones(2, 5, 16) for name in "qkv"}, "must all be"),
        ({"k": torch.ones(2, 3, 6, 16)}, "must all be"),
        ({"v": torch.ones(2, 3, 5, 8)}, "must all be"),
        ({name: torch.ones(2, 3, 5, 129) for name in "qkv"}, "d in 1..128, not N = 5 and d = 129"),
        ({name: torch.ones(2, 3, 0, 16) for name in "qkv"} | {"bias": torch.zeros(2, 0)}, "N must be at least 1"),
        ({name: torch.ones(2, 3, 5, 16).double() for name in "qkv"}, "must share fp16, bf16 or fp32"),
        ({"v": torch.ones(2, 3, 5, 16).half()}, "must share fp16, bf16 or fp32"),
        ({"bias": torch.zeros(2, 6)}, r"must be float32 \[2, 5\], not torch.float32 \[2, 6\]"),
        ({"bias": torch.zeros(2, 1, 1, 5)}, r"must be float32 \[2, 5\]"),
        ({"bias": torch.zeros(2, 5).half()}, r"must be float32 \[2, 5\], not torch.float16"),
        ({"bias": torch.zeros(2, 5, device="meta")}, "must be on one device"),
        ({"k": torch.ones(2, 3, 16, 5).transpose(2, 3)}, "last dimension of q, k and v must be contiguous"),
    ],
)
def test_wrong_arguments_are_refused_in_one_line(changes: dict[str, Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=message) as raised:
        vector_bias_attention(**qkv_and_bias(**changes))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ["q", "k", "v", "bias"])
def test_there_are_no_gradients(name: str) -> None:
    given = qkv_and_bias()
    given[name].requires_grad_()
    with pytest.raises(NotImplementedError, match="inference only; use --attention efficient for training"):
        vector_bias_attention(**given)


def test_a_device_without_the_kernel_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton_attention, "_INTERPRETED", False)
    with pytest.raises(DeviceError, match="does not run on cpu"):
        vector_bias_attention(**qkv_and_bias())
