"""Preprocessing follows timm's configuration of the weights, and its pixels are the resize and crop that it names."""

import pickle

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from tomebench.errors import ConfigError, ModelError
from tomebench.models.preprocess import Preprocessing

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF = ((0.5,) * 3, (0.5,) * 3)


class Published(torch.nn.Module):
    """As much of a model as preprocessing looks at."""

    def __init__(self, **config):
        super().__init__()
        self.pretrained_cfg = config


def photo(width=300, height=260):
    rng = np.random.Generator(np.random.PCG64(0))
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize(
    ("name", "size", "crop_pct", "normalisation"),
    [
        ("deit_tiny_patch16_224.fb_in1k", 224, 0.9, IMAGENET),
        ("vit_tiny_patch16_224.augreg_in21k_ft_in1k", 224, 0.9, HALF),
        ("vit_tiny_patch16_384.augreg_in21k_ft_in1k", 384, 1.0, HALF),
    ],
)
def test_timm_models(name, size, crop_pct, normalisation):
    model = timm.create_model(name)
    settings = Preprocessing.from_model(model, size)
    assert settings == Preprocessing((3, size, size), crop_pct, "bicubic", *normalisation)
    assert settings == Preprocessing.from_model(model)


def test_without_configuration():
    assert Preprocessing.from_model(torch.nn.Identity(), 56) == Preprocessing((3, 56, 56), 0.875, "bicubic", *IMAGENET)


def test_test_size_brings_its_own_crop():
    model = Published(input_size=(3, 224, 224), crop_pct=0.9, test_input_size=(3, 288, 288), test_crop_pct=1.0)
    crops = {size: Preprocessing.from_model(model, size).crop_pct for size in (None, 224, 256, 288)}
    assert crops == {None: 0.9, 224: 0.9, 256: 0.9, 288: 1.0}


def test_overrides():
    model = Published(crop_pct=0.9, interpolation="bicubic", mean=HALF[0], std=HALF[1])
    settings = Preprocessing.from_model(model, 224, crop_pct=0.5, interpolation="bilinear")
    assert settings == Preprocessing((3, 224, 224), 0.5, "bilinear", *HALF)


@pytest.mark.parametrize(("size", "resized"), [(224, 256), (384, 438)])
def test_the_papers_protocol(size, resized):
    """256/224 of the input size, at 384 too, where timm's own settings do not crop at all."""
    model = Published(crop_pct=1.0, crop_mode="squash", mean=HALF[0], std=HALF[1])
    settings = Preprocessing.from_model(model, size, rules="tome")
    assert settings == Preprocessing((3, size, size), 224 / 256, "bicubic", *HALF)
    assert settings.transform().transforms[0].size == resized


@pytest.mark.parametrize("override", [{"crop_pct": 0.0}, {"crop_pct": 1.1}, {"interpolation": "cubic"}])
def test_bad_overrides(override):
    with pytest.raises(ConfigError):
        Preprocessing.from_model(torch.nn.Identity(), 224, **override)


def test_gray_models_are_refused():
    with pytest.raises(ModelError, match="1 channel; only RGB"):
        Preprocessing.from_model(Published(input_size=(1, 28, 28)))


@pytest.mark.parametrize(
    ("size", "crop_pct", "resized"),
    [(224, 0.9, 248), (224, 1.0, 224), (224, 224 / 256, 256), (384, 224 / 256, 438)],  # the last two: the ToMe paper's
)
@pytest.mark.parametrize(("interpolation", "resample"), [("bicubic", Image.BICUBIC), ("bilinear", Image.BILINEAR)])
def test_pixels(size, crop_pct, resized, interpolation, resample):
    image = photo(300, 260)
    width = int(resized * 300 / 260)
    left, top = round((width - size) / 2), round((resized - size) / 2)
    expected = image.resize((width, resized), resample).crop((left, top, left + size, top + size))
    pixels = torch.from_numpy(np.asarray(expected).copy()).permute(2, 0, 1) / 255
    mean, std = (torch.tensor(values)[:, None, None] for values in IMAGENET)
    settings = Preprocessing((3, size, size), crop_pct, interpolation, *IMAGENET)
    tensor = settings.normalise(settings.transform()(image))
    assert tensor.dtype == torch.float32
    torch.testing.assert_close(tensor, (pixels - mean) / std, rtol=0, atol=1e-6)


@pytest.mark.parametrize("normalisation", [IMAGENET, HALF])
def test_normalising_apart_gives_the_bits_of_timms_transform(normalisation):
    settings = Preprocessing((3, 64, 64), 0.9, "bicubic", *normalisation)
    whole = timm.data.create_transform(
        (3, 64, 64), crop_pct=0.9, interpolation="bicubic", mean=normalisation[0], std=normalisation[1]
    )
    pixels = torch.stack([settings.transform()(photo(width)) for width in (300, 90)])
    assert pixels.dtype == torch.uint8
    expected = torch.stack([whole(photo(width)) for width in (300, 90)])
    assert torch.equal(settings.normalise(pixels), expected)
    assert not torch.equal(settings.normalise(pixels), expected + 1e-6)


def test_crop_mode_reaches_the_transform():
    model = Published(crop_pct=1.0, crop_mode="squash")
    tensor = Preprocessing.from_model(model, 32).transform()(Image.new("RGB", (100, 10)))
    assert tensor.shape == (3, 32, 32)
    assert Preprocessing.from_model(model, 32).crop_mode == "squash"


def test_transform_is_picklable():
    transform = Preprocessing((3, 32, 32), 0.9, "bicubic", *IMAGENET).transform()
    assert torch.equal(pickle.loads(pickle.dumps(transform))(photo()), transform(photo()))
