"""Automatic batch size with a machine that runs out of memory on command."""

from __future__ import annotations

import weakref
from collections.abc import Callable

import pytest
import torch

from tomebench.errors import DeviceError
from tomebench.measure.probe import auto_batch_size, is_oom


def fits_up_to(limit: int, tried: list[int]) -> Callable[[int], Callable[[], object]]:
    """A machine with room for ``limit`` images."""

    def make_step(size: int) -> Callable[[], object]:
        def step() -> None:
            tried.append(size)
            if size > limit:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

        return step

    return make_step


@pytest.mark.parametrize(("limit", "cap"), [(1, 1), (300, 256), (256, 256), (255, 256), (5, 32), (100, 33), (7, 7)])
def test_the_largest_power_of_two_that_fits(limit: int, cap: int) -> None:
    tried: list[int] = []
    size = auto_batch_size(fits_up_to(limit, tried), cap)
    assert size == 1 << (min(limit, cap).bit_length() - 1)
    assert tried[-1] == size
    assert tried == [size << k for k in reversed(range(len(tried)))]


def test_not_even_one_image() -> None:
    tried: list[int] = []
    with pytest.raises(DeviceError, match="out of memory with a single image"):
        auto_batch_size(fits_up_to(0, tried), 8)
    assert tried == [8, 4, 2, 1]


def test_memory_may_run_out_while_the_input_is_made() -> None:
    def make_step(size: int) -> Callable[[], object]:
        if size > 2:
            raise MemoryError
        return lambda: None

    assert auto_batch_size(make_step, 16) == 2


def test_another_error_is_not_tried_again() -> None:
    tried: list[int] = []

    def make_step(size: int) -> Callable[[], object]:
        tried.append(size)
        raise RuntimeError("shape mismatch")

    with pytest.raises(RuntimeError, match="shape mismatch"):
        auto_batch_size(make_step, 16)
    assert tried == [16]


def test_a_failed_attempt_is_gone_before_the_next_one() -> None:
    alive: list[weakref.ref[torch.Tensor]] = []

    def make_step(size: int) -> Callable[[], object]:
        assert all(tensor() is None for tensor in alive)
        images = torch.zeros(size, 3)
        alive.append(weakref.ref(images))

        def step() -> None:
            activations = images + 1
            alive.append(weakref.ref(activations))
            if size > 2:
                raise torch.OutOfMemoryError("CUDA out of memory")

        return step

    assert auto_batch_size(make_step, 16) == 2
    assert len(alive) == 8


def test_a_cap_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        auto_batch_size(fits_up_to(8, []), 0)


def test_running_out_of_host_memory_is_recognised() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 50)
    assert is_oom(caught.value)
    assert is_oom(torch.OutOfMemoryError("CUDA out of memory"))
    assert is_oom(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"))
    assert is_oom(MemoryError())
    assert not is_oom(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not is_oom(ValueError("out of memory"))
