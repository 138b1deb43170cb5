"""Training predictors: a training that is stopped or killed ends with the same bytes; it learns; others are refused."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tomebench.backbones.apply import apply
from tomebench.datasets.images import ImageSet, open_dataset
from tomebench.errors import Interrupted, RunError, SpecError, StorageError
from tomebench.models.create import LoadedModel, load_model
from tomebench.models.preprocess import Preprocessing
from tomebench.reduction.learned import read_learned
from tomebench.training.recipe import BACKBONE, PREDICTORS, STATE, Epoch, Event, Recipe, Started, Trained
from tomebench.training.train import train

CPU = torch.device("cpu")
SHORT = Recipe(keep=0.5, steps=5, batch_size=8, lr=1e-3)
"""Two epochs of three batches, but for the last."""


def images(limit: int | None = 24, data: str = "digits-train") -> ImageSet:
    return open_dataset(data, limit)


def digits_vit() -> LoadedModel:
    return load_model("digits_vit", pretrained=True)


def run(recipe: Recipe, folder: Path, **more: object) -> list[Event]:
    return list(train(recipe, digits_vit(), images(), folder, CPU, **more))  # type: ignore[arg-type]


def stopped_after(count: int) -> Iterator[bool]:
    yield from [False] * (count - 1)
    while True:
        yield True


@pytest.mark.parametrize("backbone", [False, True])
def test_a_stopped_training_ends_as_one_that_is_not(tmp_path: Path, backbone: bool) -> None:
    recipe = replace(SHORT, backbone=backbone)
    events = run(recipe, tmp_path / "whole")
    assert [type(event) for event in events] == [Started, Epoch, Epoch, Trained]
    assert events[0] == Started(5, 0, (2, 4, 6))
    turns = stopped_after(2)
    with pytest.raises(Interrupted):
        run(recipe, tmp_path / "stopped", should_stop=lambda: next(turns))
    again = run(recipe, tmp_path / "stopped")
    assert again[0] == Started(5, 2, (2, 4, 6))
    assert [replace(event, seconds=0) for event in again if isinstance(event, Epoch)] == [
        replace(event, seconds=0) for event in events if isinstance(event, Epoch)
    ]
    for name in (PREDICTORS, *([BACKBONE] if backbone else [])):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "stopped" / name).read_bytes()
    assert not (tmp_path / "stopped" / STATE).exists()
    about = read_learned(tmp_path / "whole" / PREDICTORS).metadata
    ended = events[-1]
    assert isinstance(ended, Trained)
    assert ended.schedule == "list:0,98,0,49,0,25,0,0"
    if backbone:
        own = load_model("digits_vit", checkpoint=ended.backbone)
        assert about["weights"] == own.weights != about["trained_from"]
        first, trained = digits_vit().model.state_dict(), own.model.state_dict()
        assert any(not torch.equal(first[name], trained[name]) for name in first)
    else:
        assert ended.backbone is None
        assert about["weights"] == about["trained_from"] == digits_vit().weights
    assert about["data"] == images().info.digest


def test_an_ended_training_is_not_run_again_and_another_one_is_refused(tmp_path: Path) -> None:
    recipe = replace(SHORT, steps=1)
    run(recipe, tmp_path)
    (tmp_path / STATE).write_bytes(b"left by a kill after the last write")
    (ended,) = run(recipe, tmp_path)
    assert isinstance(ended, Trained)
    assert ended.before
    assert not (tmp_path / STATE).exists()
    with pytest.raises(RunError, match=r"holds a training with other keep \(0.5 -> 0.6\); use --out another folder"):
        run(replace(recipe, keep=0.6), tmp_path)
    turns = stopped_after(1)
    with pytest.raises(Interrupted):
        run(SHORT, tmp_path / "other", should_stop=lambda: next(turns))
    with pytest.raises(RunError, match="other seed"):
        run(replace(SHORT, seed=1), tmp_path / "other")
    (tmp_path / "other" / STATE).write_bytes(b"PK\3\4 cut off")
    with pytest.raises(StorageError, match=r"state.pt is no state of a training"):
        run(SHORT, tmp_path / "other")
    with pytest.raises(SpecError, match="cannot stand before the blocks 2,9 of a model of 8 blocks"):
        run(replace(SHORT, blocks=(2, 9)), tmp_path / "third")


def test_a_loss_that_is_not_finite_ends_it(tmp_path: Path) -> None:
    loaded = digits_vit()
    with torch.no_grad():
        loaded.model.head.bias.fill_(math.nan)
    with pytest.raises(RunError, match="the loss of step 1 is NaN or infinite; use a smaller --lr"):
        list(train(SHORT, loaded, images(), tmp_path, CPU))
    assert not (tmp_path / PREDICTORS).exists()


def accuracy(loaded: LoadedModel, shown: ImageSet, r: list[int], **method: object) -> float:
    """Top-1 in per cent with tokens removed by a method."""
    preprocessing = Preprocessing.from_model(loaded.model)
    transform = preprocessing.transform()
    reduced, right = apply(loaded.model, r, **method), 0  # type: ignore[arg-type]
    with torch.inference_mode():
        for first in range(0, len(shown), 100):
            some = range(first, min(first + 100, len(shown)))
            pixels = preprocessing.normalise(torch.stack([transform(shown.open(i)) for i in some]))
            right += int((reduced(pixels).argmax(dim=1) == torch.from_numpy(shown.info.labels[list(some)])).sum())
    return 100 * right / len(shown)


def check_it_beats_random(folder: Path, recipe: Recipe, limit: int | None, held_out: int | None) -> None:
    loaded = digits_vit()
    events = list(train(recipe, loaded, images(limit), folder, CPU))
    epochs, ended = [event for event in events if isinstance(event, Epoch)], events[-1]
    assert isinstance(ended, Trained)
    assert epochs[-1].total < epochs[0].total
    r = [int(each) for each in ended.schedule.removeprefix("list:").split(",")]
    shown = images(held_out, "digits")
    trained = accuracy(loaded, shown, r, method="dynamicvit", predictors=ended.predictors)
    random = [accuracy(loaded, shown, r, method="random-prune", seed=seed) for seed in range(3)]
    print(f"loss {epochs[0].total:.3f} -> {epochs[-1].total:.3f}; top-1 {trained:.1f}, random {random}")
    assert trained >= sum(random) / 3 + 2


def test_it_learns_and_beats_random(tmp_path: Path) -> None:
    check_it_beats_random(tmp_path, Recipe(keep=0.5, steps=60, batch_size=4, lr=3e-3), limit=120, held_out=100)


@pytest.mark.slow
def test_on_all_digits_it_beats_random(tmp_path: Path) -> None:
    check_it_beats_random(tmp_path, Recipe(keep=0.5, epochs=2, batch_size=16), limit=None, held_out=None)


KILLED = """
import sys
from pathlib import Path
sys.path[:0] = {path!r}
from training.test_train import CPU, SHORT, digits_vit, images, train
def slow():
    import time
    time.sleep(0.05)
    return False
for event in train(SHORT, digits_vit(), images(), Path(sys.argv[1]), CPU, slow, save_seconds=0):
    pass
"""


@pytest.mark.slow
def test_a_killed_training_ends_as_one_that_is_not(tmp_path: Path) -> None:
    run(SHORT, tmp_path / "whole")
    state = tmp_path / "killed" / STATE
    program = subprocess.Popen([sys.executable, "-c", KILLED.format(path=sys.path), str(state.parent)])
    until = time.monotonic() + 120
    while not state.exists() and program.poll() is None and time.monotonic() < until:
        time.sleep(0.01)
    os.kill(program.pid, signal.SIGKILL)
    assert program.wait() == -signal.SIGKILL
    events = run(SHORT, tmp_path / "killed")
    assert isinstance(events[0], Started)
    assert events[0].done > 0
    assert (state.parent / PREDICTORS).read_bytes() == (tmp_path / "whole" / PREDICTORS).read_bytes()
