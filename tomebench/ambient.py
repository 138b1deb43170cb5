"""Reset PyTorch's global state (default dtype and device, autocast, kernel switches) to its defaults while measuring.

A caller in Python may have changed it, and a row would say fp32 of what autocast rounded to bf16. Whatever computes or
loads anything for a row enters :func:`usual_state`; a state that cannot be reset is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch
from torch.nn.modules import module as _module
from torch.overrides import _get_current_function_mode_stack
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

from tomebench.errors import DeviceError

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

_SWITCHES: tuple[tuple[Callable[[], Any], Callable[[Any], None], Any], ...] = (
    (torch.backends.cuda.flash_sdp_enabled, torch.backends.cuda.enable_flash_sdp, True),
    (torch.backends.cuda.mem_efficient_sdp_enabled, torch.backends.cuda.enable_mem_efficient_sdp, True),
    (torch.backends.cuda.math_sdp_enabled, torch.backends.cuda.enable_math_sdp, True),
    (torch.backends.cuda.cudnn_sdp_enabled, torch.backends.cuda.enable_cudnn_sdp, True),
    (torch.get_deterministic_debug_mode, torch.set_deterministic_debug_mode, 0),  # off, warn or raise
    (
        lambda: (torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()),
        lambda both: torch.set_anomaly_enabled(*both),
        (False, True),
    ),
)
"""(Getter, setter, default in a new process) of each global switch."""
_FLAGS: tuple[tuple[Any, str, bool], ...] = (
    (torch.backends.mkldnn, "enabled", True),
    (torch.backends.cudnn, "enabled", True),
    (torch.backends.cudnn, "benchmark", False),
    (torch.backends.cudnn, "deterministic", False),
    (torch.backends.cuda.matmul, "allow_fp16_reduced_precision_reduction", True),
    (torch.backends.cuda.matmul, "allow_bf16_reduced_precision_reduction", True),
    (torch.backends.cuda.matmul, "allow_fp16_accumulation", False),
)


@contextmanager
def usual_state() -> Iterator[None]:
    """Context with PyTorch's global state as in a new process; restores the caller's state. May be nested.

    Raises:
        DeviceError: a mode of PyTorch is on that only its own ``with`` block can end, or global hooks are set.
    """
    with ExitStack() as stack:
        device = torch.get_default_device()
        if _get_current_function_mode_stack():
            torch.set_default_device(None)  # ends the mode of a default device, but not ``with torch.device(...)``
            if torch.get_default_device() != device:
                stack.callback(torch.set_default_device, device)
        if modes := [*_get_current_function_mode_stack(), *_get_current_dispatch_mode_stack()]:
            raise DeviceError(
                f"PyTorch is in a mode that changes what is computed ({type(modes[-1]).__name__}), as in "
                "'with torch.device(...)'; call tomebench outside of it"
            )
        if any(_module._global_forward_hooks) or any(_module._global_forward_pre_hooks):
            raise DeviceError("PyTorch has hooks on the passes of all modules; remove them, or start a new process")
        if (saving := getattr(torch._C._autograd, "_top_saved_tensors_default_hooks", None)) and saving(True):
            raise DeviceError("PyTorch has hooks on what is saved for backward passes; call tomebench outside of them")
        stack.callback(torch.set_default_dtype, torch.get_default_dtype())
        torch.set_default_dtype(torch.float32)
        if torch.is_inference_mode_enabled():
            stack.enter_context(torch.inference_mode(False))
        if not torch.is_grad_enabled():
            stack.enter_context(torch.enable_grad())
        for kind in ("cpu", "cuda"):
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        for ask, choose, usual in _SWITCHES:
            if (found := ask()) != usual:
                stack.callback(choose, found)
                choose(usual)
        for holder, name, usual in _FLAGS:
            if (found := getattr(holder, name)) != usual:
                stack.callback(setattr, holder, name, found)
                setattr(holder, name, usual)
        yield


def in_usual_state(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Decorator: call the function within :func:`usual_state`."""

    @wraps(function)
    def run(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        with usual_state():
            return function(*args, **kwargs)

    return run
