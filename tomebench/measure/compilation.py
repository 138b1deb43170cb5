"""Compiled forward passes, and the count of compilations that shows whether any of them fell into a measurement."""

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
"""Generates the code of compiled passes."""
RecompileLimitError = FailOnRecompileLimitHit
"""What a compiled function raises when it has been compiled too often. It is no RuntimeError."""
CompilationError = (TorchDynamoException, RecompileLimitError)
"""What a compiled function raises when it cannot be compiled, or has been too often."""


def compiled(forward: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Compile a forward pass as one graph for one shape; the first call does the work.

    Dynamo keeps its graphs by code object and gives up after eight of one, and all the models of a sweep run the same
    code. So every call of this function makes a code object of its own, and a sweep may have any number of r.

    Raises:
        DeviceError: the compiler is switched off in this process.
        CompilationError: from the call that compiles: something in the model cannot be one graph, the machine has no
            compiler, or the same function was compiled too often.
    """

    def run(images: Tensor) -> Tensor:
        return forward(images)

    # Some versions advise TF32 for every fp32 product, at the precision that was asked for.
    warnings.filterwarnings("ignore", message="TensorFloat32 tensor cores")
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # it warns that a CPU build has no CUDA
    run.__code__ = run.__code__.replace(co_name="tomebench_pass")
    found: Callable[[Tensor], Tensor] = torch.compile(run, backend=BACKEND, fullgraph=True, dynamic=False)
    if found is run:
        raise DeviceError(f"--compile: nothing would be compiled; {_why_not()}")
    return found


def _why_not() -> str:
    """What keeps a forward pass from being compiled, and what to do."""
    names = ("TORCHDYNAMO_DISABLE", "TORCH_COMPILE_DISABLE")
    on = [f"{name}={os.environ[name]}" for name in names if os.environ.get(name, "0") not in ("", "0")]
    return f"unset {on[0]}" if on else "something in this process has switched the compiler off: start a new one"


def graphs_compiled() -> int:
    """Graphs that this process has compiled so far; it rises by one with every compilation and every recompilation."""
    return int(counters["stats"]["unique_graphs"])
