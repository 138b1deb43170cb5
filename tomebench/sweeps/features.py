"""Compare the features of a merged model with those of the model that keeps all tokens, per block and at the end.

After unmerging, every patch has the feature of the token that it ended in, so the two are compared patch by patch. This
needs no labels, and is what encoders are used for. Nothing is stored.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from tomebench.ambient import usual_state
from tomebench.backbones.adapt import adapt
from tomebench.errors import ConfigError, Interrupted
from tomebench.measure.allocator import keep_memory
from tomebench.measure.device import arithmetic, device_name, resolve_device
from tomebench.models.create import load_model
from tomebench.reduction.attention import check_route
from tomebench.reduction.plan import spread
from tomebench.reduction.vit import ReducedViT
from tomebench.stats.interval import MIN_VALUES, Interval
from tomebench.stats.processes import mean_half_width
from tomebench.sweeps.cells import ResolvedCell, reduced_vit, resolve_cells
from tomebench.sweeps.config import SweepConfig
from tomebench.sweeps.events import Event, Phase, Progress
from tomebench.sweeps.failures import no_room_is_an_input_error
from tomebench.sweeps.inputs import Reading, list_images, preprocessing_of, usable_images, weights_dtype
from tomebench.words import counted

_BATCH = 16
"""Images of a pass where the batch size is ``auto``: the tokens after every block are kept for each."""
_MOST_BYTES = 8 * 2**30
"""Most bytes of sums: three matrices of channels by channels for every cell and block."""


@dataclass(frozen=True)
class Likeness:
    """How like two sets of patch features are."""

    where: str  # block 1, block 2, ...; end: after the last norm
    tokens: int  # left there, of an image
    cosine: (
        float  # mean over patches and images, in [-1, 1]; a patch whose token was dropped has zeros, and counts as 0
    )
    cosine_lo: float | None  # 95 % interval of the mean over images; None of fewer than six
    cosine_hi: float | None
    cka: float | None  # linear CKA over all patches of all images, in [0, 1]; None where features do not vary


@dataclass(frozen=True)
class CellFeatures:
    """Likeness of one cell to r = 0."""

    name: str
    method: str
    schedule: str
    r: int
    gmacs: float
    places: tuple[Likeness, ...]  # after every block, then at the end
    pooled_cosine: float | None  # of what the class head reads, or the model's output; None where it pools nothing

    @property
    def end(self) -> Likeness:
        """After the last norm."""
        return self.places[-1]


@dataclass(frozen=True)
class FeaturesReport:
    """Features of every cell, and what they are of."""

    model: str
    weights: str
    img_size: int
    images: str
    note: str | None  # such as which of the images
    n_images: int
    device: str
    dtype: str
    batch_size: int
    patches: int
    cells: tuple[CellFeatures, ...]


class LinearCKA:
    """Linear centred kernel alignment (Kornblith et al., ICML 2019) of two sets of features, batch by batch.

    ||Y'X||^2 / (||X'X|| ||Y'Y||) in the Frobenius norm, X [n, D] and Y [n, D] centred. Both are shifted by the means of
    their first batches before products are summed, and sums are float64.
    """

    def __init__(self) -> None:
        self._shifts: tuple[Tensor, Tensor] | None = None
        self._n = 0
        self._sums: list[Tensor] = []

    def add(self, x: Tensor, y: Tensor) -> None:
        """Take in further rows: x and y [n, D]."""
        self._shifts = self._shifts or (x.mean(dim=0), y.mean(dim=0))
        x, y = (each - shift for each, shift in zip((x, y), self._shifts, strict=True))
        with arithmetic("fp32", None):
            found = [each.double() for each in (x.t() @ x, y.t() @ y, y.t() @ x, x.sum(dim=0), y.sum(dim=0))]
        self._n += len(x)
        self._sums = [old + new for old, new in zip(self._sums, found, strict=True)] if self._sums else found

    def value(self) -> float | None:
        """CKA of the rows so far, in [0, 1]; None where one of the two does not vary."""
        xx, yy, yx, x, y = self._sums
        xx, yy, yx = (
            whole - torch.outer(one, other) / self._n for whole, one, other in ((xx, x, x), (yy, y, y), (yx, y, x))
        )
        both = float(xx.norm() * yy.norm())
        return min(float(yx.norm() ** 2) / both, 1.0) if both > 0 else None  # rounding may lead beyond 1


def run_features(config: SweepConfig, should_stop: Callable[[], bool]) -> Generator[Event, None, FeaturesReport]:
    """Compare the patch features of every cell with those at r = 0.

    Args:
        config: model, cells and images; labels, budget, folders and what else is about timing play no part.
        should_stop: asked before every batch.

    Yields:
        Events.

    Returns:
        The report.

    Raises:
        InputError: the model, images or device cannot be used as asked.
        Interrupted: ``should_stop()`` became true; nothing is kept.
    """
    if config.data is None:
        raise ConfigError("features are those of pictures; add --data FOLDER, which needs no labels")
    for name in ("compile", "cuda_graphs", "selector", "prefix_only"):
        if getattr(config, name):
            raise ConfigError(f"features looks at the tokens after every block; drop --{name.replace('_', '-')}")
    if config.mode != "infer":
        raise ConfigError(f"features runs forward passes; drop --mode {config.mode}")
    config = config.model_copy(update={"labels": False})
    device = resolve_device(config.device, config.dtype)
    check_route(config.attention, device, config.dtype, training=False)
    keep_memory()
    with usual_state(), arithmetic(config.dtype, config.threads), no_room_is_an_input_error():
        return (yield from _features(config, should_stop, device))


def _features(
    config: SweepConfig, should_stop: Callable[[], bool], device: torch.device
) -> Generator[Event, None, FeaturesReport]:
    """:func:`run_features` on a resolved device, its arithmetic set."""

    def check() -> None:
        if should_stop():
            raise Interrupted("stopped between two batches; nothing is kept")

    yield Phase("load", None)
    loaded = load_model(config.model_spec, pretrained=True)
    images = usable_images(config, list_images(config, loaded.head), check)
    batch_size = min(config.batch_size if isinstance(config.batch_size, int) else _BATCH, len(images))
    loaded.model.to(device=device, dtype=weights_dtype(config))
    backbone, preprocessing = adapt(loaded.model), preprocessing_of(config, loaded.model)
    cells = resolve_cells(config, loaded, weights=loaded.weights, batch_size=batch_size, device=device_name(device))
    base, others = cells[0], cells[1:]
    if not others:
        raise ConfigError("r = 0 is what is compared with; give --r another value, too")
    sums = 3 * 8 * len(others) * (backbone.depth + 1) * backbone.macs().blocks[-1].width ** 2
    if sums > _MOST_BYTES:
        raise ConfigError(
            f"the sums of {counted(len(others), 'cell')} take {sums / 2**30:.0f} GiB; give --r fewer values"
        )
    reading = Reading(config, images, preprocessing, batch_size, device)
    unmerged = reduced_vit(backbone, config, base)
    runs = [_Run(cell, reduced_vit(backbone, config, cell)) for cell in others]
    yield Phase("features", float(len(images)))
    done = 0
    for batch in reading.batches(range(-(-len(images) // batch_size))):
        pixels = reading.prepare(batch.images)[: batch.n_valid]
        with torch.inference_mode():
            expected = list(patches(unmerged, pixels))
            for run in runs:
                check()
                run.add(expected, patches(run.model, pixels))
        done += batch.n_valid
        yield Progress("features", float(done), float(len(images)), "images", "")
    return FeaturesReport(
        model=loaded.timm_id,
        weights=loaded.weights,
        img_size=preprocessing.input_size[-1],
        images=images.info.name,
        note=images.info.note,
        n_images=len(images),
        device=device_name(device),
        dtype=config.dtype,
        batch_size=batch_size,
        patches=backbone.tokens - backbone.prefix,
        cells=tuple(run.summary() for run in runs),
    )


def patches(model: ReducedViT, images: Tensor) -> Iterator[tuple[Tensor, int]]:
    """Unmerged features of every patch after every block, then after the last norm, then what the class head reads.

    Yields:
        Features float32 [B, patches, C], of what the head reads [B, 1, C]; and the number of tokens that are left.
    """
    prefix, left = model.backbone.prefix, model.backbone.tokens
    tokens = None
    for number, (tokens, source) in enumerate(model.states(images)):
        left = tokens.x.shape[1]
        if number:
            yield spread(tokens.x, source)[:, prefix:].float(), left
    assert tokens is not None
    features = model.backbone.norm(tokens.x)
    yield spread(features, source)[:, prefix:].float(), left
    pooled = model.backbone.head(features, tokens.size, model.prop_attn, pre_logits=True)
    if pooled.ndim == 2:
        yield pooled[:, None].float(), left


class _Run:
    """Sums of one cell."""

    def __init__(self, cell: ResolvedCell, model: ReducedViT) -> None:
        self._cell, self.model, self._depth = cell, model, model.backbone.depth
        self._ckas: list[LinearCKA] = []
        self._cosines: list[list[float]] = []  # of every image, by place
        self._tokens: list[int] = []

    def add(self, expected: list[tuple[Tensor, int]], found: Iterator[tuple[Tensor, int]]) -> None:
        """Take in a batch: features by place, of r = 0 and of this cell."""
        for place, ((x, _), (y, left)) in enumerate(zip(expected, found, strict=True)):
            pooled = place > self._depth  # one row of an image, of which no CKA is asked
            if place == len(self._cosines):
                self._cosines.append([])
                if not pooled:
                    self._tokens.append(left)
                    self._ckas.append(LinearCKA())
            self._cosines[place] += F.cosine_similarity(x, y, dim=-1).mean(dim=1).tolist()
            if not pooled:
                self._ckas[place].add(x.flatten(0, 1), y.flatten(0, 1))

    def summary(self) -> CellFeatures:
        """Likeness at every place."""
        places, pooled = self._cosines[: len(self._ckas)], self._cosines[len(self._ckas) :]
        names = [*(f"block {number}" for number in range(1, len(places))), "end"]
        return CellFeatures(
            name=self._cell.name,
            method=self._cell.cell.method,
            schedule=self._cell.cell.schedule,
            r=self._cell.cell.r,
            gmacs=self._cell.resolved.gmacs,
            places=tuple(_likeness(*each) for each in zip(names, self._tokens, places, self._ckas, strict=True)),
            pooled_cosine=math.fsum(pooled[0]) / len(pooled[0]) if pooled else None,
        )


def _likeness(where: str, tokens: int, cosines: list[float], cka: LinearCKA) -> Likeness:
    mean, half = math.fsum(cosines) / len(cosines), mean_half_width(cosines)
    interval = Interval(mean - half, min(mean + half, 1.0)) if half is not None and len(cosines) >= MIN_VALUES else None
    return Likeness(
        where, tokens, mean, interval.lo if interval else None, interval.hi if interval else None, cka.value()
    )
