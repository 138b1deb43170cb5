"""Peak memory against sums that can be done by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tomebench.measure.memory import peak_bytes

CPU = torch.device("cpu")
MIB = 2**20


@pytest.fixture
def operands() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(256, 512), torch.randn(512, 1024)  # their product takes 1 MiB


def test_a_product_takes_its_output_and_nothing_else(operands: tuple[torch.Tensor, torch.Tensor]) -> None:
    x, w = operands
    assert peak_bytes(lambda: x @ w, CPU, params_bytes=0) == MIB
    assert peak_bytes(lambda: x @ w, CPU, params_bytes=12345) == MIB + 12345


def test_only_what_lives_at_the_same_time_adds_up(operands: tuple[torch.Tensor, torch.Tensor]) -> None:
    x, w = operands

    def two_alive() -> tuple[torch.Tensor, torch.Tensor]:
        a = x @ w
        b = a.neg()
        return a, b

    def one_after_the_other() -> None:
        for _ in range(5):
            x @ w

    def three_in_the_middle() -> torch.Tensor:
        a = x @ w
        b = a.neg()
        c = torch.cat([a, b])  # 2 MiB beside the two
        del a, b
        return c[:1].neg()

    assert peak_bytes(two_alive, CPU, 0) == 2 * MIB
    assert peak_bytes(one_after_the_other, CPU, 0) == MIB
    assert peak_bytes(three_in_the_middle, CPU, 0) == 4 * MIB


def test_an_mlp_holds_two_activations_at_once_without_gradients() -> None:
    layers = nn.Sequential(*(nn.Linear(512, 512) for _ in range(6)))
    x = torch.randn(1024, 512)  # 2 MiB
    with torch.inference_mode():
        assert peak_bytes(lambda: layers(x), CPU, 0) == 4 * MIB


def test_the_step_runs_twice_and_its_errors_come_through() -> None:
    calls: list[int] = []
    peak_bytes(lambda: calls.append(1), CPU, 0)
    assert len(calls) == 2

    def fails() -> None:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        peak_bytes(fails, CPU, 0)


def test_a_device_that_cannot_be_watched_gives_none() -> None:
    assert peak_bytes(lambda: torch.empty(4, device="meta"), torch.device("meta"), 0) is None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_counts_what_the_step_allocates() -> None:
    device = torch.device("cuda")
    x = torch.randn(1024, 1024, device=device)
    assert peak_bytes(lambda: (x + 1) * 2, device, params_bytes=7) == 8 * MIB + 7
