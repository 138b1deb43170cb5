"""The whole path on real weights and real images: counts of the default ToMe that were established independently.

Needs ``../shared/realdata`` beside the checkout; its README has the table.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn

from tomebench import stats
from tomebench.backbones.apply import apply
from tomebench.datasets.classes import ClassHead
from tomebench.measure import speed
from tomebench.measure.compilation import compiled
from tomebench.measure.outputs import output_excess
from tomebench.models.create import load_model
from tomebench.reduction.tokens import Tokens
from tomebench.reduction.vit import ReducedViT
from tomebench.runs import budget
from tomebench.runs.row import Row
from tomebench.runs.store import Store
from tomebench.sweeps import run
from tomebench.sweeps.config_files import load_config
from tomebench.sweeps.events import Finished
from tomebench.sweeps.inputs import list_images, preprocessing_of, timing_inputs

REALDATA = Path(__file__).parents[3] / "shared" / "realdata"
CHECKPOINT = REALDATA / "deit_tiny_patch16_224.safetensors"
R = range(0, 25, 2)
CORRECT = {
    "imagenet-val-300": (250, 251, 250, 250, 248, 248, 243, 238, 235, 223, 214, 188, 158),
    "imagenet-sample-100": (74, 73, 72, 71, 73, 74, 72, 73, 70, 67, 63, 57, 50),
}


@pytest.fixture(scope="module")
def sweeps(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[list[Row], list[npt.NDArray[np.bool_]]]]:
    """By set of images: the rows of all r, and for every r which images are right."""
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        # Only accuracy is looked at: one round of one-step bursts.
        patch.setitem(budget.BUDGETS, "quick", budget.Budget("quick", 1, 100.0, 0.0))
        patch.setattr("tomebench.measure.clock.CpuClock.min_burst", 1e-6)
        patch.setattr(speed, "WINDOW", 1)
        for name in CORRECT:
            settings = {"model": "deit_tiny_patch16_224", "checkpoint": CHECKPOINT, "data": str(REALDATA / name)}
            settings |= {"r": "0..24:2", "device": "cpu", "batch_size": 20, "budget": "quick"}
            folder = tmp_path_factory.mktemp("run")
            *_, finished = run.run_sweep(load_config([], settings), folder, should_stop=lambda: False)
            assert isinstance(finished, Finished)
            with Store.read(folder) as store:
                images, predictions = store.images(), store.predictions()
                assert images is not None
                right = [predictions[cell.key].top1 == images.labels[store.seen()] for cell, _ in store.cells()]
            found[name] = list(finished.rows), right
    return found


@pytest.mark.realdata
@pytest.mark.skipif(not CHECKPOINT.exists(), reason=f"needs {REALDATA.name} beside the checkout")
@pytest.mark.parametrize("name", CORRECT)
def test_counts_of_every_r_on_real_images(name, sweeps):
    rows, _ = sweeps[name]
    assert [row.r for row in rows] == list(R)
    for row, expected in zip(rows, CORRECT[name], strict=True):
        assert abs(row.top1_correct - expected) <= 1, f"r={row.r}: {row.top1_correct} instead of {expected}"
    assert "of 1000 classes" in rows[0].dataset


@pytest.mark.realdata
@pytest.mark.skipif(not CHECKPOINT.exists(), reason=f"needs {REALDATA.name} beside the checkout")
def test_the_interval_of_every_r_is_about_that_of_a_bootstrap(sweeps):
    """Of all 400 images, drawn anew 10 000 times: a method that shares nothing with a score test."""
    right = [np.concatenate(parts) for parts in zip(*(right for _, right in sweeps.values()), strict=True)]
    n, draw = len(right[0]), np.random.default_rng(0)
    print("\n r  lost  gained  Tango             bootstrap")
    for r, merged in zip(R[1:], right[1:], strict=True):
        change = merged.astype(int) - right[0].astype(int)
        lost, gained = int((change < 0).sum()), int((change > 0).sum())
        found = stats.paired_interval(lost, gained, n)
        ends = np.quantile(draw.multinomial(n, np.full(n, 1 / n), 10_000) @ change / n, [0.025, 0.975])
        shown = [f"[{100 * low:+6.2f}, {100 * high:+6.2f}]" for low, high in ((found.lo, found.hi), ends)]
        print(f"{r:2}  {lost:4}  {gained:6}  {shown[0]}  {shown[1]}")
        if lost + gained >= 10:  # of fewer a bootstrap knows too little
            assert (found.lo, found.hi) == pytest.approx(tuple(ends), abs=0.2 * (found.hi - found.lo))
        assert found.hi - found.lo >= ends[1] - ends[0] - 1 / n


@pytest.fixture(scope="module")
def deit() -> tuple[nn.Module, list[Tensor]]:
    """DeiT-Ti in bf16 and four batches of 32 real images."""
    config = load_config(
        [],
        {
            "model": "deit_tiny_patch16_224",
            "checkpoint": CHECKPOINT,
            "data": str(REALDATA / "imagenet-val-300"),
            "device": "cpu",
            "dtype": "bf16",
            "batch_size": 32,
        },
    )
    model = load_model(config.model, checkpoint=CHECKPOINT).model.eval().to(torch.bfloat16)
    return (
        model,
        timing_inputs(
            list_images(config, ClassHead(1000)),
            preprocessing_of(config, model),
            32,
            torch.device("cpu"),
            torch.bfloat16,
            seed=0,
        ),
    )


@pytest.mark.realdata
@pytest.mark.skipif(not CHECKPOINT.exists(), reason=f"needs {REALDATA.name} beside the checkout")
@pytest.mark.parametrize("r", [16, 22])
def test_compiled_bf16_is_explained_by_rounding_and_a_wrong_image_or_token_is_not(
    r: int, deit: tuple[nn.Module, list[Tensor]]
) -> None:
    model, inputs = deit
    eager = apply(model, r)
    run = compiled(apply(model, r))

    def excess(timed: Tensor, images: Tensor) -> float:
        return output_excess(timed, eager, images, "bf16")

    def with_swapped(first: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
        """Logits where two tokens, or what ``first`` makes of them, change places before the first block."""

        class Swapping(ReducedViT):
            def embed(self, pixels: Tensor) -> Tokens:
                return Tokens(first(super().embed(pixels).x.clone()))

        return Swapping(eager.backbone, eager.method, eager.r_layers)(images)

    def class_token(x: Tensor) -> Tensor:
        x[3, [0, 50]] = x[3, [50, 0]]
        return x

    def neighbours_token(x: Tensor) -> Tensor:
        x[:, 50] = x[:, 50].roll(1, 0)
        return x

    with torch.inference_mode():
        for images in inputs[:2]:
            logits = run(images)
            assert 0 < excess(logits, images) <= 1
            wrong = logits.clone()
            wrong[3] = logits[4]
            assert excess(wrong, images) > 1
        assert excess(with_swapped(class_token, images), images) > 1  # in one image
        if r == 16:  # one patch, in every image; at r = 22 rounding does as much
            assert excess(with_swapped(neighbours_token, images), images) > 1
