"""The snapshot of a run as the gate compares it: strict pydantic records, safe to read from a stranger's file."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Collection
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from tomebench.schema import WITH_OPTIONS

Tier = Literal["static", "accuracy", "speed"]
TIERS: tuple[Tier, ...] = ("static", "accuracy", "speed")
"""The tiers. Static: what the model computes. Accuracy: which images are right. Speed: relative to r = 0."""

FORMAT: Literal["tomebench baseline"] = "tomebench baseline"
VERSION: Literal[4] = 4
"""Version of the file; raise it with every change of these records. Versions 1 to 3 lack fields that have defaults."""

_MAX_TEXT = 500
Text = Annotated[str, Field(max_length=_MAX_TEXT)]
Seconds = Annotated[float, Field(ge=1e-12, le=1e6)]
_MAX_CELLS = 10_000
_MAX_ROUNDS = 100_000


class _Record(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class Asked(_Record):
    """Settings of a cell: two cells may be compared in a tier where the fields that matter to it are equal."""

    model: Text
    weights: Text
    img_size: int
    method: Text
    options: Text
    schedule: Text
    r: Annotated[int, Field(ge=0)]
    dtype: Text
    attention: Text
    batch_size: int
    device: Literal["cpu", "cuda"]
    compile: bool
    cuda_graphs: bool
    mode: Text
    threads: int | None


class Static(_Record):
    """Static tier: what a model computes, without any timing."""

    r_layers: tuple[int, ...]
    tokens: tuple[int, ...]
    gmacs: Annotated[float, Field(gt=0)]
    params_m: Annotated[float, Field(gt=0)]
    preprocessing: Text
    weights: Text  # digest of the model's parameters, not of a file
    input: Text  # digest of the fixed input
    shape: tuple[int, int]  # [images, classes]
    logits: str  # base64 of little-endian float32, [images, classes]

    @field_validator("logits")
    @classmethod
    def _is_base64(cls, text: str) -> str:
        _bytes(text)
        return text

    @model_validator(mode="after")
    def _fits(self) -> Static:
        if min(self.shape) < 1 or len(_bytes(self.logits)) != 4 * self.shape[0] * self.shape[1]:
            raise ValueError("logits do not have the shape they say")
        if not np.isfinite(self.values()).all():
            raise ValueError("logits are not finite")
        return self

    def values(self) -> npt.NDArray[np.float32]:
        """Logits [images, classes]."""
        return np.frombuffer(_bytes(self.logits), dtype="<f4").reshape(self.shape)


class Accuracy(_Record):
    """Accuracy tier: which images were classified right."""

    dataset: Text
    digest: Text  # of the ordered list of images and labels
    content: Text | None = None  # digest of the bytes of the images evaluated
    n_seen: Annotated[int, Field(ge=1, le=100_000_000)]
    complete: bool  # all images of the list were evaluated
    right: str  # base64 of one bit per image, the first in the highest bit

    @model_validator(mode="after")
    def _fits(self) -> Accuracy:
        if len(_bytes(self.right)) != (self.n_seen + 7) // 8:
            raise ValueError("the number of images is not the number of answers")
        return self

    def values(self) -> npt.NDArray[np.bool_]:
        """For each image whether its top-1 is right, [n_seen]."""
        return np.unpackbits(np.frombuffer(_bytes(self.right), dtype=np.uint8), count=self.n_seen).astype(np.bool_)


class Speed(_Record):
    """Speed tier: seconds per image in every round, of the cell and of the variant that it is compared with."""

    seconds: Annotated[tuple[Seconds, ...], Field(max_length=_MAX_ROUNDS)]
    reference: Annotated[tuple[Seconds, ...], Field(max_length=_MAX_ROUNDS)]
    # Of each round; None if only one.
    processes: Annotated[tuple[int, ...], Field(max_length=_MAX_ROUNDS)] | None = None
    invalid: tuple[Text, ...] = ()  # warning codes that forbid using the speed
    testbed: Text  # fingerprint of the testbed

    @model_validator(mode="after")
    def _fits(self) -> Speed:
        if len(self.seconds) != len(self.reference) or not self.seconds:
            raise ValueError("every round needs both times, and there must be one")
        if self.processes is not None and len(self.processes) != len(self.seconds):
            raise ValueError("every round needs its process")
        return self


class CellRecord(_Record):
    """One cell in all tiers; None is "not measured"."""

    asked: Asked
    apart: Text = ""  # its method and schedule, each where it is not the first of the run
    problem: Text | None = None  # why it could not be measured
    nonfinite: bool = False  # its logits were NaN or infinite when it was evaluated
    static_problem: Text | None = None  # why its static tier could not be computed
    static: Static | None = None
    accuracy: Accuracy | None = None
    speed: Speed | None = None

    @property
    def name(self) -> str:
        """Name of a cell within its run: r, what tells it apart, and the options that vary from cell to cell."""
        options = [each for each in self.asked.options.split() if each.partition("=")[0] not in WITH_OPTIONS]
        return " ".join([f"r={self.asked.r}", *self.apart.split(), *options])


class Snapshot(_Record):
    """Snapshot of one run: its cells, settings, testbed and provenance."""

    format: Literal["tomebench baseline"] = FORMAT
    version: Literal[1, 2, 3, 4] = VERSION
    testbed: Text  # in words
    settings: dict[str, Any]  # of the run, enough to measure it again
    made: dict[Text, Text] = Field(default_factory=dict, max_length=50)  # provenance: digests of code, model, libraries
    noise_floor: Annotated[float, Field(ge=0)] | None = None  # of the speed tier, a fraction; from a self-check
    cells: Annotated[tuple[CellRecord, ...], Field(min_length=1, max_length=_MAX_CELLS)]

    @model_validator(mode="after")
    def _names_differ(self) -> Snapshot:
        if len({cell.name for cell in self.cells}) < len(self.cells):
            raise ValueError("two cells have the same name")
        return self

    def tiers(self) -> tuple[Tier, ...]:
        """Tiers that some cell has."""
        return tuple(tier for tier in TIERS if any(getattr(cell, tier) is not None for cell in self.cells))

    def testbeds(self) -> set[str]:
        """Fingerprints of the testbeds that speeds were timed on."""
        return {cell.speed.testbed for cell in self.cells if cell.speed is not None}

    def within_one_process(self) -> bool:
        """Whether all speeds were timed in a single process, as far as is recorded."""
        speeds = [cell.speed for cell in self.cells if cell.speed is not None]
        return bool(speeds) and all(speed.processes is None for speed in speeds)

    def having(self, other: Snapshot) -> Snapshot:
        """The same snapshot with only the cells that another one has, too."""
        names = {cell.name for cell in other.cells}
        return self.model_copy(update={"cells": tuple(cell for cell in self.cells if cell.name in names)})

    def only(self, tiers: Collection[Tier]) -> Snapshot:
        """The same snapshot without the other tiers."""
        without: dict[str, Any] = {tier: None for tier in TIERS if tier not in tiers}
        return self.model_copy(update={"cells": tuple(cell.model_copy(update=without) for cell in self.cells)})


def cut(text: str) -> str:
    """Text as a record can hold it: a longer one is cut and ends in an ellipsis."""
    return text if len(text) <= _MAX_TEXT else text[: _MAX_TEXT - 1] + "…"


def packed_logits(logits: npt.NDArray[np.floating[Any]]) -> str:
    """Logits [images, classes] in the form of :class:`Static`."""
    return base64.b64encode(logits.astype("<f4").tobytes()).decode()


def packed_bits(right: npt.NDArray[np.bool_]) -> str:
    """Whether each of n images is right, in the form of :class:`Accuracy`."""
    return base64.b64encode(np.packbits(right).tobytes()).decode()


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError("not base64") from error
