"""What rounding explains of an output and what it does not: on a map whose answers jump, and on real models."""

from __future__ import annotations

import functools
import math

import pytest
import torch
from torch import Tensor, nn

from tomebench.backbones.apply import apply
from tomebench.datasets.classes import ClassHead
from tomebench.measure.outputs import FEW, JITTER, Forward, output_excess
from tomebench.models.create import load_model
from tomebench.sweeps.config_files import load_config
from tomebench.sweeps.inputs import list_images, preprocessing_of, timing_inputs

IMAGES = torch.randn(16, 1, 8, 8, generator=torch.Generator().manual_seed(1))


class Jumping:
    """A linear map to ten logits, of which every image also takes one of two ways: that of a sum which is all rounding.

    Args:
        step: by how much the ways differ, relative to the logits.
    """

    def __init__(self, step: float) -> None:
        self.weight = torch.randn(64, 10, generator=torch.Generator().manual_seed(2))
        self.other = torch.randn(16, 10, generator=torch.Generator().manual_seed(3)) * step * 8
        self.calls = 0

    def __call__(self, images: Tensor, way: Tensor | None = None) -> Tensor:
        self.calls += 1
        if way is None:
            way = images.bfloat16().view(torch.int16).flatten(1).sum(1) // 2 % 2 == 0  # every pixel moves by one or so
        return images.float().flatten(1) @ self.weight + torch.where(way.unsqueeze(1), self.other, 0)


def test_the_same_bits_are_no_excess_and_cost_one_pass() -> None:
    model = Jumping(0.5)
    assert output_excess(model(IMAGES), model, IMAGES, "fp32") == 0
    assert model.calls == 2
    broken = torch.full((16, 10), math.nan)
    assert output_excess(broken, lambda images: broken.clone(), IMAGES, "fp32") == 0


@pytest.mark.parametrize("step", [0.01, 0.1, 0.5])
def test_another_way_of_the_same_model_is_explained(step: float) -> None:
    model, images = Jumping(step), IMAGES.bfloat16()
    for seed in range(5):
        way = torch.rand(16, generator=torch.Generator().manual_seed(seed)) < 0.5
        assert output_excess(model(images, way), model, images, "bf16") <= 1


@pytest.mark.parametrize("dtype", JITTER)
def test_what_rounding_does_not_explain_is_found(dtype: str) -> None:
    model, images = Jumping(0.1), IMAGES.bfloat16() if dtype == "bf16" else IMAGES
    right = model(images)
    other = right.clone()
    other[3] = right[4]
    rolled = right.clone()
    rolled[15] = right[15].roll(1)
    for wrong in (other, rolled, 1.5 * right, right + 0.2 * right.roll(1, 0)):
        assert output_excess(wrong, model, images, dtype) > 1


@pytest.mark.parametrize(("error", "found"), [(1e-5, False), (1e-3, True)])
def test_fp32_that_is_computed_as_if_it_were_tf32_is_found(error: float, found: bool) -> None:
    model = Jumping(0.1)
    noise = torch.randn(16, 10, generator=torch.Generator().manual_seed(5))
    assert (output_excess(model(IMAGES) * (1 + error * noise), model, IMAGES, "fp32") > 1) is found


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_only_when_timed_is_another_output(value: float) -> None:
    model = Jumping(0.1)
    timed = model(IMAGES)
    timed[2, 5] = value
    assert 1e29 < output_excess(timed, model, IMAGES, "fp32") < math.inf
    assert 1e29 < output_excess(model(IMAGES), lambda images: timed.clone(), IMAGES, "fp32") < math.inf


def test_only_what_the_first_draws_do_not_explain_is_looked_at_longer() -> None:
    model, images = Jumping(0.1), IMAGES.bfloat16()
    near = model(images) * 1.001
    model.calls = 0
    assert output_excess(near, model, images, "bf16") <= 1
    assert model.calls == 1 + FEW
    model.calls = 0
    assert output_excess(-near, model, images, "bf16") > 1
    assert model.calls == 1 + 64  # so that 16 images give over a thousand values


def digits() -> tuple[nn.Module, Tensor]:
    """The embedded model for a quarter of the pixels, and sixteen images."""
    settings = {"model": "digits_vit", "img_size": 28, "data": "digits", "device": "cpu", "batch_size": 16}
    config = load_config([], settings)
    model = load_model(config.model_spec).model.eval()
    pixels = preprocessing_of(config, model)
    return model, timing_inputs(
        list_images(config, ClassHead(10)), pixels, 16, torch.device("cpu"), torch.float32, 0, count=1
    )[0]


def once(forward: Forward) -> Forward:
    """The same model, which is run once on the same images: every comparison has the same draws of them."""
    found: dict[bytes, Tensor] = {}

    def answer(images: Tensor) -> Tensor:
        key = images.numpy().tobytes()
        if key not in found:
            found[key] = forward(images)
        return found[key]

    return answer


@functools.cache
def merged_digits() -> tuple[nn.Module, Tensor, Forward]:
    """The embedded model, sixteen images, and the model at r = 2."""
    model, images = digits()
    return model, images, once(apply(model, 2))


def test_a_token_that_is_wrong_in_one_image_is_found_in_fp32() -> None:
    model, images, reduced = merged_digits()
    with torch.inference_mode():
        assert output_excess(reduced(images * (1 + 2e-7)), reduced, images, "fp32") <= 1
        size = model.patch_embed.patch_size[0]
        swapped, middle = images.clone(), slice(12, 12 + size)
        swapped[2, :, middle, :size], swapped[2, :, middle, middle] = (
            images[2, :, middle, middle],
            images[2, :, middle, :size],
        )
        assert output_excess(reduced(swapped), reduced, images, "fp32") > 1


def test_another_r_is_found_in_fp32() -> None:
    model, images, reduced = merged_digits()
    with torch.inference_mode():
        assert output_excess(apply(model, 1)(images), reduced, images, "fp32") > 1


def test_another_image_is_found_in_half_precision_where_few_tokens_are_left() -> None:
    model, images = digits()
    with torch.inference_mode():
        reduced, inputs = apply(model.to(torch.bfloat16), 5), images.bfloat16()
        assert reduced.token_counts[-1] == 50 - 8 * 5
        wrong = reduced(inputs)
        wrong[3] = wrong[4]
        assert output_excess(wrong, reduced, inputs, "bf16") > 1
