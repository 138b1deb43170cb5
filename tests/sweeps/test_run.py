"""A sweep in this process, on a tiny model and generated images: what it stores, and what it does when a cell fails."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from even_clock import EvenClock
from PIL import Image

from tomebench.datasets.imagenet import wnids
from tomebench.errors import (
    ConfigError,
    DataError,
    DeviceError,
    Interrupted,
    ModelError,
    RunError,
    SpecError,
    UnsupportedModelError,
)
from tomebench.measure import speed
from tomebench.models import create
from tomebench.models.preprocess import Preprocessing
from tomebench.reduction.vit import ReducedViT
from tomebench.runs.row import Row
from tomebench.runs.store import Store
from tomebench.schema import SENTINEL, UNWRAPPED
from tomebench.sweeps import run, timing
from tomebench.sweeps.config import SweepConfig
from tomebench.sweeps.config_files import load_config
from tomebench.sweeps.events import Event, Finished, Note, Planned, Progress
from tomebench.sweeps.inputs import timing_inputs

IMAGES = 22


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A class-folder data set: 22 noisy JPEGs in 5 of the 1000 classes."""
    root = tmp_path_factory.mktemp("images")
    for i in range(IMAGES):
        folder = root / wnids()[7 * (i % 5)]
        folder.mkdir(exist_ok=True)
        pixels = np.random.default_rng(i).integers(0, 256, (24, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((60, 60)).save(folder / f"{i:02}.JPEG")
    return root


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights for test_vit, written as a checkpoint; random position embeddings tell the images apart."""
    from safetensors.torch import save_file

    from tomebench.models.create import build_model

    model = build_model("test_vit", seed=3).model
    generator = torch.Generator().manual_seed(5)
    state = {name: torch.randn(t.shape, generator=generator) * 0.3 for name, t in model.state_dict().items()}
    path = tmp_path_factory.mktemp("weights") / "test_vit.safetensors"
    save_file(state, path)
    return path


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "clock_for", lambda device: EvenClock())
    monkeypatch.setattr(speed, "WINDOW", 1)


def config(**settings: object) -> SweepConfig:
    defaults = {"model": "test_vit", "r": "0,8,16", "device": "cpu", "batch_size": 4, "budget": "quick", "workers": 0}
    return load_config([], {**defaults, **settings})


def sweep(
    directory: Path, should_stop: Callable[[], bool] = lambda: False, **settings: object
) -> tuple[list[Event], list[Row]]:
    events = list(run.run_sweep(config(**settings), directory, should_stop))
    assert isinstance(events[-1], Finished)
    return events, list(events[-1].rows)


def accuracy(row: Row) -> list[object]:
    names = ("n_seen", "top1_correct", "top5_correct", "ties", "delta_top1", "delta_top1_lo", "delta_top1_hi")
    return [getattr(row, name) for name in names]


def break_forward(monkeypatch: pytest.MonkeyPatch, r: int, effect: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Let the forward pass of the cell with that r end in ``effect(logits)``."""
    forward = ReducedViT.forward

    def broken(self: ReducedViT, images: torch.Tensor) -> torch.Tensor:
        logits = forward(self, images)
        return effect(logits) if self.r_layers[0] == r else logits

    monkeypatch.setattr(ReducedViT, "forward", broken)


def out_of_memory(logits: torch.Tensor) -> torch.Tensor:
    raise torch.OutOfMemoryError("tried to allocate too much")


def test_a_sweep_without_data_times_every_cell_and_counts_none(tmp_path):
    events, rows = sweep(tmp_path / "run")
    assert [row.r for row in rows] == [0, 8, 16]
    assert [row.tokens_out for row in rows] == [101, 53, 11]
    for row in rows:
        assert row.status == "ok"
        assert row.rounds == 6
        assert row.img_per_s == pytest.approx(4000)
        assert row.speedup_vs_unwrapped == pytest.approx(1)
        assert row.top1 is None
        assert row.n_seen is None
        assert row.peak_mem_mib > 0
        assert row.weights == "random:0"
    assert rows[0].peak_mem_mib > rows[2].peak_mem_mib  # fewer tokens, smaller activations
    assert "R_CLAMPED" in rows[2].warnings
    assert isinstance(next(e for e in events if isinstance(e, Planned)), Planned)


def test_every_round_holds_every_cell_the_sentinel_and_the_unwrapped_model_in_changing_order(tmp_path):
    sweep(tmp_path / "run")
    with Store.read(tmp_path / "run") as store:
        names = {cell.key for cell, _ in store.cells()} | {SENTINEL, UNWRAPPED}
        orders = [tuple(burst.variant for burst in round_.bursts) for round_ in store.rounds()]
    assert len(orders) == 6
    assert all(set(order) == names and len(order) == len(names) for order in orders)
    assert len(set(orders)) > 1


def test_accuracy_is_counted_on_all_images_for_all_cells(tmp_path, images, checkpoint):
    events, rows = sweep(tmp_path / "run", data=str(images), checkpoint=checkpoint)
    assert all(row.n_seen == IMAGES for row in rows)
    assert all(row.dataset.endswith("(partial: 5 of 1000 classes, 22 images)") for row in rows)
    assert rows[0].delta_top1 == 0
    assert rows[0].weights.startswith("sha256:")
    progress = [e for e in events if isinstance(e, Progress) and e.phase == "accuracy"]
    assert progress[-1].done == progress[-1].total == IMAGES


def test_the_same_command_again_measures_nothing_again(tmp_path, images, checkpoint, monkeypatch):
    _, first = sweep(tmp_path / "run", data=str(images), checkpoint=checkpoint)
    monkeypatch.setattr("tomebench.sweeps.accuracy.predict", lambda *a: pytest.fail("an image was evaluated again"))
    monkeypatch.setattr(timing, "time_round", lambda *a, **k: pytest.fail("a round was timed again"))
    _, again = sweep(tmp_path / "run", data=str(images), checkpoint=checkpoint)
    assert again == first


@pytest.mark.parametrize("stop_at", [0.3, 0.5, 0.95])  # while warming up, timing, evaluating
def test_a_stopped_sweep_goes_on_where_it_was(tmp_path, images, checkpoint, stop_at):
    settings = {"data": str(images), "checkpoint": checkpoint}
    asked = itertools.count()
    _, whole = sweep(tmp_path / "whole", lambda: next(asked) < 0, **settings)
    times_asked, asked = next(asked), itertools.count()
    with pytest.raises(Interrupted):
        sweep(tmp_path / "run", lambda: next(asked) >= int(stop_at * times_asked), **settings)
    with Store.read(tmp_path / "run") as store:
        rounds, chunks = store.rounds(), store.done_chunks()
    assert (len(rounds) > 0) == (stop_at > 0.4)
    assert (len(chunks) > 0) == (stop_at > 0.9)
    _, rows = sweep(tmp_path / "run", **settings)
    with Store.read(tmp_path / "run") as store:
        assert store.rounds()[: len(rounds)] == rounds
        assert chunks <= store.done_chunks()
    assert [accuracy(row) for row in rows] == [accuracy(row) for row in whole]


def test_a_sweep_stopped_while_it_loads_leaves_nothing(tmp_path, images, checkpoint):
    asked = itertools.count()
    with pytest.raises(Interrupted):
        sweep(tmp_path / "run", lambda: next(asked) == IMAGES // 2, data=str(images), checkpoint=checkpoint)
    assert not (tmp_path / "run").exists()


def test_predictions_do_not_depend_on_the_other_values_of_r(tmp_path, images, checkpoint):
    _, many = sweep(tmp_path / "many", data=str(images), checkpoint=checkpoint, r="0..16:4")
    _, one = sweep(tmp_path / "one", data=str(images), checkpoint=checkpoint, r="8")
    assert next(row.top1_correct for row in many if row.r == 8) == one[1].top1_correct
    with Store.read(tmp_path / "many") as a, Store.read(tmp_path / "one") as b:
        key = one and next(cell.key for cell, _ in b.cells() if cell.r == 8)
        np.testing.assert_array_equal(a.predictions()[key].top1, b.predictions()[key].top1)


def test_a_cell_out_of_memory_fails_alone(tmp_path, images, checkpoint, monkeypatch):
    break_forward(monkeypatch, 8, out_of_memory)
    events, rows = sweep(tmp_path / "run", data=str(images), checkpoint=checkpoint)
    assert [row.status for row in rows] == ["ok", "oom", "ok"]
    assert rows[1].img_per_s is None
    assert rows[1].top1 is None
    assert rows[2].top1_correct is not None
    assert rows[2].batch_size == 4
    first, few, *others = [note.text for note in events if isinstance(note, Note)]
    assert "(3 cells, 22 images, batch size 4, budget quick)" in first
    assert few.startswith(
        "22 images, each answered as at r = 0, would not show a loss to be within 1 point: that takes "
    )
    assert others == ["r=8: out of memory at batch size 4; the other cells go on"]


@pytest.mark.parametrize("good_passes", [0, 1])
def test_the_baseline_out_of_memory_ends_the_sweep(tmp_path, monkeypatch, good_passes):
    calls = itertools.count()
    break_forward(monkeypatch, 0, lambda logits: logits if next(calls) < good_passes else out_of_memory(logits))
    with pytest.raises(DeviceError, match="r = 0 ran out of memory at batch size 4; use a smaller --batch-size"):
        sweep(tmp_path / "run")


def fail(logits: torch.Tensor) -> torch.Tensor:
    raise RuntimeError("no kernel\nfor this shape")


def test_another_runtime_error_fails_its_cell_and_is_not_taken_for_lack_of_memory(tmp_path, monkeypatch):
    break_forward(monkeypatch, 8, fail)
    _, rows = sweep(tmp_path / "run")
    assert [(row.status, row.error) for row in rows][1] == ("failed", "no kernel for this shape")
    assert [row.status for row in rows] == ["ok", "failed", "ok"]


@pytest.mark.parametrize("good_passes", [0, 1])
def test_a_baseline_that_does_not_run_ends_the_sweep(tmp_path, monkeypatch, good_passes):
    calls = itertools.count()
    break_forward(monkeypatch, 0, lambda logits: logits if next(calls) < good_passes else fail(logits))
    with pytest.raises(RuntimeError, match="no kernel"):
        sweep(tmp_path / "run")


def test_a_kernel_that_the_machine_lacks_is_bad_input(tmp_path, monkeypatch):
    def lacking(logits: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("No available kernel. Aborting execution.")

    break_forward(monkeypatch, 0, lacking)
    with pytest.raises(DeviceError, match="attention auto has no kernel"):
        sweep(tmp_path / "run")


def test_images_that_do_not_fit_are_bad_input(tmp_path, monkeypatch):
    monkeypatch.setattr("tomebench.sweeps.job.timing_inputs", lambda *_: out_of_memory(torch.empty(0)))
    with pytest.raises(DeviceError, match="smaller --batch-size"):
        sweep(tmp_path / "run")


def test_a_failed_cell_is_tried_again_when_the_run_is_resumed(tmp_path, monkeypatch):
    with monkeypatch.context() as broken:
        break_forward(broken, 8, out_of_memory)
        sweep(tmp_path / "run")
    _, rows = sweep(tmp_path / "run")
    # beside r = 0, without which there is no speed-up; the other one has all it needs
    assert [(row.status, row.rounds) for row in rows] == [("ok", 12), ("ok", 6), ("ok", 6)]


def test_nan_on_one_side_of_the_baseline_is_refused_and_on_both_is_said(tmp_path, monkeypatch):
    with monkeypatch.context() as broken:
        break_forward(broken, 0, lambda logits: logits * float("nan"))
        with pytest.raises(UnsupportedModelError, match="differs from the model itself"):
            sweep(tmp_path / "one")
    with monkeypatch.context() as weights:
        build = create._create

        def with_nan(name, source, kwargs, on, seed):
            model = build(name, source, kwargs, on, seed)
            if on != "meta":
                model.head.bias.data[0] = float("nan")
            return model

        weights.setattr(create, "_create", with_nan)
        events, _ = sweep(tmp_path / "both")
    assert any(isinstance(e, Note) and "NaN or infinite logits" in e.text for e in events)


def test_timing_images_are_distinct_and_from_all_over_the_set(images):
    from tomebench.datasets.images import open_dataset

    found = open_dataset(str(images))
    model = create.build_model("test_vit").model
    rest = (Preprocessing.from_model(model, None), 4, torch.device("cpu"), torch.float32, 0)
    batches = timing_inputs(found, *rest)
    assert [tuple(batch.shape) for batch in batches] == [(4, 3, 160, 160)] * 4
    assert len({image.numpy().tobytes() for batch in batches for image in batch}) == 16
    few = timing_inputs(found, rest[0], 16, *rest[2:])
    assert [len({image.numpy().tobytes() for image in batch}) for batch in few] == [16] * 4
    noise = timing_inputs(found, rest[0], 32, *rest[2:])
    assert torch.equal(noise[0], timing_inputs(None, rest[0], 32, *rest[2:])[0])


def test_a_cell_with_nan_logits_prints_no_accuracy(tmp_path, images, checkpoint, monkeypatch):
    break_forward(monkeypatch, 8, lambda logits: logits * float("nan"))
    _, rows = sweep(tmp_path / "run", data=str(images), checkpoint=checkpoint)
    assert [row.status for row in rows] == ["ok", "nonfinite", "ok"]
    assert rows[1].top1 is None
    assert rows[2].top1 is not None


def test_a_wrapped_model_that_is_another_model_is_refused(tmp_path, monkeypatch):
    break_forward(monkeypatch, 0, lambda logits: logits.flip(1))
    with pytest.raises(UnsupportedModelError, match="differs from the model itself"):
        sweep(tmp_path / "run")


def test_bf16_runs(tmp_path):
    _, rows = sweep(tmp_path / "run", dtype="bf16", r="0,8")
    assert [row.dtype for row in rows] == ["bf16", "bf16"]
    assert all(row.status == "ok" for row in rows)


def test_auto_batch_size_is_chosen_once(tmp_path, monkeypatch):
    monkeypatch.setattr(run, "choose_batch_size", lambda *a: 2)
    _, rows = sweep(tmp_path / "run", batch_size="auto", r="0,4")
    monkeypatch.setattr(run, "choose_batch_size", lambda *a: pytest.fail("chosen again"))
    _, again = sweep(tmp_path / "run", batch_size="auto", r="0,4")
    assert rows[0].batch_size == again[0].batch_size == 2


def test_a_list_schedule_is_one_cell_beside_the_baseline(tmp_path):
    _, rows = sweep(tmp_path / "run", schedule="list:8,8,8,0,0,0", r=None)
    assert [(row.r, row.schedule, row.tokens_out) for row in rows] == [
        (0, "constant", 101),
        (4, "list:8,8,8,0,0,0", 77),
    ]


def test_r_beside_a_list_schedule_is_refused():
    with pytest.raises(ConfigError, match="leave r out"):
        load_config([], {"model": "test_vit", "r": "0..8", "schedule": "list:8,8,8,0,0,0"})


def test_the_settings_of_torch_are_given_back(tmp_path):
    before = torch.get_num_threads(), torch.get_float32_matmul_precision()
    sweep(tmp_path / "run", r="0", threads=before[0] + 1)
    assert (torch.get_num_threads(), torch.get_float32_matmul_precision()) == before


@pytest.mark.parametrize(
    ("settings", "error", "text"),
    [
        ({"model": "resnet18"}, UnsupportedModelError, "ResNet has 'conv1'"),
        ({"model": "vit_b_17"}, ModelError, "did you mean vit_b_16"),
        ({"data": "/no/such/folder"}, DataError, "no such"),
        ({"data": "digits"}, DataError, "1 000 classes and digits 10"),
        ({"schedule": "list:8,8", "r": None}, SpecError, "2 values but the model has 6 blocks"),
    ],
)
def test_bad_input_is_refused_before_a_folder_is_made(tmp_path, settings, error, text):
    with pytest.raises(error, match=text):
        sweep(tmp_path / "run", offline=True, **settings)
    assert not (tmp_path / "run").exists()


def test_a_head_with_other_classes_is_refused(tmp_path, images):
    with pytest.raises(DataError, match="10 classes"):
        sweep(tmp_path / "run", model="digits_vit", data=str(images))
    assert not (tmp_path / "run").exists()


def test_another_configuration_on_the_same_folder_is_refused(tmp_path):
    sweep(tmp_path / "run", r="0,8")
    with pytest.raises(RunError, match="dtype"):
        sweep(tmp_path / "run", r="0,8", dtype="bf16")


def test_the_caller_s_random_state_is_left_alone(tmp_path):
    state = torch.get_rng_state(), random.getstate()
    sweep(tmp_path / "run", r="0,8")
    assert torch.equal(state[0], torch.get_rng_state())
    assert state[1] == random.getstate()


def test_break_forward_breaks_only_its_cell(tmp_path, monkeypatch):
    break_forward(monkeypatch, 16, out_of_memory)
    _, rows = sweep(tmp_path / "run")
    assert [row.status for row in rows] == ["ok", "ok", "oom"]
