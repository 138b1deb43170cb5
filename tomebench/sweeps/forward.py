"""Passes as a sweep runs them: every variant in the same way, on rotating batches, and saying which cell failed."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from tomebench.backbones.timm_vit import TimmViT
from tomebench.datasets.checks import check_images
from tomebench.datasets.images import ImageSet
from tomebench.errors import DeviceError, DeviceLostError
from tomebench.measure.compilation import CompilationError, RecompileLimitError, compiled
from tomebench.measure.cuda_graph import GraphedForward
from tomebench.measure.device import DTYPES
from tomebench.measure.probe import auto_batch_cap, auto_batch_size, is_oom
from tomebench.measure.speed import Variant
from tomebench.measure.training import Trainer
from tomebench.models.preprocess import Preprocessing
from tomebench.reduction.vit import SlicedViT
from tomebench.schema import CEILING, SENTINEL, UNWRAPPED, Status
from tomebench.sweeps.config import SweepConfig
from tomebench.sweeps.plan import PlannedCell, reduced_vit, variant_count

INPUT_BATCHES = 4
"""Batches rotated while timing, so that a step never sees the images of the step before."""


class CellFailed(Exception):
    """A cell's forward pass failed: out of memory (status oom), or for any other reason (failed)."""

    def __init__(self, key: str, status: Status, message: str) -> None:
        super().__init__(message)
        self.key, self.status = key, status


class Passes:
    """Every variant of a sweep, over the same weights, run the way the configuration asks.

    Args:
        config: says how: compiled, as CUDA graphs, for inference or for training.
        model: the model as its library made it.
        planned: the cells.
        device: where the model is.
    """

    def __init__(
        self, config: SweepConfig, model: nn.Module, planned: Sequence[PlannedCell], device: torch.device
    ) -> None:
        self._config, self._model, self._device = config, model, device
        self._first = next(cell for cell in planned if cell.cell.is_baseline)
        self.baseline = self._first.cell.key
        self._twin: nn.Module | None = None  # of the model, for the sentinel
        self._own: dict[str, nn.Module] = {}
        backbone = TimmViT(model)
        self.models: dict[str, nn.Module] = {
            cell.cell.key: reduced_vit(backbone, config, cell.r_asked, cell.options, cell.prop_attn) for cell in planned
        }
        self._ceilings: dict[str, nn.Module] = {}
        if config.ceiling:
            self._ceilings = {
                CEILING + cell.cell.key: reduced_vit(
                    backbone, config, cell.r_asked, cell.options, cell.prop_attn, SlicedViT
                )
                for cell in planned
                if any(cell.r_asked)
            }
        self._runs: dict[str, Callable[[Tensor], Tensor]] = {}
        self._pool = torch.cuda.graph_pool_handle() if config.cuda_graphs else None
        self._trainers: dict[bool, Trainer] = {}  # of the model, and of the sentinel's
        self._last: dict[str, tuple[int, Tensor]] = {}
        self._checked: set[str] = set()  # variants whose first training steps were looked at
        # By variant and over all rounds: with one step a burst each would otherwise see the same batch every time.
        self._turns: dict[str, Iterator[int]] = {}

    def names(self, live: Collection[str]) -> list[str]:
        """Names of the variants to time when the cells ``live`` work; the sentinel is a twin of the baseline's."""
        ceilings = [name for name in self._ceilings if name.removeprefix(CEILING) in live]
        return [*live, *ceilings, SENTINEL, UNWRAPPED]

    def variants(self, live: Collection[str], inputs: Sequence[Tensor]) -> list[Variant]:
        """What to time: each ceiling beside its cell."""
        waits = self._config.mode == "train" and self._config.dtype == "fp16"  # for the scaled loss
        return [
            Variant(name, self.step(name, inputs), name.removeprefix(CEILING) if name in self._ceilings else "", waits)
            for name in self.names(live)
        ]

    def forward(self, name: str) -> Callable[[Tensor], Tensor]:
        """[B, 3, H, W] -> logits [B, classes] without gradients; CellFailed names the cell that failed."""
        return guarded(self.cell(name), without_gradients(self._run(name)))

    def step(self, name: str, inputs: Sequence[Tensor], *, timed: bool = True) -> Callable[[], object]:
        """One forward pass or training step; each call takes the next batch.

        Args:
            name: of the variant.
            inputs: batches [B, 3, H, W] to rotate.
            timed: replay a CUDA graph where that was asked for, and keep what comes out for :meth:`take_output`.
        """
        if self._config.mode == "train":
            return rotating(guarded(self.cell(name), self._training(name, inputs)), inputs, self._turn(name))
        run = guarded(self.cell(name), without_gradients(self._run(name, graphed=timed)))
        if not timed:
            return rotating(run, inputs, self._turn(name))

        def keep(batch: int, logits: Tensor) -> None:
            self._last[name] = (batch, logits)

        return rotating(run, inputs, self._turn(name), keep)

    def take_output(self, name: str) -> tuple[int, Tensor] | None:
        """Which batch a variant's last timed pass took, and its logits [B, classes], once; None in training."""
        return self._last.pop(name, None)

    def _turn(self, name: str) -> Iterator[int]:
        return self._turns.setdefault(name, itertools.count())

    @property
    def state_bytes(self) -> int:
        """Bytes that stay between two steps: weights and the optimiser's state."""
        weights = sum(p.numel() * p.element_size() for p in self._model.parameters())
        return weights + (self._trainers[False].state_bytes if False in self._trainers else 0)

    def cell(self, name: str) -> str:
        """Key of the cell that a variant belongs to."""
        return self.baseline if name in (SENTINEL, UNWRAPPED) else name.removeprefix(CEILING)

    def _run(self, name: str, *, graphed: bool = True) -> Callable[[Tensor], Tensor]:
        """The pass of a variant; made once, since what is compiled or captured belongs to it."""
        if name not in self._runs:
            model = self.model_of(name)
            self._runs[name] = compiled(model) if self._config.compile else model
        if self._pool is None or not graphed:
            return self._runs[name]
        replayed = f"graph of {name}"
        if replayed not in self._runs:
            self._runs[replayed] = GraphedForward(self._runs[name], self._pool)
        return self._runs[replayed]

    def model_of(self, name: str) -> nn.Module:
        """The model of a variant, not compiled.

        That of the sentinel is the baseline over a copy of the weights: the same object in the same memory could not
        differ for a reason, and where a variant lies in memory is one.
        """
        if name == SENTINEL and name not in self._own:
            self._twin, cell = copy.deepcopy(self._model), self._first
            twin = reduced_vit(TimmViT(self._twin), self._config, cell.r_asked, cell.options, cell.prop_attn)
            self._own[name] = twin
        return {**self.models, **self._ceilings, **self._own, UNWRAPPED: self._model}[name]

    def _training(self, name: str, inputs: Sequence[Tensor]) -> Callable[[Tensor], Tensor]:
        forward = self._run(name)
        twin = name == SENTINEL
        model = self._twin if twin and self._twin is not None else self._model
        if twin not in self._trainers:
            self._trainers[twin] = Trainer(model, DTYPES[self._config.dtype], self._device)
        trainer = self._trainers[twin]
        classes = int(getattr(self._model, "num_classes", 0)) or 2
        labels = torch.arange(len(inputs[0]), device=self._device) % classes

        def step(images: Tensor) -> Tensor:
            if name not in self._checked:
                for batch in inputs:
                    trainer.check(forward, batch, labels)
                self._checked.add(name)
            return trainer.step(forward, images, labels)

        return step


def guarded(key: str, run: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """The same function, which says whose it was when it fails.

    Raises:
        CellFailed: out of memory (oom), or any other RuntimeError (failed).
    """

    def checked(images: Tensor) -> Tensor:
        with blamed(key, len(images)):
            return run(images)

    return checked


@contextmanager
def blamed(key: str, batch_size: int) -> Iterator[None]:
    """Says whose it was when something fails: a pass, or waiting for one, which is where a GPU's own errors surface.

    Raises:
        CellFailed: out of memory (oom), or any other RuntimeError (failed).
    """
    try:
        yield
        return
    except (RuntimeError, MemoryError, *CompilationError) as error:
        if isinstance(error, RecompileLimitError):
            raise CellFailed(key, "failed", "compiled more often than Dynamo's recompile limit allows") from error
        if not is_oom(error):
            raise CellFailed(key, "failed", " ".join(str(error).split())[:200]) from error
    # Outside the handler, where the traceback no longer holds the tensors of the failed pass.
    raise CellFailed(key, "oom", f"out of memory at batch size {batch_size}")


def lost_with(failure: CellFailed, who: str, device: torch.device) -> DeviceLostError:
    """What ends a command whose GPU was lost under a pass: see :func:`tomebench.measure.device.lost`."""
    why = str(failure)[:120]
    return DeviceLostError(f"{device} is of no use after {who} ({why}); what was measured is kept: run the same again")


def ending(failure: CellFailed, who: str, config: SweepConfig) -> Exception:
    """What ends a command that cannot go on without the cell that failed.

    Args:
        failure: of the cell.
        who: the cell, as the user knows it.
        config: of the command.

    Returns:
        A DeviceError that says what to do, where the user can do something; else what the pass raised, which is a bug.
    """
    if isinstance(failure.__cause__, CompilationError):
        what = str(failure).partition(": ")[2] or str(failure)
        return DeviceError(f"--compile: the model cannot be compiled here ({what[:160]}); leave --compile out")
    if failure.status == "oom":
        return DeviceError(f"{who} ran {failure}; use a smaller --batch-size")
    if "No available kernel" in str(failure):  # what PyTorch says when a pinned kernel does not take a shape
        return DeviceError(f"attention {config.attention} has no kernel for this model here; use --attention auto")
    cause = failure.__cause__
    return cause if isinstance(cause, Exception) else failure


@contextmanager
def no_room_is_an_input_error() -> Iterator[None]:
    """Out of memory where no cell is to blame, as in moving the model or the images to the device, is a DeviceError."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_oom(error):
            raise
        raise DeviceError("the model and its images do not fit in memory; use a smaller --batch-size") from error


def rotating(
    run: Callable[[Tensor], Tensor],
    inputs: Sequence[Tensor],
    turns: Iterator[int] | None = None,
    keep: Callable[[int, Tensor], object] = lambda batch, output: None,
) -> Callable[[], object]:
    """A step that takes the next batch at each call.

    Args:
        run: the pass.
        inputs: batches.
        turns: counts the calls; given, the rotation goes on where another step with it stopped.
        keep: is handed the index of the batch and what came out.
    """
    turns = itertools.count() if turns is None else turns

    def step() -> None:
        batch = next(turns) % len(inputs)
        keep(batch, run(inputs[batch]))

    return step


def without_gradients(forward: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """The same function in inference mode."""

    def run(images: Tensor) -> Tensor:
        with torch.inference_mode():
            return forward(images)

    return run


def weights_dtype(config: SweepConfig) -> torch.dtype:
    """Dtype of weights and images: training keeps fp32 and leaves the rest to autocast."""
    return torch.float32 if config.mode == "train" else DTYPES[config.dtype]


def choose_batch_size(config: SweepConfig, model: nn.Module, preprocessing: Preprocessing, device: torch.device) -> int:
    """The largest power of two, up to a cap per kind of device, whose pass (or training step) fits in memory.

    Beside it there is room for what a sweep keeps: the batches that it rotates, and one more for every CUDA graph,
    which reads from a place of its own.

    Raises:
        DeviceError: not even one image fits.
    """
    trainer = Trainer(model, DTYPES[config.dtype], device) if config.mode == "train" else None
    model.train(trainer is not None)  # with the dropout that its steps will have
    forward = without_gradients(model)
    batches = INPUT_BATCHES + (variant_count(config) if config.cuda_graphs else 0)

    def make_step(batch: int) -> Callable[[], object]:
        kept = torch.zeros(batches, batch, *preprocessing.input_size, device=device, dtype=weights_dtype(config))
        labels = torch.zeros(batch, dtype=torch.int64, device=device)

        def step() -> None:
            if trainer is None:
                forward(kept[0])
            else:
                trainer.step(model, kept[0], labels)
            if device.type == "cuda":
                torch.cuda.synchronize(device)  # of no other GPU, where it would take memory

        return step

    backbone = TimmViT(model)
    gmacs = backbone.macs().gmacs(backbone.tokens, [backbone.tokens] * backbone.depth)
    size = auto_batch_size(make_step, auto_batch_cap(device.type, gmacs))
    model.eval()
    return size


def usable_images(config: SweepConfig, listed: ImageSet, stop_if_asked: Callable[[], None]) -> ImageSet:
    """The images of a configuration as they were listed, all of which can be used.

    Those that ``allow_missing`` leaves out are gone from it, and its note says how many. ``stop_if_asked`` may raise
    while they are looked at.

    Raises:
        DataError: more than that cannot be read, or are not what ``verify`` says.
    """
    return check_images(
        listed,
        allow_missing=config.allow_missing,
        verify=config.verify,
        whole=config.limit is None,
        stop_if_asked=stop_if_asked,
    )


def timing_inputs(
    images: ImageSet | None,
    preprocessing: Preprocessing,
    batch_size: int,
    device: torch.device,
    dtype: torch.dtype,
    seed: int,
    count: int = INPUT_BATCHES,
) -> list[Tensor]:
    """``count`` batches [batch_size, 3, H, W] to time on: real images when there are some, else seeded normal noise.

    Never zeros: they flip fewer bits and run faster, and every token would tie. The images are spread over the whole
    set, and none is in a batch twice; a set with fewer images than a batch is not enough, and noise is used.
    """
    total = count * batch_size
    if images is None or len(images) < batch_size:
        generator = torch.Generator().manual_seed(seed)
        shape = (batch_size, *preprocessing.input_size)
        return [torch.randn(shape, generator=generator).to(device, dtype) for _ in range(count)]
    transform, n = preprocessing.transform(), len(images)
    if n >= total:  # strided: a set sorted by class gives every batch a bit of each
        picks = [[i * n // total for i in range(first, total, count)] for first in range(count)]
    else:
        picks = [[i % n for i in range(first, first + batch_size)] for first in range(0, total, batch_size)]
    pixels = [torch.stack([transform(images.open(i)) for i in pick]) for pick in picks]
    return [preprocessing.normalise(batch.to(device)).to(dtype) for batch in pixels]
