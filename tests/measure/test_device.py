"""Devices and dtypes that are refused, with a GPU that the test brings: what it computes must be what is asked."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
import torch

from tomebench.errors import DeviceError
from tomebench.measure import testbed
from tomebench.measure.cuda_graph import GraphedForward
from tomebench.measure.device import OVERRIDES, device_name, lost, resolve_device
from tomebench.measure.memory import device_bytes, driver_allocations, peak_bytes
from tomebench.runs.testbed import fingerprint, one_line


class Gpus:
    """Two GPUs: the first computes bf16, the second emulates it, as older ones do; both round to TF32."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.current, self.broken, self.log = 0, False, list[str]()
        for name in OVERRIDES:
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
        for name in ("device", "is_bf16_supported", "synchronize", "empty_cache", "mem_get_info", "memory_stats"):
            monkeypatch.setattr(torch.cuda, name, getattr(self, name))

    @contextlib.contextmanager
    def device(self, device: torch.device) -> Iterator[None]:
        before, self.current = self.current, device.index or 0
        yield
        self.current = before

    def is_bf16_supported(self, including_emulation: bool = True) -> bool:
        return self.current == 0 or including_emulation

    def synchronize(self, device: torch.device) -> None:
        self.log.append("synchronize")
        if self.broken:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")

    def empty_cache(self) -> None:
        self.log.append("empty")

    def mem_get_info(self, device: torch.device) -> tuple[int, int]:
        self.log.append("ask")
        return 30, 80

    def memory_stats(self, device: torch.device) -> dict[str, int]:
        return {"num_device_alloc": 5, "num_alloc_retries": 2}


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> Gpus:
    return Gpus(monkeypatch)


CUDA = torch.device("cuda")


def test_emulated_bf16_is_refused_on_the_device_that_was_asked_for(gpus: Gpus) -> None:
    assert resolve_device("cuda", "bf16") == CUDA
    assert resolve_device("cuda:0", "bf16") == torch.device("cuda:0")
    with pytest.raises(DeviceError, match=r"cuda:1 has no bf16; use --dtype fp16"):
        resolve_device("cuda:1", "bf16")
    assert resolve_device("cuda:1", "fp16") == torch.device("cuda:1")


@pytest.mark.parametrize(
    ("variable", "value", "dtypes"),
    [
        ("NVIDIA_TF32_OVERRIDE", "1", {"fp32"}),  # fp32 would be TF32
        ("NVIDIA_TF32_OVERRIDE", "0", {"tf32"}),  # TF32 would be fp32
        ("CUDA_LAUNCH_BLOCKING", "1", {"fp32", "tf32", "bf16", "fp16"}),
        ("PYTORCH_NO_CUDA_MEMORY_CACHING", "1", {"fp32", "tf32", "bf16", "fp16"}),
        ("CUDA_LAUNCH_BLOCKING", "0", set()),
        ("CUBLAS_WORKSPACE_CONFIG", ":4096:8", set()),
    ],
)
def test_what_the_environment_turns_into_something_else_is_refused(
    gpus: Gpus, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, dtypes: set[str]
) -> None:
    monkeypatch.setenv(variable, value)
    for dtype in ("fp32", "tf32", "bf16", "fp16"):
        resolve_device("cpu", "fp32")
        if dtype not in dtypes:
            resolve_device("cuda", dtype)
            continue
        with pytest.raises(DeviceError, match=f"{variable}={value} in the environment .*unset it"):
            resolve_device("cuda", dtype)


def test_what_it_only_changes_a_little_is_in_the_testbed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    monkeypatch.delenv("PYTORCH_ALLOC_CONF", raising=False)
    assert (
        testbed._set_variables(["CUBLAS_WORKSPACE_CONFIG", "PYTORCH_ALLOC_CONF"]) == "CUBLAS_WORKSPACE_CONFIG=:4096:8"
    )
    assert testbed._set_variables(["PYTORCH_ALLOC_CONF"]) == "none"
    described = testbed.describe(torch.device("cpu"), threads=1)
    changed = {**described, "overrides": "CUBLAS_WORKSPACE_CONFIG=:4096:8"}
    assert one_line(changed).endswith(", CUBLAS_WORKSPACE_CONFIG=:4096:8")
    assert one_line({**described, "overrides": "none"}) == one_line(described)
    assert fingerprint(changed) != fingerprint(described)


@pytest.mark.parametrize(
    ("device", "name"), [("cpu", "cpu"), ("cuda", "cuda"), ("cuda:0", "cuda"), ("cuda:1", "cuda:1")]
)
def test_a_device_has_one_name(device: str, name: str) -> None:
    assert device_name(torch.device(device)) == name


def test_a_gpu_is_lost_when_it_only_repeats_its_error(gpus: Gpus) -> None:
    assert not lost(CUDA)
    gpus.broken = True
    assert lost(CUDA)
    assert not lost(torch.device("cpu"))


def test_memory_of_the_device_is_what_is_taken_when_a_step_has_run(gpus: Gpus) -> None:
    assert device_bytes(lambda: gpus.log.append("step"), CUDA) == 50
    assert gpus.log == ["synchronize", "empty", "step", "synchronize", "ask"]
    assert device_bytes(lambda: None, torch.device("cpu")) is None
    assert driver_allocations(CUDA) == 7
    assert driver_allocations(torch.device("cpu")) == 0


def test_workspaces_of_the_first_pass_count_as_part_of_the_peak(gpus: Gpus, monkeypatch: pytest.MonkeyPatch) -> None:
    """cuBLAS keeps what it allocated in the first pass, which would be taken for something that was there before."""
    workspace, allocated, peak = 0, 100, 100

    def step() -> None:
        nonlocal workspace, allocated, peak
        allocated += 30 - workspace
        workspace = 30
        peak = max(peak, allocated + 50)  # what a pass takes on top, and gives back

    def clear() -> None:
        nonlocal workspace, allocated
        allocated -= workspace
        workspace = 0

    def reset(device: torch.device) -> None:
        nonlocal peak
        peak = allocated

    monkeypatch.setattr(torch._C, "_cuda_clearCublasWorkspaces", clear, raising=False)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", reset)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: allocated)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: peak)
    assert peak_bytes(step, CUDA, params_bytes=7) == 7 + 30 + 50
    assert peak_bytes(step, CUDA, params_bytes=7) == 7 + 30 + 50  # and so for the next cell


class FakeCapture:
    """Stands in for what a capture asks of torch.cuda."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.modes = list[str | None]()
        stream = type("Stream", (), {"wait_stream": lambda self, other: None})()
        monkeypatch.setattr(torch.cuda, "device", lambda device: contextlib.nullcontext())
        monkeypatch.setattr(torch.cuda, "Stream", lambda: stream)
        monkeypatch.setattr(torch.cuda, "current_stream", lambda: stream)
        monkeypatch.setattr(torch.cuda, "set_stream", lambda stream: None)
        monkeypatch.setattr(torch.cuda, "stream", lambda stream: contextlib.nullcontext())
        monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: type("Graph", (), {"replay": lambda self: None})())
        monkeypatch.setattr(torch.cuda, "graph", self.graph)

    @contextlib.contextmanager
    def graph(self, graph: object, pool: object, capture_error_mode: str | None = None) -> Iterator[None]:
        self.modes.append(capture_error_mode)
        yield


def test_a_capture_does_not_mind_what_other_threads_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a loader that pins memory while the first pass over the images captures."""
    fake = FakeCapture(monkeypatch)
    graphed = GraphedForward(lambda images: images + 1, pool=None)
    assert torch.equal(graphed(torch.zeros(2)), torch.ones(2))
    graphed(torch.zeros(2))
    assert fake.modes == ["thread_local"]
