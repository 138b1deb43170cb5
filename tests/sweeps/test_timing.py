"""What a sweep times beside its rounds: single passes, the whole pipeline; and whether it timed the right thing."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import pytest
import torch
from hurry import ShortClock, hurry
from torch import Tensor

from tomebench.errors import ConfigError, DeviceLostError, Interrupted
from tomebench.measure.clock import CpuClock
from tomebench.measure.machine import GpuReading, NoGauges
from tomebench.reduction.vit import ReducedViT
from tomebench.runs import speed_columns
from tomebench.runs.row import Row
from tomebench.runs.rows import OUTPUT_EXCESS
from tomebench.runs.store import Store
from tomebench.sweeps import accuracy, pipeline, run, timing
from tomebench.sweeps import job as job_module
from tomebench.sweeps.config_files import load_config
from tomebench.sweeps.events import Event, Finished, Note, Phase
from tomebench.sweeps.inputs import Reading
from tomebench.sweeps.job import Job


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    hurry(monkeypatch)


def sweep(directory: Path, **settings: object) -> tuple[list[Event], list[Row]]:
    defaults = {"model": "digits_vit", "img_size": 28, "r": "0,4", "device": "cpu", "batch_size": 2}
    config = load_config([], {**defaults, "budget": "quick", "workers": 0, **settings})
    events = list(run.run_sweep(config, directory, lambda: False))
    assert isinstance(events[-1], Finished)
    return events, list(events[-1].rows)


# Latency


def test_one_image_at_a_time_gives_latencies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed_columns, "_QUANTILES", (("p50", 0.5, 1), ("p95", 0.95, 1)))
    _, rows = sweep(tmp_path / "run", batch_size=1)
    for row in rows:
        assert row.latency_p50_ms is not None
        assert row.latency_p95_ms is not None
        assert 0 < row.latency_p50_ms <= row.latency_p95_ms
    with Store.read(tmp_path / "run") as store:
        keys = [cell.key for cell, _ in store.cells()]
        bursts = [burst for round_ in store.rounds() for burst in round_.bursts]
        assert [row.passes for row in rows] == [sum(b.steps for b in bursts if b.variant == key) for key in keys]
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
        assert store.get(OUTPUT_EXCESS) == {cell.key: 0.0 for cell, _ in store.cells()}


def test_a_timed_pass_that_computes_something_else_marks_its_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(module: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        wrong = isinstance(module, ReducedViT) and module.r_layers[0] == 4
        return (lambda images: module(images).roll(1, dims=1)) if wrong else module

    monkeypatch.setattr("tomebench.sweeps.passes.compiled", broken)
    _, rows = sweep(tmp_path / "run", compile=True)
    assert ["OUTPUT_MISMATCH" in row.warnings for row in rows] == [False, True]


def test_a_comparison_that_was_interrupted_is_made_up_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "_compare_outputs", lambda job: iter(()))
    sweep(tmp_path / "run")
    with Store.read(tmp_path / "run") as store:
        assert store.get(OUTPUT_EXCESS) is None
    monkeypatch.undo()
    monkeypatch.setattr(timing, "time_round", lambda *a, **k: pytest.fail("a round was timed again"))
    hurry(monkeypatch)
    sweep(tmp_path / "run")
    with Store.read(tmp_path / "run") as store:
        assert store.get(OUTPUT_EXCESS) == {cell.key: 0.0 for cell, _ in store.cells()}


def test_the_worst_difference_of_all_sessions_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep(tmp_path / "run")
    with Store.read(tmp_path / "run") as store:
        config, key = store.config, store.cells()[1][0].key
    with Store.open(tmp_path / "run", config) as store:
        store.put(OUTPUT_EXCESS, {key: 1.7})
    hurry(monkeypatch, rounds=7)
    _, rows = sweep(tmp_path / "run")
    assert [row.rounds for row in rows] == [7, 7]
    assert ["OUTPUT_MISMATCH" in row.warnings for row in rows] == [False, True]


# The machine


class LoudGauges(NoGauges):
    """A GPU that others use too, under its power limit, on a machine that is half taken; 50 W whatever runs."""

    def __init__(self, device: torch.device) -> None:
        self.clock = CpuClock()

    def watch(self) -> AbstractContextManager[Callable[[], GpuReading]]:
        return nullcontext(lambda: GpuReading(1980, 0.9, 0.0))

    def joules(self) -> float | None:
        return 50 * self.clock.now()

    def gpu_processes(self) -> int | None:
        return 1

    def other_cpus(self) -> float | None:
        return 0.5


def test_what_the_machine_says_reaches_the_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "MachineGauges", LoudGauges)
    _, rows = sweep(tmp_path / "run")
    for row in rows:
        assert {"CPU_BUSY", "GPU_SHARED", "POWER_CAPPED"} <= set(row.warnings)
        assert row.gpu_mhz == 1980
        assert row.j_per_img is not None
        assert row.step_ms is not None
        assert row.j_per_img > 0
    with Store.read(tmp_path / "run") as store:
        assert {burst.mhz for round_ in store.rounds() for burst in round_.bursts} == {1980}
        assert {(round_.other_cpus, round_.gpu_processes) for round_ in store.rounds()} == {(0.5, 1)}


def test_energy_is_counted_over_seconds_and_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[int] = []

    class Counting(ShortClock):
        def burst(self, step: Callable[[], object], steps_: int) -> float:
            steps.append(steps_)
            return super().burst(step, steps_)

    monkeypatch.setattr(timing, "MachineGauges", LoudGauges)
    monkeypatch.setattr(timing, "ENERGY_SECONDS", 0.2)
    monkeypatch.setattr(timing, "clock_for", lambda device: Counting())
    _, rows = sweep(tmp_path / "run")
    assert rows[0].step_ms is not None
    assert sum(n > 1 for n in steps) == 2  # all others are of one step
    assert steps[-3] == math.ceil(0.2 / (rows[0].step_ms / 1e3))
    again = len(steps)
    _, rows = sweep(tmp_path / "run")
    assert len(steps) == again


def test_no_energy_where_the_device_does_not_count_it(tmp_path: Path) -> None:
    events, rows = sweep(tmp_path / "run")
    assert {row.j_per_img for row in rows} == {None}
    assert "energy" not in {event.name for event in events if isinstance(event, Phase)}


# A device that gives out


class Sticky:
    """A GPU on which a kernel of one cell goes wrong: from then on everything says so, when it is waited for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, r: int, waits: int = 0) -> None:
        self.dead, self.waits = False, waits
        forward = ReducedViT.forward

        def run(module: ReducedViT, images: Tensor) -> Tensor:
            if module.r_layers[0] == r:
                self.waits -= 1
                self.dead = self.dead or self.waits < 0
            return forward(module, images)

        monkeypatch.setattr(ReducedViT, "forward", run)
        monkeypatch.setattr(job_module, "lost", lambda device: self.dead)
        monkeypatch.setattr(timing, "clock_for", lambda device: self.clock())

    def clock(self) -> ShortClock:
        gpu = self

        class Waiting(ShortClock):
            def burst(self, step: Callable[[], object], steps: int) -> float:
                seconds = super().burst(step, steps)
                if gpu.dead:
                    raise RuntimeError("CUDA error: device-side assert triggered")
                return seconds

        return Waiting()


def test_an_error_that_surfaces_later_fails_its_cell_and_says_what_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Sticky(monkeypatch, r=4, waits=6)  # some rounds are timed before
    with pytest.raises(DeviceLostError, match=r"cpu is of no use after r=4 .*device-side assert.*run the same again"):
        sweep(tmp_path / "run", r="0,2,4")
    with Store.read(tmp_path / "run") as store:
        assert store.rounds()
    monkeypatch.undo()
    hurry(monkeypatch)
    _, rows = sweep(tmp_path / "run", r="0,2,4")  # and does not lose the next GPU to the same cell
    assert [row.status for row in rows] == ["ok", "ok", "failed"]
    assert rows[2].error is not None
    assert "device-side assert" in rows[2].error


def test_a_baseline_that_takes_the_device_along_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Sticky(monkeypatch, r=0, waits=3)
    with pytest.raises(DeviceLostError, match=r"cpu is of no use after r=0 "):
        sweep(tmp_path / "run")
    monkeypatch.undo()
    hurry(monkeypatch)
    _, rows = sweep(tmp_path / "run")  # it is tried again: without it there is nothing to go on with
    assert [row.status for row in rows] == ["ok", "ok"]


def test_a_device_that_gives_out_while_images_are_evaluated_is_not_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu = Sticky(monkeypatch, r=4)
    monkeypatch.setattr(accuracy, "lost", lambda device: gpu.dead)
    forward = ReducedViT.forward

    def fails(module: ReducedViT, images: Tensor) -> Tensor:
        logits = forward(module, images)
        if gpu.dead:
            raise RuntimeError("CUDA error: device-side assert triggered")
        return logits

    monkeypatch.setattr(ReducedViT, "forward", fails)
    with pytest.raises(DeviceLostError, match=r"after r=4 "):
        sweep(tmp_path / "run", r="0,4,8", data="digits", limit=6, budget="none")
    with Store.read(tmp_path / "run") as store:
        assert [status for status, _ in store.statuses().values() if status != "ok"] == ["failed"]


def test_an_error_that_leaves_the_device_alive_fails_one_cell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = Sticky(monkeypatch, r=4)
    monkeypatch.setattr(job_module, "lost", lambda device: setattr(gpu, "dead", False))
    _, rows = sweep(tmp_path / "run", r="0,2,4")
    assert [row.status for row in rows] == ["ok", "ok", "failed"]


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


def test_end_to_end_goes_in_another_order_each_time_and_on_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    took, left = list[str](), [4]

    def timed(job: Job, reading: Reading, key: str, lead: int, last: int) -> tuple[int, float]:
        if left[0] == 0:
            raise Interrupted("stopped")
        left[0] -= 1
        took.append(key)
        return 10 * len(took), 1.0

    monkeypatch.setattr(pipeline, "_timed", timed)
    settings = {"data": "digits", "limit": 12, "end_to_end": True, "r": "0,4,8"}
    with pytest.raises(Interrupted):
        sweep(tmp_path / "run", **settings)
    before, left[0] = len(took), 99
    _, rows = sweep(tmp_path / "run", **settings)
    # Each has had its first turn, and one a second: of a new session the first does not count once more.
    assert len(took) == before + 3 + 3 + 3 + 2
    orders = [tuple(took[start : start + 3]) for start in (0, 4, 7, 10)]
    assert {*map(frozenset, orders)} == {frozenset(took)}
    assert len({*orders}) > 1
    counting = [3, *range(7, 15)]
    sums = {key: sum(10 * (i + 1) for i in counting if took[i] == key) / 3 for key in took}
    assert sorted(row.img_per_s_end_to_end for row in rows if row.img_per_s_end_to_end) == sorted(sums.values())


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
