"""Failed passes: which cell failed, whether it ran out of memory, and the exception that ends a command for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from tomebench.errors import DeviceError, DeviceLostError
from tomebench.measure.compilation import CompilationError, RecompileLimitError
from tomebench.measure.probe import is_oom
from tomebench.schema import Status
from tomebench.sweeps.config import SweepConfig


class CellFailed(Exception):
    """A pass of a cell failed: out of memory (status oom), or for any other reason (failed)."""

    def __init__(self, key: str, status: Status, message: str) -> None:
        super().__init__(message)
        self.key, self.status = key, status


def guarded(key: str, run: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Wrap a forward pass so that its errors name the cell.

    Raises:
        CellFailed: out of memory (oom), or any other RuntimeError (failed).
    """

    def checked(images: Tensor) -> Tensor:
        with blamed(key, len(images)):
            return run(images)

    return checked


@contextmanager
def blamed(key: str, batch_size: int) -> Iterator[None]:
    """Context that attributes errors to a cell: those of a pass, or of waiting for it, where CUDA errors surface.

    Raises:
        CellFailed: out of memory (oom), or any other RuntimeError (failed).
    """
    try:
        yield
        return
    except (RuntimeError, MemoryError, *CompilationError) as error:
        if isinstance(error, RecompileLimitError):
            raise CellFailed(key, "failed", "compiled more often than Dynamo's recompile limit allows") from error
        if not is_oom(error):
            raise CellFailed(key, "failed", " ".join(str(error).split())[:200]) from error
    # Raised outside the handler, where the traceback no longer holds the tensors of the failed pass.
    raise CellFailed(key, "oom", f"out of memory at batch size {batch_size}")


def lost_with(failure: CellFailed, who: str, device: torch.device) -> DeviceLostError:
    """The error that ends a command whose GPU was lost in a pass: see :func:`tomebench.measure.device.lost`."""
    why = str(failure)[:120]
    return DeviceLostError(f"{device} is of no use after {who} ({why}); what was measured is kept: run the same again")


def ending(failure: CellFailed, who: str, config: SweepConfig) -> Exception:
    """The error that ends a command which cannot go on without the cell that failed.

    Args:
        failure: of the cell.
        who: name of the cell in the message.
        config: of the command.

    Returns:
        A DeviceError with advice, where the user can act; else the exception that the pass raised, which is a bug.
    """
    if isinstance(failure.__cause__, CompilationError):
        what = str(failure).partition(": ")[2] or str(failure)
        return DeviceError(f"--compile: the model cannot be compiled here ({what[:160]}); leave --compile out")
    if failure.status == "oom":
        return DeviceError(f"{who} ran {failure}; use a smaller --batch-size")
    # PyTorch's message where a pinned attention kernel does not support a shape.
    if "No available kernel" in str(failure):
        return DeviceError(f"attention {config.attention} has no kernel for this model here; use --attention auto")
    cause = failure.__cause__
    return cause if isinstance(cause, Exception) else failure


@contextmanager
def no_room_is_an_input_error() -> Iterator[None]:
    """Context that turns running out of memory outside a cell's pass, as in loading the model, into a DeviceError."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_oom(error):
            raise
        raise DeviceError("the model and its images do not fit in memory; use a smaller --batch-size") from error
