"""How long it will take is said before it starts, and what is proposed instead is shorter and would be accepted."""

from __future__ import annotations

import shlex

import pytest
import torch

from tomebench.measure.probe import auto_batch_cap
from tomebench.sweeps import estimate
from tomebench.sweeps.cells import resolve_sweep
from tomebench.sweeps.config import SweepConfig
from tomebench.sweeps.config_files import load_config
from tomebench.words import duration


def proposed(line: str) -> SweepConfig:
    """The configuration of a command that only has flags with values."""
    words = shlex.split(line)
    assert words[:2] == ["tomebench", "sweep"]
    flags = {
        flag.removeprefix("--").replace("-", "_"): value for flag, value in zip(words[2::2], words[3::2], strict=True)
    }
    return load_config([], {name: int(value) if name == "limit" else value for name, value in flags.items()})


@pytest.mark.parametrize("seconds", [30.0, 3000.0])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_only_a_long_sweep_on_a_cpu_is_told_what_is_quicker(monkeypatch, seconds, device):
    monkeypatch.setattr(estimate, "estimate_seconds", lambda *_: seconds)
    config = load_config([], {"model": "test_vit", "r": "0..24", "budget": "quick", "device": "cpu"})
    planned = resolve_sweep(config)
    text = estimate.in_words(config, planned, 8, 0, torch.device(device))
    said = f"about {'30 s to 3 min' if seconds < 600 else '50 min to 52 min'} (25 cells, batch size 8, budget quick)"
    assert text.startswith(said)
    several = estimate.in_words(config.model_copy(update={"processes": 3}), planned, 8, 0, torch.device(device))
    assert "(25 cells, batch size 8, budget quick, 3 processes)" in several
    assert ("for a first look:" in text) == (device == "cpu" and seconds > 600)


def test_what_is_proposed_is_less_of_the_same():
    config = load_config(
        [], {"model": "test_vit", "r": "0..24", "budget": "standard", "data": "digits", "dtype": "bf16"}
    )
    line = estimate.quicker_command(config, images=50_000)
    assert line == ("tomebench sweep --model test_vit --r 0,8,16,24 --data digits --limit 500 --dtype bf16")
    less = proposed(line)
    assert {0, *less.r_values} < {0, *config.r_values}
    assert estimate.quicker_command(less, images=500) is None
    assert estimate.quicker_command(config.model_copy(update={"model": "python:ViT"}), images=50_000) is None


def test_an_estimate_grows_with_the_work(monkeypatch):
    monkeypatch.setattr(estimate, "macs_per_second", lambda *_: 1e10)  # a busy machine's differs from probe to probe

    def seconds(**settings: object) -> float:
        config = load_config([], {"model": "test_vit", "device": "cpu", "r": "0..8", **settings})
        return estimate.estimate_seconds(config, resolve_sweep(config), 8, 0, torch.device("cpu"))

    assert seconds(budget="publish") > 1.5 * seconds(budget="quick")
    assert seconds(processes=3) > 2 * seconds()


@pytest.mark.parametrize(
    ("device", "gmacs", "cap"),
    [("cpu", 17.6, 2), ("cpu", 4.6, 8), ("cpu", 1.26, 32), ("cpu", 0.1, 32), ("cpu", 200.0, 2), ("cuda", 17.6, 256)],
)
def test_auto_takes_batches_that_a_cpu_runs_in_about_a_second(device, gmacs, cap):
    assert auto_batch_cap(device, gmacs) == cap


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "1 s"), (89, "89 s"), (91, "2 min"), (3601, "61 min"), (5400, "1.5 h"), (9000, "2.5 h")]
)
def test_durations_are_never_less_than_they_are(seconds, text):
    assert duration(seconds) == text
