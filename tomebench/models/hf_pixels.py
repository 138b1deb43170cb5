"""Preprocessing by an image processor of transformers, pixel for pixel as the library does it."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from PIL import Image
from torch import Tensor

from tomebench.datasets.decode import printable
from tomebench.errors import ModelError
from tomebench.models.preprocess import INTERPOLATIONS, Preprocessing
from tomebench.models.weights_file import short

RESCALED_FIRST = "DINOv3ViTImageProcessor"
"""The processor that resizes numbers from 0 to 1; all others resize bytes."""
_LARGEST = 8192
"""Largest side of an image in pixels that a processor may make."""
PROCESSORS = (
    *("ViTImageProcessor", "DeiTImageProcessor", "BitImageProcessor", "CLIPImageProcessor", "SiglipImageProcessor"),
    *("BeitImageProcessor", RESCALED_FIRST),
)
"""Processors that resize, crop and normalise each image by itself, to one size."""


_OF_MODELS = {
    "vit": "ViTImageProcessor",
    "deit": "DeiTImageProcessor",
    "dinov2": "BitImageProcessor",
    "dinov2_with_registers": "BitImageProcessor",
    "dinov3_vit": RESCALED_FIRST,
    "clip": "CLIPImageProcessor",
    "siglip": "SiglipImageProcessor",
    "beit": "BeitImageProcessor",
}
"""The processor of each kind of model."""


@dataclass(frozen=True)
class HFPreprocessing(Preprocessing):
    """Resize, crop and normalisation of an RGB image by an image processor."""

    settings: str = "{}"  # JSON of the processor's settings, its class among them

    @property
    def pixel_type(self) -> str:
        """Type of the numbers that :meth:`transform` gives, as numpy names it."""
        return "float32" if json.loads(self.settings)["image_processor_type"] == RESCALED_FIRST else "uint8"

    @property
    def more(self) -> dict[str, str]:
        """What else decides the pixels, by name."""
        return {"processor": self.settings, "transformers": metadata.version("transformers")}

    def transform(self) -> Callable[[Image.Image], Tensor]:
        """The processor without normalisation: RGB image to ``input_size``, of ``pixel_type``. Picklable."""
        return _Transform(self.settings)

    def normalise(self, pixels: Tensor) -> Tensor:
        """Rescale and normalise pixels on the device that they are on, as the processor does it.

        Args:
            pixels: of ``pixel_type`` [..., 3, H, W].

        Returns:
            float32 of the same shape.
        """
        processor = _processor(self.settings)
        mean, std = processor.image_mean, processor.image_std
        if self.pixel_type == "float32":
            return processor.normalize(pixels, mean, std) if processor.do_normalize else pixels
        return processor.rescale_and_normalize(
            pixels, processor.do_rescale, processor.rescale_factor, processor.do_normalize, mean, std
        ).float()


@dataclass(frozen=True)
class _Transform:
    settings: str

    def __call__(self, image: Image.Image) -> Tensor:
        return _pixels(self.settings, image)


def read_preprocessing(
    name: str, stated: Mapping[str, Any], model_type: str = "", size: int | None = None
) -> HFPreprocessing:
    """The preprocessing of the processor that settings describe.

    Args:
        name: of the model, for messages.
        stated: settings of the processor.
        model_type: of the model, whose processor it is where the settings name none.
        size: input height and width in pixels, to which its resize and crop are scaled; None: its own.

    Raises:
        ModelError: the settings cannot be read, or are of a processor that does something else.
    """
    import transformers

    what = f"--model {printable(name)}: its image processor"
    settings = dict(stated)
    kind = settings.get("image_processor_type") or settings.get("feature_extractor_type") or _OF_MODELS.get(model_type)
    kind = str(kind).removesuffix("Fast").replace("FeatureExtractor", "ImageProcessor")
    _check_kind(what, kind)
    try:
        settings = getattr(transformers, kind).from_dict(settings).to_dict()
    except Exception as error:
        raise ModelError(f"{what} cannot be read ({short(error)}); save the processor again") from error
    return _checked(what, settings, size)


def preprocessing_of(processor: Any, size: int | None = None) -> HFPreprocessing:
    """The preprocessing that an image processor of transformers does, at its own input size or another.

    Raises:
        ModelError: it does something else than resize, crop and normalise each image to one square.
    """
    return _checked("the image processor", processor.to_dict(), size)


def _check_kind(what: str, kind: str) -> None:
    if kind not in PROCESSORS:
        raise ModelError(f"{what} is a {printable(kind)[:80]}; one of {', '.join(PROCESSORS)} is expected")


def _checked(what: str, settings: dict[str, Any], size: int | None) -> HFPreprocessing:
    _check_kind(what, str(settings.get("image_processor_type")))
    if not settings.get("do_resize") or settings.get("do_pad"):
        raise ModelError(f"{what} does not resize, or pads, so that images have other sizes; change its settings")
    try:
        sides = [side for key in ("size", "crop_size") for side in _sides(settings.get(key)).values()]
        if not all(0 < side <= _LARGEST for side in sides):
            raise ModelError(f"{what} makes images of {max(sides)} pixels; sides from 1 to {_LARGEST} are expected")
        _check_numbers(what, settings)
        return _described(what, settings, size)
    except (TypeError, ValueError, KeyError, OverflowError, RuntimeError) as error:
        raise ModelError(
            f"{what} has settings that cannot be used ({short(error)}); save the processor again"
        ) from error


def _check_numbers(what: str, settings: Mapping[str, Any]) -> None:
    """Refuse a normalisation or scale that makes no numbers of pixels, or the same of all."""
    positive = [*_three(settings["image_std"])] if settings.get("do_normalize") else []
    positive += [float(settings.get("rescale_factor") or 0)] if settings.get("do_rescale") else []
    mean = _three(settings["image_mean"]) if settings.get("do_normalize") else ()
    if not all(0 < each < math.inf for each in positive) or not all(map(math.isfinite, mean)):
        raise ModelError(f"{what} divides by zero, or by no number; correct its image_mean, image_std, rescale_factor")


def _described(what: str, settings: dict[str, Any], size: int | None) -> HFPreprocessing:
    """Build the preprocessing of a processor's settings, at its own size or another."""
    own = _output(what, _text(settings))
    if size not in (None, own):
        assert size is not None
        for key in ("size", "crop_size"):
            settings[key] = {
                side: round(pixels * size / own) for side, pixels in _sides(settings.get(key)).items()
            } or None
        if settings.get("do_center_crop"):
            settings["crop_size"] = {"height": size, "width": size}
        own = _output(what, _text(settings))
        if own != size:
            raise ModelError(f"{what} cannot be scaled to {size} pixels; leave --img-size out")
    resized = _sides(settings["size"])
    resample = settings.get("resample")
    names = {
        number: each for each, number in ((each, getattr(Image.Resampling, each.upper())) for each in INTERPOLATIONS)
    }
    return HFPreprocessing(
        input_size=(3, own, own),
        crop_pct=own / max(min(resized.values()), own) if settings.get("do_center_crop") else 1.0,
        interpolation=names.get(2 if resample is None else int(resample), "bilinear"),
        mean=_three(settings["image_mean"]) if settings.get("do_normalize") else (0.0,) * 3,
        std=_three(settings["image_std"]) if settings.get("do_normalize") else (1.0,) * 3,
        crop_mode="center" if "shortest_edge" in resized else "squash",
        settings=_text(settings),
    )


def _three(value: Any) -> tuple[float, ...]:
    """A number for each channel, where one stands for all."""
    return (float(value),) * 3 if isinstance(value, int | float) else tuple(map(float, value))


def _sides(size: Any) -> dict[str, int]:
    """The sides that a processor's size names: ``shortest_edge``, or ``height`` and ``width``."""
    found = dict(size) if isinstance(size, Mapping) else {} if size is None else vars(size)
    return {side: int(pixels) for side, pixels in found.items() if pixels is not None}


def _output(what: str, settings: str) -> int:
    """Side of the square that the processor makes of every image."""
    sizes = set()
    for width, height in ((48, 64), (90, 70)):
        try:
            sizes.add(tuple(_pixels(settings, Image.new("RGB", (width, height))).shape))
        except (OSError, ValueError, TypeError, KeyError, RuntimeError) as error:
            raise ModelError(f"{what} cannot be run ({short(error)}); save the processor again") from error
    shape = sizes.pop()
    if sizes or len(shape) != 3 or shape[0] != 3 or shape[1] != shape[2]:
        raise ModelError(f"{what} makes images of other sizes than one square; only square images are supported")
    return int(shape[-1])


def _text(settings: Mapping[str, Any]) -> str:
    """Settings as canonical JSON."""
    plain = {key: _sides(value) if key in ("size", "crop_size") else value for key, value in settings.items()}
    kept = {key: value for key, value in plain.items() if not key.startswith("_") and value not in (None, {})}
    return json.dumps(kept, sort_keys=True, default=lambda value: int(value), allow_nan=False)


@functools.cache
def _processor(settings: str) -> Any:
    import transformers

    content = json.loads(settings)
    return getattr(transformers, content.pop("image_processor_type"))(**content)


def _pixels(settings: str, image: Image.Image) -> Tensor:
    """Run a processor without normalisation, and without rescaling unless it rescales first."""
    processor = _processor(settings)
    rescales = type(processor).__name__ == RESCALED_FIRST and processor.do_rescale
    found = processor(image, do_rescale=rescales, do_normalize=False, return_tensors="pt")
    pixels: Tensor = found["pixel_values"][0]
    return pixels.float() if type(processor).__name__ == RESCALED_FIRST else pixels
