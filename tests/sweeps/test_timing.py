"""What a sweep times beside its rounds: single passes, the whole pipeline; and whether it timed the right thing."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hurry import hurry
from torch import Tensor

from tomebench.errors import ConfigError
from tomebench.measure.clock import CpuClock
from tomebench.measure.machine import GpuReading
from tomebench.reduction.vit import ReducedViT
from tomebench.schema import Row
from tomebench.sweeps import pipeline, run, timing
from tomebench.sweeps.config import load_config
from tomebench.sweeps.events import Event, Finished, Note
from tomebench.sweeps.rows import OUTPUT_DIFFERENCES
from tomebench.sweeps.store import Store
from tomebench.sweeps.timing import output_difference


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    hurry(monkeypatch)


def sweep(directory: Path, **settings: object) -> tuple[list[Event], list[Row]]:
    defaults = {"model": "digits_vit", "r": "0,4", "device": "cpu", "batch_size": 2, "budget": "quick", "workers": 0}
    events = list(run.run_sweep(load_config([], {**defaults, **settings}), directory, lambda: False))
    assert isinstance(events[-1], Finished)
    return events, list(events[-1].rows)


# Latency


def test_one_image_at_a_time_gives_latencies(tmp_path: Path) -> None:
    _, rows = sweep(tmp_path / "run", batch_size=1)
    for row in rows:
        assert row.latency_p50_ms is not None
        assert row.latency_p95_ms is not None
        assert 0 < row.latency_p50_ms <= row.latency_p95_ms
    with Store.read(tmp_path / "run") as store:
        for round_ in store.rounds():
            for burst in round_.bursts:
                assert len(burst.passes) == burst.steps
                assert math.isclose(sum(burst.passes), burst.seconds)


def test_batches_have_no_latency(tmp_path: Path) -> None:
    _, rows = sweep(tmp_path / "run")
    assert {row.latency_p50_ms for row in rows} == {None}


# What was timed


def test_what_was_timed_is_compared_with_the_evaluated_model(tmp_path: Path) -> None:
    _, rows = sweep(tmp_path / "run")
    assert all("OUTPUT_MISMATCH" not in row.warnings for row in rows)
    with Store.read(tmp_path / "run") as store:
        assert store.get(OUTPUT_DIFFERENCES) == {cell.key: 0.0 for cell, _ in store.cells()}


def test_a_timed_pass_that_computes_something_else_marks_its_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(module: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        wrong = isinstance(module, ReducedViT) and module.r_layers[0] == 4
        return (lambda images: module(images).roll(1, dims=1)) if wrong else module

    monkeypatch.setattr("tomebench.sweeps.forward.compiled", broken)
    _, rows = sweep(tmp_path / "run", compile=True)
    assert ["OUTPUT_MISMATCH" in row.warnings for row in rows] == [False, True]


def test_a_comparison_that_was_interrupted_is_made_up_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "_compare_outputs", lambda job: iter(()))
    sweep(tmp_path / "run")
    with Store.read(tmp_path / "run") as store:
        assert store.get(OUTPUT_DIFFERENCES) is None
    monkeypatch.undo()
    monkeypatch.setattr(timing, "time_round", lambda *a, **k: pytest.fail("a round was timed again"))
    hurry(monkeypatch)
    sweep(tmp_path / "run")
    with Store.read(tmp_path / "run") as store:
        assert store.get(OUTPUT_DIFFERENCES) == {cell.key: 0.0 for cell, _ in store.cells()}


def test_the_worst_difference_of_all_sessions_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep(tmp_path / "run")
    with Store.read(tmp_path / "run") as store:
        config, key = store.config, store.cells()[1][0].key
    with Store.open(tmp_path / "run", config) as store:
        store.put(OUTPUT_DIFFERENCES, {key: 0.7})
    hurry(monkeypatch, rounds=7)
    _, rows = sweep(tmp_path / "run")
    assert [row.rounds for row in rows] == [7, 7]
    assert ["OUTPUT_MISMATCH" in row.warnings for row in rows] == [False, True]


NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    ("timed", "evaluated", "difference"),
    [
        ([[1.0, 2.0]], [[1.0, 2.0]], 0.0),
        ([[1.0, 2.5]], [[1.0, 2.0]], 0.25),
        ([[1.0, 2.0], [9.0, 9.0], [1.0, 2.0]], [[1.0, 2.0]] * 3, 0.0),  # one image went another way
        ([[1.0, 2.0], [9.0, 9.0], [9.0, 9.0]], [[1.0, 2.0]] * 3, 4.0),
        ([[NAN, 2.0]], [[NAN, 2.0]], 0.0),
        ([[INF, 2.0]], [[INF, 2.0]], 0.0),
    ],
)
def test_output_difference_by_hand(timed: list[list[float]], evaluated: list[list[float]], difference: float) -> None:
    assert output_difference(torch.tensor(timed), torch.tensor(evaluated)) == difference


@pytest.mark.parametrize("timed", [[NAN, 2.0], [INF, 2.0], [-INF, 2.0]])
def test_what_is_not_finite_only_when_timed_is_another_output(timed: list[float]) -> None:
    found = output_difference(torch.tensor([timed]), torch.tensor([[1.0, 2.0]]))
    assert 1e30 < found < INF


# The machine


class LoudGauges:
    """A GPU that others use too, on a machine that is half taken."""

    def __init__(self, device: torch.device) -> None:
        self.joules = 0.0

    def gpu(self) -> GpuReading:
        self.joules += 0.5
        return GpuReading(1980, self.joules)

    def gpu_processes(self) -> int | None:
        return 1

    def other_cpus(self) -> float | None:
        return 0.5


def test_what_the_machine_says_reaches_the_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "MachineGauges", LoudGauges)
    _, rows = sweep(tmp_path / "run")
    for row in rows:
        assert {"CPU_BUSY", "GPU_SHARED"} <= set(row.warnings)
        assert row.j_per_img is not None
        assert 0 < row.j_per_img <= 0.25  # half a joule a burst, of at least one step of two images
    with Store.read(tmp_path / "run") as store:
        assert {burst.mhz for round_ in store.rounds() for burst in round_.bursts} == {1980}
        assert {(round_.other_cpus, round_.gpu_processes) for round_ in store.rounds()} == {(0.5, 1)}


# End to end


class PipelineClock(CpuClock):
    """Half a second passes whenever somebody looks."""

    time = 0.0

    def now(self) -> float:
        self.time += 0.5
        return self.time


def test_end_to_end_counts_the_images_after_the_first_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "clock_for", lambda device: PipelineClock())
    # 21 images in batches of 2: eleven batches, the first one is not timed, the last one holds one image.
    _, rows = sweep(tmp_path / "run", data="digits", limit=21, end_to_end=True)
    assert [row.img_per_s_end_to_end for row in rows] == [19 / 0.5] * 2


def test_end_to_end_stops_when_it_has_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "clock_for", lambda device: PipelineClock())
    monkeypatch.setattr(pipeline, "IMAGES", 5)
    _, rows = sweep(tmp_path / "run", data="digits", limit=21, end_to_end=True)
    assert [row.img_per_s_end_to_end for row in rows] == [6 / 0.5] * 2  # three whole batches


def test_end_to_end_is_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"data": "digits", "limit": 12, "end_to_end": True}
    _, first = sweep(tmp_path / "run", **settings)
    monkeypatch.setattr(pipeline, "_timed", lambda *a: pytest.fail("timed again"))
    _, again = sweep(tmp_path / "run", **settings)
    assert again == first
    assert all(row.img_per_s_end_to_end for row in first)


def test_too_few_images_for_end_to_end_are_said(tmp_path: Path) -> None:
    events, rows = sweep(tmp_path / "run", data="digits", limit=2, end_to_end=True)
    assert "end-to-end speed needs over 2 images; there are 2" in [e.text for e in events if isinstance(e, Note)]
    assert {row.img_per_s_end_to_end for row in rows} == {None}


def test_end_to_end_needs_images() -> None:
    with pytest.raises(ConfigError, match="add --data"):
        load_config([], {"model": "digits_vit", "end_to_end": True})
