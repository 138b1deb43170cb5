"""Records of a sweep: cells, bursts, rounds, predictions and images, as plain data with their JSON forms.

``Cell`` is what is asked for (frozen, hashable), ``Resolved`` its resolved form once the model is known. ``Burst``,
``Round`` and ``Chunk`` are raw data, stored as they were taken; the rows of :mod:`tomebench.runs.row` are derived from
them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from tomebench.vocabulary import MAX_DROP as MAX_DROP
from tomebench.vocabulary import MOST_CLASSES as MOST_CLASSES
from tomebench.vocabulary import OFF_THE_SHELF as OFF_THE_SHELF
from tomebench.vocabulary import TRAINED as TRAINED
from tomebench.vocabulary import WITH_OPTIONS as WITH_OPTIONS
from tomebench.vocabulary import Rope as Rope
from tomebench.vocabulary import Route as Route
from tomebench.vocabulary import Scalar as Scalar
from tomebench.vocabulary import Status as Status

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

SENTINEL = "sentinel"
"""Name of the second r = 0 variant of a round: the A/A control."""
UNWRAPPED = "unwrapped"
"""Name of the variant that is the model as its library made it, not wrapped."""
REFERENCE = "reference"
"""Name of the variant that is another model, or the model at another input size, which several runs are timed with."""

CEILING = "ceiling:"
"""Prefix of the name of a cell's ceiling, the variant that slices as many tokens off; the cell's key follows."""

NO_LABEL = -1
"""In place of a class: the image has no label, or fewer labels than another image."""


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal values give equal text. NaN and infinity raise ValueError."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def fingerprint(value: Any) -> str:
    """Sixteen hex digits that identify a JSON value."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:16]


def seeded_order(indices: Iterable[int], seed: int, kind: str) -> list[int]:
    """Indices in a random order that hashes decide, the same with every library version.

    Args:
        indices: in any order.
        seed: another seed, another order.
        kind: what is ordered: another kind, another order.
    """
    return sorted(indices, key=lambda i: hashlib.sha256(f"{seed}/{kind}/{i}".encode()).digest())


def split_head(weights: str) -> tuple[str, str]:
    """Weights of a model, and the class head from a file on it: `` with k-NN head sha256:<digest>``, or nothing."""
    own, _, head = weights.partition(" with ")
    return own, head and f" with {head}"


# Tier of the gate from which on cells that differ in a field are not compared: static, accuracy or speed.
_STATIC, _ACCURACY, _SPEED = ({"matters": tier} for tier in ("static", "accuracy", "speed"))


@dataclass(frozen=True)
class Cell:
    """One thing to measure: a model with one r, schedule and set of options, on one device.

    Reports name the fields in which cells differ, in the order of declaration.
    """

    model: str = field(metadata=_STATIC)  # timm id with tag, or the name of a preset
    # "random:<seed>", "sha256:<digest of the file>" or "sha256:<digest of the tensors> (pretrained)"; a head from a
    # file is said after it, see :func:`split_head`
    weights: str = field(metadata=_STATIC)
    img_size: int = field(metadata=_STATIC)
    method: str = field(metadata=_STATIC)
    options: tuple[tuple[str, Scalar], ...] = field(metadata=_STATIC)  # of the method, not at their default, by name
    schedule: str = field(metadata=_STATIC)  # constant, decreasing, increasing, inflect:<x> or list:<r,r,...>
    r: int = field(metadata=_STATIC)  # tokens to remove per layer (for list: the mean, rounded)
    batch_size: int = field(metadata=_SPEED)
    dtype: str = field(metadata=_ACCURACY)  # fp32, tf32, bf16 or fp16
    device: str = field(metadata=_SPEED)  # cpu, cuda, cuda:1, ...
    attention: str = field(default="auto", metadata=_ACCURACY)
    compile: bool = field(default=False, metadata=_SPEED)
    cuda_graphs: bool = field(default=False, metadata=_SPEED)
    mode: str = field(default="infer", metadata=_SPEED)
    # Proportional attention: size bias, log(size) added to the logits of attention.
    prop_attn: bool = field(default=True, metadata=_STATIC)
    # The last MLP runs only on tokens that the classification head reads.
    prefix_only: bool = field(default=False, metadata=_STATIC)
    preprocessing: str = field(default="timm", metadata=_STATIC)  # whose resize and crop: timm's or ToMe's
    predictors: str = field(default="", metadata=_STATIC)  # weights of a trained method, "sha256:<digest of the file>"
    rope: str = field(default="keep", metadata=_STATIC)  # rotation of a merged token in a rotary model

    @property
    def written_options(self) -> tuple[tuple[str, Scalar], ...]:
        """Name and value of the options as stores, gate baselines and tables list them, sorted by name.

        Proportional attention is always among them, the others of WITH_OPTIONS where they are not at their default.
        """
        usual = {each.name: each.default for each in dataclasses.fields(self)}
        own = {name: getattr(self, name) for name in WITH_OPTIONS}
        said = {name: value for name, value in own.items() if name == "prop_attn" or value != usual[name]}
        return tuple(sorted({**said, **dict(self.options)}.items()))

    @cached_property
    def key(self) -> str:
        """Text that identifies the cell in the store."""
        fields = self.to_json()
        if not self.cuda_graphs:
            del fields["cuda_graphs"]  # added later: keys of the first stores must stay as they are
        return fingerprint(fields)

    @property
    def is_baseline(self) -> bool:
        """Whether this is the cell that others are compared with: r = 0, nothing reduced."""
        return self.r == 0 and not self.schedule.startswith("list:")

    def to_json(self) -> dict[str, Any]:
        """A JSON object that :meth:`from_json` reads back, with the fields of WITH_OPTIONS among the options."""
        fields = dataclasses.asdict(self)
        return {name: value for name, value in fields.items() if name not in WITH_OPTIONS} | {
            "options": self.written_options
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Cell:
        """Inverse of :meth:`to_json`."""
        options = dict(data["options"])
        own = {name: options.pop(name) for name in WITH_OPTIONS if name in options}
        return cls(**{**data, **own, "options": tuple(options.items())})


# Facets of Resolved: shared by all cells of one run; covered by the hash of the protocol. The rest are costs.
_ALIKE, _PROTOCOL = {"alike": True}, {"protocol": True}
_ALIKE_PROTOCOL = _ALIKE | _PROTOCOL


@dataclass(frozen=True)
class Resolved:
    """Resolved form of a cell, once its model is known. Everything here is exact, nothing is measured."""

    timm_id: str = field(metadata=_ALIKE_PROTOCOL)
    r_layers: tuple[int, ...] = field(metadata=_PROTOCOL)  # tokens removed in each block, after clamping
    tokens: tuple[int, ...]  # tokens after each block
    tokens_in: int = field(metadata=_ALIKE_PROTOCOL)  # tokens before the first block, prefix included
    clamped: bool  # r was clamped in some block, to what the method can remove
    gmacs: float  # multiply-accumulates of the matmuls, 1e9
    gmacs_unwrapped: float = field(metadata=_ALIKE)
    gmacs_matching: float
    params_m: float = field(metadata=_ALIKE)
    attn_kernel: str
    crop_pct: float = field(metadata=_ALIKE_PROTOCOL)
    interpolation: str = field(metadata=_ALIKE_PROTOCOL)
    mean: tuple[float, ...] = field(metadata=_ALIKE_PROTOCOL)
    std: tuple[float, ...] = field(metadata=_ALIKE_PROTOCOL)
    crop_mode: str = field(default="center", metadata=_ALIKE)
    training: str = OFF_THE_SHELF  # of the method, not of the model
    padded: bool = False  # how many tokens are left depends on the image; tokens are with padding

    def to_json(self) -> dict[str, Any]:
        """A JSON object that :meth:`from_json` reads back."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Resolved:
        """Inverse of :meth:`to_json`."""
        fields: dict[str, Any] = {name: tuple(each) if isinstance(each, list) else each for name, each in data.items()}
        return cls(**fields)


@dataclass(frozen=True)
class Burst:
    """``steps`` passes (forward, or training steps) of one variant, timed between two synchronisations."""

    variant: str  # a cell's key, CEILING and a cell's key, SENTINEL, UNWRAPPED or REFERENCE
    steps: int
    seconds: float
    compiled: int = 0  # graphs compiled during it; unless 0 it must not be used
    mhz: int | None = None  # median clock of the GPU's multiprocessors during it
    passes: tuple[float, ...] = ()  # seconds of each pass, where each is waited for: at batch size 1
    capped: float | None = None  # share of the time in which the power limit held that clock down
    slowed: float | None = None  # share of the time in which heat or the hardware held it down
    backlog: float | None = None  # seconds that the GPU still ran after the host had issued all passes
    allocated: int = 0  # requests to the driver for memory during it; each takes time

    @property
    def undisturbed(self) -> tuple[float, int]:
        """Sort key of bursts: larger the less the GPU was slowed down."""
        return (-(self.slowed or 0.0), self.mhz or 0)

    @property
    def step_seconds(self) -> float:
        """Seconds per pass of one batch."""
        return self.seconds / self.steps


@dataclass(frozen=True)
class Round:
    """One burst of every variant, in the order they ran; throttled bursts are repeated, and all are stored."""

    session: int
    seed: int  # of the random order
    bursts: tuple[Burst, ...]
    other_cpus: float | None = None  # share of the machine's CPU time taken by other processes
    gpu_processes: int | None = None  # other processes on the GPU

    @cached_property
    def counted(self) -> Mapping[str, Burst]:
        """The burst of every variant that counts: the least slowed down of those that were repeated."""
        best: dict[str, Burst] = {}
        for burst in self.bursts:
            if burst.variant not in best or burst.undisturbed > best[burst.variant].undisturbed:
                best[burst.variant] = burst
        return best

    @cached_property
    def recompiled(self) -> frozenset[str]:
        """Variants in a burst of which a graph was compiled."""
        return frozenset(burst.variant for burst in self.bursts if burst.compiled)


@dataclass(frozen=True)
class CellPredictions:
    """Predictions of one cell for the images of one chunk (arrays of length n_valid), or for all images evaluated."""

    top1: npt.NDArray[np.uint16]  # predicted class
    in_top5: npt.NDArray[np.bool_]  # the true class is among the five largest logits
    ties: int = 0  # images whose largest logit is shared by two classes
    nonfinite: int = 0  # images with a NaN or infinite logit


class ImageState(NamedTuple):
    """State of the file that an image was decoded from."""

    file: str  # hex digits that change when the file is written or moved; empty where there is none
    digest: str  # of the file's bytes


@dataclass(frozen=True)
class Chunk:
    """One evaluated batch: images ``index * batch_size`` onwards, with the predictions of every cell."""

    index: int
    predictions: Mapping[str, CellPredictions] = field(hash=False)  # by cell key
    session: int | None = None  # session that evaluated it
    # From the request for its images to the last cell's logits, in the process that ran them.
    seconds: float | None = None
    waited: float | None = None  # the part of it until the images arrived
    read: tuple[ImageState, ...] = ()  # files its images were decoded from; empty in older stores


@dataclass(frozen=True)
class Pace:
    """Speed at which a session evaluated images, as sums over its chunks."""

    session: int
    chunks: int
    images: int
    seconds: float  # sum over all processes
    waited: float  # of it, waiting for images


@dataclass(frozen=True)
class ImageList:
    """The images to evaluate, in order: enough to rebuild every table without the data."""

    name: str
    digest: str  # sha256 over names and labels, in order
    labels: npt.NDArray[np.int64] = field(hash=False)  # [n]; or [n, k], where any is right; NO_LABEL fills up
    num_classes: int
    note: str | None = None  # e.g. "partial: 259 of 1000 classes, 300 images"
    class_names: tuple[str, ...] = ()  # in the order of the class numbers; not stored

    @property
    def labelled(self) -> bool:
        """Whether any image has a label."""
        return bool((self.labels != NO_LABEL).any())
