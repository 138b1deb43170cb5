"""Whatever state a caller has put PyTorch in, rows are computed as in a new process, and the state is given back."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import tomebench
from tomebench.ambient import usual_state
from tomebench.errors import DeviceError
from tomebench.measure.device import arithmetic
from tomebench.models.create import load_model
from tomebench.models.preprocess import Preprocessing
from tomebench.runs.store import Store


def setting(choose: Callable[[Any], object], value: object, usual: object) -> Callable[[], Any]:
    @contextmanager
    def on() -> Iterator[None]:
        choose(value)
        try:
            yield
        finally:
            choose(usual)

    return on


STATES: dict[str, Callable[[], Any]] = {
    "default dtype": setting(torch.set_default_dtype, torch.bfloat16, torch.float32),
    "default device": setting(torch.set_default_device, "meta", None),
    "inference mode": torch.inference_mode,
    "no gradients": torch.no_grad,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "precision": setting(torch.set_float32_matmul_precision, "medium", "highest"),
    "deterministic": setting(torch.use_deterministic_algorithms, True, False),
    "deterministic where it can be": setting(torch.set_deterministic_debug_mode, "warn", "default"),
    "anomalies looked for": setting(lambda on: torch.set_anomaly_enabled(on, not on), True, False),
    "no oneDNN": setting(lambda on: setattr(torch.backends.mkldnn, "enabled", on), False, True),
    "one way of attention": setting(torch.backends.cuda.enable_flash_sdp, False, True),
}


def state() -> tuple[object, ...]:
    return (
        torch.get_default_dtype(), torch.get_default_device(), torch.is_inference_mode_enabled(),
        torch.is_grad_enabled(), torch.is_autocast_enabled("cpu"), torch.get_float32_matmul_precision(),
        torch.get_deterministic_debug_mode(), torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled(),
        torch.backends.mkldnn.enabled,
        torch.backends.cuda.flash_sdp_enabled(),
    )  # fmt: skip


@pytest.mark.parametrize("name", STATES)
def test_it_is_as_in_a_new_process_and_given_back(name: str) -> None:
    usual = state()
    with STATES[name]():
        theirs = state()
        assert theirs != usual, "the state changes nothing"
        with usual_state(), arithmetic("fp32", None):
            assert state() == usual
            with usual_state():
                assert state() == usual
        assert state() == theirs
        with pytest.raises(ZeroDivisionError), usual_state():
            raise ZeroDivisionError
        assert state() == theirs
    assert state() == usual


@pytest.mark.parametrize("name", STATES)
def test_weights_pixels_and_logits_are_those_of_a_new_process(name: str) -> None:
    model = timm.create_model("test_vit", img_size=64).eval()
    pixels = torch.full((1, 3, 2, 2), 200, dtype=torch.uint8)
    preprocessing = Preprocessing((3, 64, 64), 0.9, "bicubic", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    plain, normalised, expected = load_model("test_vit", seed=3), preprocessing.normalise(pixels), logits(model)
    with STATES[name]():
        state = load_model("test_vit", seed=3).model.state_dict()
        assert all(value.dtype == torch.float32 for value in state.values())
        assert all(torch.equal(value, state[key]) for key, value in plain.model.state_dict().items())
        if name != "default device":
            assert torch.equal(preprocessing.normalise(pixels), normalised)
        with usual_state(), arithmetic("fp32", None):
            assert torch.equal(logits(model), expected)


def test_rows_are_those_of_a_new_process(tmp_path: Path) -> None:
    plainly = evaluated(tmp_path / "plain")
    with ExitStack() as states:
        for state in STATES.values():
            states.enter_context(state())
        assert evaluated(tmp_path / "theirs") == plainly


def evaluated(out: Path) -> list[tuple[object, ...]]:
    settings = {"data": "digits", "limit": 20, "budget": "none", "device": "cpu", "batch_size": 10, "workers": 0}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".* would not show a loss to be within")
        rows = tomebench.sweep("digits_vit", "0,8", out=out, **settings)
    with Store.read(out) as store:
        answers = [found.top1.tolist() for found in store.predictions().values()]
        return [(row.dtype, row.top1_correct, row.agreed) for row in rows] + [(answers, store.get("made"))]


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.inference_mode():
        images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
        found: torch.Tensor = model(images)
        return found


class Doubles(TorchDispatchMode):
    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("mode", [lambda: torch.device("meta"), Doubles, torch.autograd.graph.save_on_cpu])
def test_a_mode_that_cannot_be_set_aside_is_refused(mode: Callable[[], Any]) -> None:
    with mode(), pytest.raises(DeviceError, match="call tomebench outside of"):
        load_model("test_vit")
    load_model("test_vit")


def test_a_refusal_gives_the_default_device_back() -> None:
    torch.set_default_device("meta")
    try:
        with Doubles(), pytest.raises(DeviceError):
            load_model("test_vit")
        assert torch.get_default_device() == torch.device("meta")
    finally:
        torch.set_default_device(None)


def test_the_younger_interface_of_precisions_is_set_aside_and_given_back() -> None:
    holder: Any = torch.backends.mkldnn
    before = holder.matmul.fp32_precision
    holder.matmul.fp32_precision = "bf16"
    try:
        with arithmetic("fp32", None):
            assert (holder.matmul.fp32_precision, holder.conv.fp32_precision) == ("ieee", "ieee")
            assert torch.get_float32_matmul_precision() == "highest"
        assert holder.matmul.fp32_precision == "bf16"
    finally:
        holder.matmul.fp32_precision = before
