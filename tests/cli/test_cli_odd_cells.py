"""What a cell of a sweep may do through the command line: run out of memory, fail, answer nonsense, take no time."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from even_clock import EvenClock
from fault_runs import DIGITS, EVERY_PHASE, SWEEP, TickingClock, fast, table
from safetensors.torch import save_file

from tomebench.models.create import load_model
from tomebench.reduction.vit import ReducedViT
from tomebench.sweeps import batch_size, pipeline, timing

pytestmark = pytest.mark.usefixtures("quick_sweeps")


def break_cell(patch: pytest.MonkeyPatch, r: int, effect: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Let every pass of the cell with that r end in ``effect(logits)``."""
    real = ReducedViT.forward

    def broken(self: ReducedViT, images: torch.Tensor) -> torch.Tensor:
        logits = real(self, images)
        return effect(logits) if self.r_layers[0] == r else logits

    patch.setattr(ReducedViT, "forward", broken)


def out_of_memory(*_: object) -> torch.Tensor:
    raise torch.OutOfMemoryError("tried to allocate too much")


def test_break_cell_breaks_only_its_cell(program, undisturbed, monkeypatch):
    break_cell(monkeypatch, 4, out_of_memory)
    assert program(*DIGITS).code == 0
    assert table(Path("run")) == table(undisturbed)


# --- memory


def test_a_batch_that_does_not_fit_is_halved_until_it_does(program, monkeypatch):
    real = batch_size.without_gradients

    def small(model: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[torch.Tensor], torch.Tensor]:
        run = real(model)
        return lambda images: out_of_memory() if len(images) > 4 else run(images)

    monkeypatch.setattr(batch_size, "without_gradients", small)
    result = program(*DIGITS, "--batch-size", "auto")
    assert (result.code, result.err) == (0, "")
    assert table(Path("run"), "batch_size", "n_seen") == [{"batch_size": 4, "n_seen": 6}] * 2


def test_a_run_whose_batch_does_not_fit_keeps_no_other_from_being_measured(program, monkeypatch):
    real = ReducedViT.forward
    most = [4]

    def small(self: ReducedViT, images: torch.Tensor) -> torch.Tensor:
        return out_of_memory() if len(images) > most[0] else real(self, images)

    monkeypatch.setattr(ReducedViT, "forward", small)
    asked = (*SWEEP, "--img-size", "28", "--batch-size", "2,8,4", "--out", "runs")
    result = program(*asked)
    assert result.code == 2
    assert "run b8: r = 0 ran out of memory at batch size 8; use a smaller --batch-size" in result.error
    assert "runs/b8 holds no results yet" in result.out
    assert {each["batch_size"] for each in table(Path("runs"), "batch_size")} == {2, 4}
    most[0] = 2
    result = program(*asked, "--out", "none", "--batch-size", "4,8")
    assert (result.code, result.out) == (2, "")
    assert "run b4: " in result.error
    most[0] = 8
    assert program(*asked).code == 0
    assert {each["batch_size"] for each in table(Path("runs"), "batch_size")} == {2, 4, 8}


def test_without_room_for_one_image_there_is_no_batch_size(program, monkeypatch):
    tried = []

    def no_room(model: object) -> Callable[[torch.Tensor], torch.Tensor]:
        def run(images: torch.Tensor) -> torch.Tensor:
            tried.append(len(images))
            return out_of_memory()

        return run

    monkeypatch.setattr(batch_size, "without_gradients", no_room)
    result = program(*DIGITS, "--batch-size", "auto")
    assert (result.code, result.out) == (2, "")
    assert "out of memory with a single image" in result.error
    assert tried == [2**k for k in reversed(range(len(tried)))]
    assert len(tried) > 4


def test_another_error_in_the_probe_is_not_tried_again(program, monkeypatch):
    tried = []

    def broken(model: object) -> Callable[[torch.Tensor], torch.Tensor]:
        def run(images: torch.Tensor) -> torch.Tensor:
            tried.append(len(images))
            raise RuntimeError("shape\nmismatch")

        return run

    monkeypatch.setattr(batch_size, "without_gradients", broken)
    result = program(*DIGITS, "--batch-size", "auto")
    assert (result.code, len(tried)) == (1, 1)
    assert result.error.startswith("tomebench: this is a bug: RuntimeError: shape mismatch")


@pytest.mark.parametrize(
    ("effect", "status"),
    [(out_of_memory, "oom"), (lambda logits: logits * math.nan, "nonfinite"), (lambda logits: logits / 0, "nonfinite")],
    ids=["memory", "NaN", "infinity"],
)
def test_a_cell_fails_alone_and_the_sweep_ends_with_exit_5(program, undisturbed, monkeypatch, effect, status):
    break_cell(monkeypatch, 8, effect)
    result = program(*DIGITS)
    assert (result.code, result.err) == (5, "")
    first, second = table(Path("run"))
    assert first == table(undisturbed)[0]  # nothing else was changed, the batch size included
    assert (second["status"], second["top1"], second["top1_correct"]) == (status, None, None)
    assert f"! {status}" in result.out


def test_a_failure_is_not_retried_in_the_same_run(program, monkeypatch):
    calls = []

    def fail(logits: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        raise RuntimeError("no kernel")

    break_cell(monkeypatch, 8, fail)
    assert program(*DIGITS).code == 5
    assert [row["status"] for row in table(Path("run"))] == ["ok", "failed"]
    assert len(calls) == 1


# --- logits


def test_constant_logits_are_ties_and_are_counted(program):
    state = dict(load_model("digits_vit").model.state_dict())
    save_file({name: t * 0 if "head" in name else t for name, t in state.items()}, "same.safetensors")
    result = program(*DIGITS, "--checkpoint", "same.safetensors")
    assert (result.code, result.err) == (0, "")
    for row in table(Path("run")):
        assert row["ties"] == row["n_seen"] == 6
        assert row["delta_top1"] == 0


# --- clocks


class Broken(EvenClock):
    """Every burst takes ``reading`` seconds, whatever is done in it."""

    min_burst = 0.1
    backlog = None

    def __init__(self, reading: float) -> None:
        super().__init__()
        self.reading = reading

    def burst(self, step: Callable[[], object], steps: int) -> float:
        return self.reading


@pytest.mark.parametrize("reading", [0.0, -1.0, math.nan, math.inf, 0.05])
def test_a_clock_that_cannot_be_right_is_one_line(program, monkeypatch, reading):
    monkeypatch.setattr(timing, "clock_for", lambda device: Broken(reading))
    result = program(*DIGITS)
    assert (result.code, result.out) == (2, "")
    assert f"took {reading} s" in result.error
    assert "clock" in result.error


class Frozen(EvenClock):
    """A clock whose moments are all the same."""

    def now(self) -> float:
        return 0.0


def test_a_clock_that_stands_still_between_bursts_does_no_harm(program, undisturbed, monkeypatch):
    monkeypatch.setattr(timing, "clock_for", lambda device: Frozen())
    assert program(*DIGITS).code == 0
    assert table(Path("run")) == table(undisturbed)


class Backwards(TickingClock):
    """A clock that goes backwards."""

    def now(self) -> float:
        return -super().now()


@pytest.mark.parametrize("clock", [Frozen(), Backwards()], ids=["still", "backwards"])
def test_a_clock_that_stands_still_for_the_whole_pipeline_is_one_line(program, monkeypatch, clock):
    monkeypatch.setattr(pipeline, "clock_for", lambda device: clock)
    result = program(*EVERY_PHASE)
    assert result.code == 2
    assert "this machine's clock cannot be right" in result.error


# --- rounds


@pytest.mark.parametrize("rounds", [1, 2, 3, 4, 5])
def test_few_rounds_have_a_median_and_no_interval(program, monkeypatch, rounds):
    fast(monkeypatch, rounds)
    result = program(*SWEEP)
    assert (result.code, result.err) == (0, "")
    names = ("rounds", "img_per_s", "speedup_vs_r0")
    assert [row["rounds"] for row in table(Path("run"), *names)] == [rounds] * 2
    assert all(value is not None for row in table(Path("run"), *names) for value in row.values())
    ends = ("img_per_s_lo", "img_per_s_hi", "speedup_vs_r0_lo", "speedup_vs_r0_hi")
    assert set(table(Path("run"), *ends)[1].values()) == {None}
    assert f"(median of {rounds} round" in result.out
