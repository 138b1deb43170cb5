"""Compile forward passes with torch.compile, and count compilations, so that a burst that includes one is found."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable

import torch
from torch import Tensor
from torch._dynamo.exc import FailOnRecompileLimitHit, TorchDynamoException
from torch._dynamo.utils import counters

from tomebench.errors import DeviceError

BACKEND = "inductor"
"""Backend of torch.compile that generates the code."""
RecompileLimitError = FailOnRecompileLimitHit
"""Raised by a function that was compiled too often. It is no RuntimeError."""
CompilationError = (TorchDynamoException, RecompileLimitError)
"""Raised by a function that cannot be compiled, or was compiled too often."""


def compiled(forward: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Compile a forward pass as one graph for one shape, at its first call.

    Dynamo stores its graphs by code object and gives up after eight of one object, and all models of a sweep run the
    same code. So every call of this function makes its own code object, and a sweep may have any number of r.

    Raises:
        DeviceError: the compiler is switched off in this process.
        CompilationError: from the call that compiles: the model cannot be one graph, the machine has no compiler, or
            the function was compiled too often.
    """

    def run(images: Tensor) -> Tensor:
        return forward(images)

    # Some versions warn about every fp32 product that TF32 would be faster, although fp32 was asked for.
    warnings.filterwarnings("ignore", message="TensorFloat32 tensor cores")
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # warns on a CPU build that there is no CUDA
    run.__code__ = run.__code__.replace(co_name="tomebench_pass")
    found: Callable[[Tensor], Tensor] = torch.compile(run, backend=BACKEND, fullgraph=True, dynamic=False)
    if found is run:
        raise DeviceError(f"--compile: nothing would be compiled; {_why_not()}")
    return found


def _why_not() -> str:
    """Why a forward pass cannot be compiled here, and what to do."""
    names = ("TORCHDYNAMO_DISABLE", "TORCH_COMPILE_DISABLE")
    on = [f"{name}={os.environ[name]}" for name in names if os.environ.get(name, "0") not in ("", "0")]
    return f"unset {on[0]}" if on else "something in this process has switched the compiler off: start a new one"


def graphs_compiled() -> int:
    """Number of graphs that this process has compiled so far, recompilations included."""
    return int(counters["stats"]["unique_graphs"])
