"""Preprocessing: the resize, crop and normalisation of images that a model's weights were published with.

The settings come from timm's rule and the pixels from timm's transform, so that accuracy compares with timm's tables.
An override replaces a setting in the same structure, so a row always shows the settings that were used.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import timm.data
import torch
from PIL import Image
from torch import Tensor, nn

from tomebench.errors import ConfigError, ModelError
from tomebench.words import counted

Rules = Literal["timm", "tome"]
"""Source of resize and crop: ``timm``, the settings that the weights carry, or ``tome``, those of the ToMe paper."""
TOME_CROP_PCT = 224 / 256
"""The paper resizes every image to 256/224 of the model's input size, and crops the centre."""
INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "box", "hamming", "lanczos")
CROP_MODES = ("center", "squash", "border")


def checked_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Check settings of preprocessing, and give them the types that they have in timm's ``pretrained_cfg``.

    Args:
        settings: any of ``mean`` and ``std`` (three numbers each), ``interpolation``, ``crop_pct`` and ``crop_mode``.

    Raises:
        ConfigError: another setting, or a value that it cannot have.
    """
    checked: dict[str, Any] = {}
    for name, value in settings.items():
        match name:
            case "mean" | "std":
                numbers = isinstance(value, Sequence) and all(isinstance(each, int | float) for each in value)
                if not numbers or len(value) != 3 or not all(math.isfinite(each) for each in value):
                    raise ConfigError(f"preprocessing {name} {value!r}: give three numbers, one for each channel")
                if name == "std" and min(value) <= 0:
                    raise ConfigError(f"preprocessing std {value!r}: pixels are divided by it; give three above 0")
                checked[name] = tuple(map(float, value))
            case "crop_pct":
                if isinstance(value, bool) or not isinstance(value, int | float):
                    raise ConfigError(f"preprocessing crop_pct {value!r}: give a fraction, above 0 and at most 1")
                checked[name] = _checked_crop_pct(value)
            case "interpolation" | "crop_mode":
                known = INTERPOLATIONS if name == "interpolation" else CROP_MODES
                if value not in known:
                    raise ConfigError(f"{name} {value!r} is not known; use one of {', '.join(known)}")
                checked[name] = value
            case _:
                raise ConfigError(
                    f"preprocessing has no setting {name!r}; it takes mean, std, interpolation, crop_pct, crop_mode"
                )
    return checked


def _checked_crop_pct(value: float) -> float:
    if not 0 < value <= 1:
        raise ConfigError(f"crop_pct {value:g}: give a fraction of the resized image, above 0 and at most 1")
    return float(value)


@dataclass(frozen=True)
class Preprocessing:
    """Resize, crop and normalisation of an RGB image, as the model's input needs it."""

    input_size: tuple[int, int, int]  # channels, height, width
    crop_pct: float  # input size over resized size, in (0, 1]
    interpolation: str  # filter of the resize, one of INTERPOLATIONS
    mean: tuple[float, ...]  # per channel, of pixels in [0, 1]
    std: tuple[float, ...]
    crop_mode: str = "center"  # timm's crop mode: center, squash or border

    @classmethod
    def from_model(
        cls,
        model: nn.Module,
        img_size: int | None = None,
        *,
        rules: Rules = "timm",
        crop_pct: float | None = None,
        interpolation: str | None = None,
    ) -> Preprocessing:
        """The settings of a timm model, by ``timm.data.resolve_model_data_config``.

        Args:
            model: a timm model; one without ``pretrained_cfg`` gets timm's defaults.
            img_size: input height and width in pixels; None: the size the model was built for. Where it is the size at
                which timm tests the weights, timm's crop for that size is used, too.
            rules: source of resize and crop.
            crop_pct: overrides that of ``rules``, in (0, 1].
            interpolation: overrides timm's, one of INTERPOLATIONS.

        Raises:
            ConfigError: an override that is out of range.
            ModelError: the model does not take images of three channels.
        """
        asked = {"crop_pct": crop_pct, "interpolation": interpolation}
        if isinstance(made := getattr(model, "preprocessing", None), cls):
            if rules != "timm" or crop_pct is not None or interpolation is not None:
                raise ConfigError(
                    "the model's own image processor says how images are resized; leave preprocessing out"
                )
            return made
        overrides = checked_settings({name: value for name, value in asked.items() if value is not None})
        published = getattr(model, "pretrained_cfg", None) or {}
        channels, *sides = tuple(published.get("input_size", (3, 224, 224)))
        own: Any = getattr(getattr(model, "patch_embed", model), "img_size", None)
        embeds: Any = getattr(model, "embeds", None)
        own = own or getattr(embeds, "default_img_size", None)
        if own is None and "input_size" not in published and (grid := getattr(embeds, "pos_embed_grid_size", None)):
            own = [cells * side for cells, side in zip(grid, embeds.patch_size, strict=True)]
        if own is not None:
            sides = [int(side) for side in own]  # may differ from the size of the published weights
        channels = int(getattr(model, "in_chans", channels))
        if channels != 3:
            what = counted(channels, "channel")
            raise ModelError(f"the model takes images of {what}; only RGB models can be evaluated")
        if img_size is None and sides[0] != sides[1]:
            raise ModelError(
                f"the model takes images of {sides[0]} x {sides[1]} pixels; only square ones are supported"
            )
        size = (3, *sides) if img_size is None else (3, img_size, img_size)
        test_size = published.get("test_input_size")
        given: dict[str, Any] = {}
        if rules == "tome":
            given = {"crop_pct": TOME_CROP_PCT, "crop_mode": "center"}
        given |= overrides
        config = timm.data.resolve_model_data_config(
            model,
            args={"input_size": size, **given},
            use_test_size=test_size is not None and tuple(test_size) == size,
        )
        return cls(
            input_size=size,
            crop_pct=float(config["crop_pct"]),
            interpolation=str(config["interpolation"]),
            mean=tuple(float(value) for value in config["mean"]),
            std=tuple(float(value) for value in config["std"]),
            crop_mode=str(config["crop_mode"]),
        )

    @property
    def pixel_type(self) -> str:
        """Type of the numbers that :meth:`transform` gives, as numpy names it."""
        return "uint8"

    @property
    def bytes_per_image(self) -> int:
        """Bytes of what :meth:`transform` gives."""
        return math.prod(self.input_size) * np.dtype(self.pixel_type).itemsize

    @property
    def more(self) -> dict[str, str]:
        """What else decides the pixels, by name."""
        return {}

    def transform(self) -> Callable[[Image.Image], Tensor]:
        """The evaluation transform of timm without normalisation: RGB image to uint8 ``input_size``. Picklable."""
        return timm.data.create_transform(
            input_size=self.input_size,
            is_training=False,
            crop_pct=self.crop_pct,
            crop_mode=self.crop_mode,
            interpolation=self.interpolation,
            normalize=False,
        )

    def normalise(self, pixels: Tensor) -> Tensor:
        """Normalise pixels on the device that they are on: the last step of timm's transform.

        Done there because uint8 is a quarter of the bytes of fp32 to copy to a device. The operations are those of
        timm's transform in the same order, so on a CPU the result has the same bits.

        Args:
            pixels: uint8 [..., 3, H, W].

        Returns:
            float32 of the same shape.
        """
        mean, std = (
            torch.tensor(values, dtype=torch.float32, device=pixels.device).view(-1, 1, 1)
            for values in (self.mean, self.std)
        )
        return pixels.float().div_(255).sub_(mean).div_(std)
